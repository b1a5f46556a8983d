//! Operands as devices see them: checked slices without shapes of any rank.

use std::ops::Range;

use gguf::TensorType;

use crate::kv::{AttentionRows, KvLayer, KvShape};

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

/// Attention of a batch over one layer of the store. Every table entry, table index and position was checked against `shape`.
#[derive(Clone, Copy)]
pub(crate) struct AttentionJob<'a> {
    /// Queries: `[rows, n_heads * head_dim_k]`.
    pub(crate) q: &'a [f32],
    pub(crate) n_heads: usize,
    pub(crate) layer: &'a KvLayer,
    pub(crate) shape: KvShape,
    pub(crate) rows: AttentionRows<'a>,
    /// Factor on each score before the softmax.
    pub(crate) scale: f32,
}

impl<'a> AttentionJob<'a> {
    /// The blocks with the positions that `row` attends to, and the number of those positions.
    pub(crate) fn context(&self, row: usize) -> (&'a [u32], usize) {
        let place = self.rows.rows[row];
        (
            self.rows.tables[place.table as usize],
            place.position as usize + 1,
        )
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
        let (table, _) = self.context(row);
        let block_len = self.shape.block_len;
        indices.clear();
        indices.extend(positions.map(|position| {
            let block = table[position / block_len] as usize;
            self.shape.row_index(block, kv_head, position % block_len)
        }));
    }

    /// The head of keys and values that a head of queries uses.
    pub(crate) fn kv_head(&self, head: usize) -> usize {
        head / (self.n_heads / self.shape.n_kv_heads)
    }
}
