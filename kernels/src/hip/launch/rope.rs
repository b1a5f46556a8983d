//! Rotary position embedding and writing to the cache: `kernels/hip/rope.hip`.

use bytemuck::{Pod, Zeroable};

use super::Kernels;
use super::attention::Cache;
use super::operands::{Operands, grid, narrow, require};
use crate::hip::{HipError, Stream, View};

const THREADS: u32 = 256;

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct RopeAnglesArgs {
    positions: u64,
    frequencies: u64,
    angles: u64,
    rows: u32,
    pairs: u32,
    stride: u32,
    factor: f32,
}

/// Cosine and sine of every pair's angle for the rows of a step, once for all layers that share frequencies.
#[derive(Debug, Clone, Copy)]
pub struct RopeAngles<'a> {
    /// The position of each row: u32, every `stride`-th; row 0's is the first of the view.
    pub positions: &'a View,
    /// u32 from one row's position to the next's: 1, or 2 in a list of places.
    pub stride: usize,
    /// Angle per position of each pair: `[pairs]` f32.
    pub frequencies: &'a View,
    /// `[rows, pairs, 2]` f32.
    pub angles: &'a View,
    /// Rows.
    pub rows: usize,
    /// Pairs of a head.
    pub pairs: usize,
    /// Factor on both cosine and sine.
    pub factor: f32,
}

/// Enqueues the angles of a step.
///
/// # Errors
/// [`HipError::Range`] for a view that is too short; the call that failed.
pub fn rope_angles(stream: &Stream, kernels: &Kernels, op: RopeAngles) -> Result<(), HipError> {
    let mut operands = Operands::default();
    let positions = op.rows.saturating_sub(1) * op.stride + 1;
    let args = RopeAnglesArgs {
        positions: operands.address("positions", op.positions, positions * 4)?,
        frequencies: operands.address("frequencies", op.frequencies, op.pairs * 4)?,
        angles: operands.address("angles", op.angles, op.rows * op.pairs * 8)?,
        rows: narrow("rows", op.rows)?,
        pairs: narrow("pairs", op.pairs)?,
        stride: narrow("stride", op.stride)?,
        factor: op.factor,
    };
    let blocks = narrow("blocks", (op.rows * op.pairs).div_ceil(THREADS as usize))?;
    // SAFETY: `RopeAnglesArgs` is the kernel's structure; a thread reads and writes within the lengths that were checked.
    unsafe {
        operands.launch(
            stream,
            &kernels.rope_angles,
            grid([blocks, 1, 1], THREADS),
            args,
        )
    }
}

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct RopeWriteArgs {
    q: u64,
    k: u64,
    v: u64,
    angles: u64,
    slots: u64,
    keys: u64,
    values: u64,
    n_heads: u32,
    n_kv_heads: u32,
    head_dim_k: u32,
    head_dim_v: u32,
    pairs: u32,
    halves: u32,
    block_len: u32,
    key_stride: u32,
    value_stride: u32,
    cache_f32: u32,
}

/// Rotates queries in place, and writes rotated keys, and values, to one layer of the cache.
#[derive(Debug, Clone, Copy)]
pub struct RopeWrite<'a> {
    /// `[rows, n_heads, head_dim_k]` f32, in place.
    pub q: &'a View,
    /// `[rows, n_kv_heads, head_dim_k]` f32; left as it was.
    pub k: &'a View,
    /// `[rows, n_kv_heads, head_dim_v]` f32.
    pub v: &'a View,
    /// `[rows, pairs, 2]` f32; none: nothing is rotated.
    pub angles: Option<&'a View>,
    /// `[rows]` pairs of u32: block and offset; a block of `u32::MAX` is a row that writes nothing.
    pub slots: &'a View,
    /// The layer's part of the cache.
    pub cache: Cache<'a>,
    /// Rows.
    pub rows: usize,
    /// Heads of queries.
    pub n_heads: usize,
    /// Pairs of a head that are rotated; what is left of a head passes through.
    pub pairs: usize,
    /// Pair `i` is elements `i` and `i + pairs`, not `2i` and `2i + 1`.
    pub halves: bool,
}

/// Enqueues rotating and writing.
///
/// # Errors
/// [`HipError::Range`] for a view that is too short, or more pairs than a head has; the call that failed.
///
/// # Safety
/// When the kernel runs, every slot lies in the cache or is none.
pub unsafe fn rope_write(
    stream: &Stream,
    kernels: &Kernels,
    op: RopeWrite,
) -> Result<(), HipError> {
    let Cache {
        n_kv_heads,
        head_dim_k,
        head_dim_v,
        ..
    } = op.cache;
    require("pairs of a head", 2 * op.pairs <= head_dim_k, op.pairs)?;
    let mut operands = Operands::default();
    let [keys, values] = op.cache.addresses(&mut operands)?;
    let args = RopeWriteArgs {
        q: operands.address("q", op.q, op.rows * op.n_heads * head_dim_k * 4)?,
        k: operands.address("k", op.k, op.rows * n_kv_heads * head_dim_k * 4)?,
        v: operands.address("v", op.v, op.rows * n_kv_heads * head_dim_v * 4)?,
        angles: operands.optional("angles", op.angles, op.rows * op.pairs * 8)?,
        slots: operands.address("slots", op.slots, op.rows * 8)?,
        keys,
        values,
        n_heads: narrow("heads", op.n_heads)?,
        n_kv_heads: narrow("heads", n_kv_heads)?,
        head_dim_k: narrow("head", head_dim_k)?,
        head_dim_v: narrow("head", head_dim_v)?,
        pairs: narrow("pairs", op.pairs)?,
        halves: u32::from(op.halves),
        block_len: narrow("block", op.cache.block_len)?,
        key_stride: narrow("key", op.cache.key_stride)?,
        value_stride: narrow("value", op.cache.value_stride)?,
        cache_f32: u32::from(op.cache.is_f32),
    };
    let grid = grid([narrow("rows", op.rows)?, 1, 1], THREADS);
    // SAFETY: `RopeWriteArgs` is the kernel's structure; a block reads its row, and writes to its slot, which is in the cache by the caller's word.
    unsafe { operands.launch(stream, &kernels.rope_write, grid, args) }
}
