//! Token embedding: `kernels/hip/embed.hip`.

use bytemuck::{Pod, Zeroable};

use super::Kernels;
use super::matrix::Weights;
use super::operands::{Operands, grid, narrow};
use crate::hip::{HipError, Stream, View};

const THREADS: u32 = 128;
const NUMBERS_PER_BLOCK: usize = 128 * 32;

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct EmbedArgs {
    table: u64,
    ids: u64,
    out: u64,
    tensor_type: u32,
    n: u32,
    n_rows: u32,
    factor: f32,
}

/// `out[r] = table[ids[r]] · factor`
#[derive(Debug, Clone, Copy)]
pub struct Embed<'a> {
    /// `[n_vocab, n]` of any type: `n_out` is its number of rows, `n_in` their length.
    pub table: Weights<'a>,
    /// `[rows]` u32.
    pub ids: &'a View,
    /// `[rows, n]` f32.
    pub out: &'a View,
    /// Rows.
    pub rows: usize,
    /// Factor on every number, usually 1.
    pub factor: f32,
}

/// Enqueues an embedding.
///
/// # Errors
/// [`HipError::Range`] for a view that is too short; the call that failed.
///
/// # Safety
/// When the kernel runs, every entry of `ids` is a row of the table.
pub unsafe fn embed(stream: &Stream, kernels: &Kernels, op: Embed) -> Result<(), HipError> {
    let n = op.table.n_in;
    let mut operands = Operands::default();
    let args = EmbedArgs {
        table: op.table.address(&mut operands)?,
        ids: operands.address("ids", op.ids, op.rows * 4)?,
        out: operands.address("out", op.out, op.rows * n * 4)?,
        tensor_type: op.table.tensor_type.id(),
        n: narrow("n", n)?,
        n_rows: narrow("rows of the table", op.table.n_out)?,
        factor: op.factor,
    };
    let blocks = [
        narrow("blocks", n.div_ceil(NUMBERS_PER_BLOCK))?,
        narrow("rows", op.rows)?,
        1,
    ];
    // SAFETY: `EmbedArgs` is the kernel's structure; it reads rows of the table, which exist by the caller's word.
    unsafe { operands.launch(stream, &kernels.embed, grid(blocks, THREADS), args) }
}
