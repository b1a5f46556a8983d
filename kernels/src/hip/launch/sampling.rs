//! What sampling wants to know of logits: `kernels/hip/sampling.hip`.

use bytemuck::{Pod, Zeroable};

use super::Kernels;
use super::operands::{Operands, grid, narrow, require};
use crate::hip::{HipError, Stream, View};

const THREADS: u32 = 1024;

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct TopLogitsArgs {
    logits: u64,
    ids: u64,
    values: u64,
    log_sums: u64,
    count: u32,
    n: u32,
}

/// The `n` largest logits of each row, in order, the lower id on a tie; what is no number comes last. With `n` = 1 and nothing else wanted it is the argmax.
#[derive(Debug, Clone, Copy)]
pub struct TopLogits<'a> {
    /// `[rows, count]` f32.
    pub logits: &'a View,
    /// `[rows, n]` u32.
    pub ids: &'a View,
    /// `[rows, n]` f32: the logits themselves.
    pub values: Option<&'a View>,
    /// `[rows]` f32: `ln Σ_i exp(logits[i])`.
    pub log_sums: Option<&'a View>,
    /// Rows.
    pub rows: usize,
    /// Logits of a row.
    pub count: usize,
    /// 1 to `count`.
    pub n: usize,
}

/// Enqueues finding the largest logits.
///
/// # Errors
/// [`HipError::Range`] for a view that is too short, or an `n` that is not in 1 ..= `count`; the call that failed.
pub fn top_logits(stream: &Stream, kernels: &Kernels, op: TopLogits) -> Result<(), HipError> {
    require("largest logits", op.n >= 1 && op.n <= op.count, op.n)?;
    let mut operands = Operands::default();
    let args = TopLogitsArgs {
        logits: operands.address("logits", op.logits, op.rows * op.count * 4)?,
        ids: operands.address("ids", op.ids, op.rows * op.n * 4)?,
        values: operands.optional("values", op.values, op.rows * op.n * 4)?,
        log_sums: operands.optional("log sums", op.log_sums, op.rows * 4)?,
        count: narrow("logits", op.count)?,
        n: narrow("largest logits", op.n)?,
    };
    let grid = grid([narrow("rows", op.rows)?, 1, 1], THREADS);
    // SAFETY: `TopLogitsArgs` is the kernel's structure; a block reads and writes one row.
    unsafe { operands.launch(stream, &kernels.top_logits, grid, args) }
}
