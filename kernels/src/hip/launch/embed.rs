//! Rows of tables, those of tokens and of positions: `kernels/hip/embed.hip`.

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
    stride: u32,
    add: u32,
}

/// `out[r] = table[ids[stride · r]] · factor`
#[derive(Debug, Clone, Copy)]
pub struct Embed<'a> {
    /// `[any, n]` of any type: `n_out` is its number of rows, `n_in` their length.
    pub table: Weights<'a>,
    /// `[stride * (rows - 1) + 1]` u32.
    pub ids: &'a View,
    /// From the id of one row to that of the next; at least 1.
    pub stride: usize,
    /// `[rows, n]` f32.
    pub out: &'a View,
    /// Rows.
    pub rows: usize,
    /// Factor on every number, usually 1.
    pub factor: f32,
    /// Whether the rows are added to what `out` holds, in place of what it holds.
    pub add: bool,
}

/// Enqueues looking up rows. An id that is no row of the table leaves its row of `out` as it is.
///
/// # Errors
/// [`HipError::Range`] for a view that is too short; the call that failed.
pub fn embed(stream: &Stream, kernels: &Kernels, op: Embed) -> Result<(), HipError> {
    let n = op.table.n_in;
    let ids = match op.rows {
        0 => 0,
        rows => op.stride * (rows - 1) + 1,
    };
    let mut operands = Operands::default();
    let args = EmbedArgs {
        table: op.table.address(&mut operands)?,
        ids: operands.address("ids", op.ids, ids * 4)?,
        out: operands.address("out", op.out, op.rows * n * 4)?,
        tensor_type: op.table.tensor_type.id(),
        n: narrow("n", n)?,
        n_rows: narrow("rows of the table", op.table.n_out)?,
        factor: op.factor,
        stride: narrow("stride of ids", op.stride)?,
        add: u32::from(op.add),
    };
    let blocks = [
        narrow("blocks", n.div_ceil(NUMBERS_PER_BLOCK))?,
        narrow("rows", op.rows)?,
        1,
    ];
    // SAFETY: `EmbedArgs` is the kernel's structure; it reads rows of the table alone, whatever the ids are.
    unsafe { operands.launch(stream, &kernels.embed, grid(blocks, THREADS), args) }
}
