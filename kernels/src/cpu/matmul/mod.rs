//! Products of weights with rows of activations.
//!
//! Few rows (decode) stream the weights past: memory is the limit, and rows of the file are multiplied as they lie there. With many rows (prefill) arithmetic is the limit: a tile of weight
//! rows is unpacked once and multiplied with all activations. Both ways give the same bits: `formats` says in which order sums are made.

mod float;
mod quantised;

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use gguf::TensorType;

use super::Cpu;
use super::arch::Isa;
use super::formats::float::Floats;
use super::formats::{
    Bf16, Bf16Pairs, F16, F32, Form, Iq4Nl, Iq4Xs, Mxfp4, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1,
    Q5K, Q6K, Q8_0,
};
use super::rows::{RowMut, RowSize, Rows};
use super::scratch::Loan;
use super::simd::Simd;
use crate::operands::{self, Activations, Keep, Matrix, Vector};

pub(super) use quantised::Tile;

/// Weight rows that are multiplied with many rows of activations at a time.
const TILE: usize = 16;
/// Weight rows that are multiplied with few rows of activations before their results are written: the lock for that would be another thread's half of the time if it were taken for each tile.
const STRIP: usize = 128;
/// Rows of activations that are multiplied with a tile before their results are written.
const X_BLOCK: usize = 24;

type ProductFn = fn(&Cpu, operands::Product, &mut Prepared);

/// The product with weights of this type; `None` where there is no kernel.
fn kernel(isa: Isa, tensor_type: TensorType) -> Option<ProductFn> {
    Some(match tensor_type {
        TensorType::F32 => float::product::<Floats<F32>>,
        TensorType::F16 => float::product::<Floats<F16>>,
        TensorType::BF16 if isa.has_bf16() => float::product::<Bf16Pairs>,
        TensorType::BF16 => float::product::<Floats<Bf16>>,
        TensorType::Q4_0 => quantised::product::<Q4_0>,
        TensorType::Q4_1 => quantised::product::<Q4_1>,
        TensorType::Q5_0 => quantised::product::<Q5_0>,
        TensorType::Q5_1 => quantised::product::<Q5_1>,
        TensorType::Q8_0 => quantised::product::<Q8_0>,
        TensorType::Q2_K => quantised::product::<Q2K>,
        TensorType::Q3_K => quantised::product::<Q3K>,
        TensorType::Q4_K => quantised::product::<Q4K>,
        TensorType::Q5_K => quantised::product::<Q5K>,
        TensorType::Q6_K => quantised::product::<Q6K>,
        TensorType::IQ4_NL => quantised::product::<Iq4Nl>,
        TensorType::IQ4_XS => quantised::product::<Iq4Xs>,
        TensorType::MXFP4 => quantised::product::<Mxfp4>,
        _ => return None,
    })
}

/// Whether there is a kernel for products with this tensor type.
pub(super) fn supported(tensor_type: TensorType) -> bool {
    kernel(Isa::Portable, tensor_type).is_some()
}

/// Activations in the form that the products with them want.
pub(super) struct Prepared<'a> {
    x: Activations<'a>,
    rows: Loan<'a, Rows>,
    /// The form that the rows are in.
    form: Option<Form>,
}

impl<'a> Prepared<'a> {
    /// Activations in no form yet.
    pub(super) fn new(cpu: &'a Cpu, x: Activations<'a>) -> Prepared<'a> {
        Prepared {
            x,
            rows: cpu.activations.take(),
            form: None,
        }
    }

    /// Brings the activations into a form, if they are not in it yet.
    fn prepare(
        &mut self,
        cpu: &Cpu,
        form: Form,
        size: RowSize,
        prepare: impl Fn(&[f32], RowMut<'_>) + Sync,
    ) {
        if self.form.replace(form) == Some(form) {
            return;
        }
        let x = self.x;
        let rows = self.rows.prepare(size, x.n_rows());
        let pairs = x.data.chunks_exact(x.cols).zip(rows);
        cpu.workers
            .for_each(pairs, x.data.len(), |(x, row)| prepare(x, row));
    }
}

/// `out[r, o] = Σ_i weight[o, i] · x[r, i] + bias[o]`, or that added to `out`.
///
/// # Panics
/// For a tensor type that is not [`supported`].
pub(super) fn matmul(cpu: &Cpu, product: operands::Product, x: &mut Prepared) {
    let kernel =
        kernel(cpu.isa, product.weight.tensor_type).expect("types are checked with the operands");
    if !product.out.is_empty() {
        kernel(cpu, product, x);
    }
}

/// What all tasks of a product share.
struct Product<'a, 'out> {
    weight: Matrix<'a>,
    bias: Option<Vector<'a>>,
    keep: Keep,
    x: &'a Rows,
    /// The output in blocks of [`X_BLOCK`] rows, each `[up to X_BLOCK, n_out]`. Tasks write different columns: a lock is held just for that.
    blocks: Vec<Mutex<&'out mut [f32]>>,
}

impl<'a> Product<'a, 'a> {
    fn new(product: operands::Product<'a>, x: &'a Rows) -> Product<'a, 'a> {
        let rows_of_block = X_BLOCK * product.weight.n_rows;
        Product {
            weight: product.weight,
            bias: product.bias,
            keep: product.keep,
            x,
            blocks: product
                .out
                .chunks_mut(rows_of_block)
                .map(Mutex::new)
                .collect(),
        }
    }
}

const CACHE_LINE_BYTES: usize = 64;

/// Asks for as many bytes as these, so far behind them: the processor looks ahead by itself, but not past the end of a page.
#[inline(always)]
fn prefetch<S: Simd>(simd: S, bytes: &[u8], ahead: usize) {
    for line in (0..bytes.len()).step_by(CACHE_LINE_BYTES) {
        simd.prefetch(bytes.as_ptr().wrapping_add(ahead + line));
    }
}

/// Tasks in runs of neighbours, long ones first: a thread that reads on where it was reads nearly twice as fast as one that leaves every other task out, and short runs at the end leave nobody waiting.
#[derive(Clone)]
struct Runs {
    left: Range<usize>,
    threads: usize,
}

impl Iterator for Runs {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        if self.left.is_empty() {
            return None;
        }
        let len = self.left.len().div_ceil(2 * self.threads);
        let run = self.left.start..self.left.start + len;
        self.left.start = run.end;
        Some(run)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let len = self.clone().count();
        (len, Some(len))
    }
}

impl ExactSizeIterator for Runs {}

impl Product<'_, '_> {
    /// Runs a task for each `len` neighbouring weight rows.
    fn for_each(&self, cpu: &Cpu, len: usize, task: impl Fn(Range<usize>) + Sync) {
        let work = self
            .x
            .n_rows()
            .saturating_mul(self.weight.n_rows)
            .saturating_mul(self.weight.row_len);
        let runs = Runs {
            left: 0..self.weight.n_rows.div_ceil(len),
            threads: cpu.workers.threads().get(),
        };
        cpu.workers.for_each(runs, work, |run| {
            for index in run {
                task(index * len..((index + 1) * len).min(self.weight.n_rows));
            }
        });
    }

    /// Writes some columns of each row of a block, or adds to them.
    fn write<const LEN: usize>(&self, block: usize, columns: Range<usize>, results: &[[f32; LEN]]) {
        let mut out = self.blocks[block]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for (row, results) in out.chunks_exact_mut(self.weight.n_rows).zip(results) {
            let columns = columns.clone().zip(&mut row[columns.clone()]);
            for ((column, out), &result) in columns.zip(results) {
                let result = self.bias.map_or(result, |bias| result + bias.get(column));
                match self.keep {
                    Keep::Nothing => *out = result,
                    Keep::Sum => *out += result,
                }
            }
        }
    }
}
