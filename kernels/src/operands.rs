//! Operands as devices see them: checked slices without shapes of any rank.

use std::ops::Range;

use gguf::TensorType;

use crate::RowIndex;
use crate::kv::{KvLayer, KvShape};

/// A matrix of any tensor type that the device supports: `[n_rows, row_len]`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub(crate) tensor_type: TensorType,
    pub(crate) n_rows: usize,
    pub(crate) row_len: usize,
    /// Bytes of a row; at least 1.
    pub(crate) row_bytes: usize,
    /// `n_rows * row_bytes` bytes, at any alignment.
    pub(crate) bytes: &'a [u8],
}

impl<'a> Matrix<'a> {
    /// The bytes of one row.
    pub(crate) fn row(&self, index: usize) -> &'a [u8] {
        &self.bytes[index * self.row_bytes..][..self.row_bytes]
    }
}

/// f32 activations: `[rows, cols]`, cols at least 1.
#[derive(Clone, Copy)]
pub(crate) struct Activations<'a> {
    pub(crate) cols: usize,
    pub(crate) data: &'a [f32],
}

impl<'a> Activations<'a> {
    pub(crate) fn n_rows(&self) -> usize {
        self.data.len() / self.cols
    }

    pub(crate) fn row(&self, index: usize) -> &'a [f32] {
        &self.data[index * self.cols..][..self.cols]
    }
}

/// A vector of f32 numbers at any alignment, as bytes: norm weights and biases lie in the file.
#[derive(Clone, Copy)]
pub(crate) struct Vector<'a>(pub(crate) &'a [[u8; 4]]);

impl Vector<'_> {
    pub(crate) fn get(&self, index: usize) -> f32 {
        f32::from_le_bytes(self.0[index])
    }
}

/// A product to be had: `weight · x + bias`, put into `out` or added to what is there.
pub(crate) struct Product<'a> {
    pub(crate) weight: Matrix<'a>,
    /// `[weight.n_rows]`
    pub(crate) bias: Option<Vector<'a>>,
    pub(crate) keep: Keep,
    /// `[rows, weight.n_rows]`
    pub(crate) out: &'a mut [f32],
}

impl<'a> Product<'a> {
    /// A product that takes the place of what was in `out`.
    pub(crate) fn replacing(
        weight: Matrix<'a>,
        bias: Option<Vector<'a>>,
        out: &'a mut [f32],
    ) -> Product<'a> {
        let keep = Keep::Nothing;
        Product {
            weight,
            bias,
            keep,
            out,
        }
    }
}

/// What becomes of the numbers that were in the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// They are replaced.
    Nothing,
    /// The result is added to them.
    Sum,
}

/// Attention of a batch over one layer of the store.
#[derive(Clone, Copy)]
pub(crate) struct AttentionJob<'a> {
    /// Queries: `[rows, n_heads * head_dim_k]`.
    pub(crate) q: &'a [f32],
    pub(crate) n_heads: usize,
    pub(crate) layer: &'a KvLayer,
    pub(crate) shape: KvShape,
    /// Made for a store of this shape.
    pub(crate) rows: &'a RowIndex,
    /// Factor on each score before the softmax.
    pub(crate) scale: f32,
    /// Positions that a row sees, its own included; at least 1.
    pub(crate) window: usize,
    /// Bound that scores approach.
    pub(crate) soft_cap: Option<f32>,
    /// A further score of each head, with no value: `[n_heads]`.
    pub(crate) sinks: Option<Vector<'a>>,
}

impl<'a> AttentionJob<'a> {
    /// The positions that `row` attends to.
    pub(crate) fn context(&self, row: usize) -> Range<usize> {
        let end = self.rows.places()[row].position as usize + 1;
        end.saturating_sub(self.window)..end
    }

    /// The queries of one head of one row: `[head_dim_k]`.
    pub(crate) fn query(&self, row: usize, head: usize) -> &'a [f32] {
        let head_dim = self.shape.head_dim_k;
        &self.q[(row * self.n_heads + head) * head_dim..][..head_dim]
    }

    /// Numbers of the store's rows that hold a range of a row's positions, for one head of keys and values.
    pub(crate) fn row_indices(
        &self,
        row: usize,
        kv_head: usize,
        positions: Range<usize>,
        indices: &mut Vec<usize>,
    ) {
        let table = self.rows.table(row);
        let block_len = self.shape.block_len;
        indices.clear();
        indices.extend(positions.map(|position| {
            let block = table[position / block_len] as usize;
            self.shape.row_index(block, kv_head, position % block_len)
        }));
    }

    /// What a product of a query and a key becomes before the softmax.
    #[inline(always)]
    pub(crate) fn score(&self, product: f32) -> f32 {
        let score = self.scale * product;
        match self.soft_cap {
            None => score,
            Some(cap) => cap * (score / cap).tanh(),
        }
    }

    /// The head of keys and values that a head of queries uses.
    pub(crate) fn kv_head(&self, head: usize) -> usize {
        head / (self.n_heads / self.shape.n_kv_heads)
    }
}
