//! Paged attention: `kernels/hip/attention.hip` on matrix cores, `kernels/hip/attention_plain.hip` for everything else.

use bytemuck::{Pod, Zeroable};

use super::Kernels;
use super::operands::{Forms, FormsArgs, Operands, grid, narrow, require};
use crate::hip::{Function, HipError, Stream, View};

/// Splits of a row's positions in decode, at most: a grid has as many, whatever the rows' positions are, so a recorded graph serves rows of any length.
pub const SPLITS: usize = 16;
/// Positions of which splits are whole multiples. Few rows want short splits, so that many multiprocessors have something to do; many rows want long ones. What a row's splits are, and so the
/// order of its sums, follows from this and its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SplitUnit {
    /// 64 positions.
    Short,
    /// 256 positions.
    Long,
}

impl SplitUnit {
    /// The unit that suits a number of rows.
    #[must_use]
    pub fn for_rows(rows: usize) -> SplitUnit {
        if rows <= ROWS_OF_SHORT_SPLITS {
            SplitUnit::Short
        } else {
            SplitUnit::Long
        }
    }
}

const ROWS_OF_SHORT_SPLITS: usize = 16;

/// A position of a row that only fills a batch up.
pub const NO_POSITION: u32 = u32::MAX;

const HEAD_LEN_MAX: usize = 1024;

/// One layer of the paged cache.
#[derive(Debug, Clone, Copy)]
pub struct Cache<'a> {
    /// `[n_blocks, n_kv_heads, block_len, key_stride]`, f16 or f32.
    pub keys: &'a View,
    /// `[n_blocks, n_kv_heads, block_len, value_stride]`.
    pub values: &'a View,
    /// Whether numbers are f32.
    pub is_f32: bool,
    /// Blocks.
    pub n_blocks: usize,
    /// Positions of a block.
    pub block_len: usize,
    /// Heads of keys and values.
    pub n_kv_heads: usize,
    /// Elements of a head of keys.
    pub head_dim_k: usize,
    /// Elements of a head of values.
    pub head_dim_v: usize,
    /// Numbers from one position's key to the next's: at least `head_dim_k`, a multiple of 8.
    pub key_stride: usize,
    /// The same for values.
    pub value_stride: usize,
}

impl<'a> Cache<'a> {
    pub(super) fn addresses(&self, operands: &mut Operands<'a>) -> Result<[u64; 2], HipError> {
        let whole = |stride: usize, dim: usize| stride >= dim && stride.is_multiple_of(8);
        require(
            "stride of keys",
            whole(self.key_stride, self.head_dim_k),
            self.key_stride,
        )?;
        require(
            "stride of values",
            whole(self.value_stride, self.head_dim_v),
            self.value_stride,
        )?;
        let rows =
            self.n_blocks * self.n_kv_heads * self.block_len * if self.is_f32 { 4 } else { 2 };
        Ok([
            operands.address("keys", self.keys, rows * self.key_stride)?,
            operands.address("values", self.values, rows * self.value_stride)?,
        ])
    }

    /// Whether [`attention_prefill`] and [`attention_decode`] take it; [`attention_plain`] takes any.
    #[must_use]
    pub fn has_matrix_cores(&self, n_heads: usize) -> bool {
        let group_max = if self.head_dim_k == 256 {
            16
        } else {
            GROUP_MAX
        };
        !self.is_f32
            && self.head_dim_k == self.head_dim_v
            && [64, 80, 96, 128, 256].contains(&self.head_dim_k)
            && n_heads / self.n_kv_heads.max(1) <= group_max
    }
}

/// Query heads that share a head of keys, at most.
const GROUP_MAX: usize = 16;

/// What all kinds of attention take.
#[derive(Debug, Clone, Copy)]
pub struct Attention<'a> {
    /// `[rows, n_heads, head_dim_k]` f32, rotated.
    pub q: &'a View,
    /// The layer's part of the cache.
    pub cache: Cache<'a>,
    /// `[any, table_stride]` u32: the blocks of each sequence.
    pub tables: &'a View,
    /// u32 from one table to the next.
    pub table_stride: usize,
    /// `[rows]` pairs of u32: table, and position or [`NO_POSITION`].
    pub places: &'a View,
    /// `[n_heads]` f32: a score of each head that takes part in the softmax and has no value.
    pub sinks: Option<&'a View>,
    /// Rows.
    pub rows: usize,
    /// Heads of queries, a multiple of the cache's heads.
    pub n_heads: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// Positions that a row sees, its own included; none: all.
    pub window: Option<usize>,
    /// Bounds scores: `cap · tanh(score / cap)`.
    pub soft_cap: Option<f32>,
}

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct AttentionArgs {
    q: u64,
    keys: u64,
    values: u64,
    tables: u64,
    places: u64,
    tiles: u64,
    sinks: u64,
    partial: u64,
    counters: u64,
    out: FormsArgs,
    n_heads: u32,
    n_kv_heads: u32,
    key_stride: u32,
    value_stride: u32,
    block_len: u32,
    table_stride: u32,
    window: u32,
    splits: u32,
    split_unit: u32,
    _rest: u32,
    scale: f32,
    soft_cap: f32,
}

impl<'a> Attention<'a> {
    fn args(&self, operands: &mut Operands<'a>, out: Forms<'a>) -> Result<AttentionArgs, HipError> {
        let Cache {
            n_kv_heads,
            head_dim_k,
            head_dim_v,
            ..
        } = self.cache;
        require(
            "heads of queries",
            n_kv_heads > 0 && self.n_heads.is_multiple_of(n_kv_heads),
            self.n_heads,
        )?;
        require("half form of attention", out.half.is_none(), 0)?;
        let [keys, values] = self.cache.addresses(operands)?;
        Ok(AttentionArgs {
            q: operands.address("q", self.q, self.rows * self.n_heads * head_dim_k * 4)?,
            keys,
            values,
            tables: operands.address("tables", self.tables, 0)?,
            places: operands.address("places", self.places, self.rows * 8)?,
            sinks: operands.optional("sinks", self.sinks, self.n_heads * 4)?,
            out: operands.forms(out, self.rows, self.n_heads * head_dim_v)?,
            n_heads: narrow("heads", self.n_heads)?,
            n_kv_heads: narrow("heads", n_kv_heads)?,
            key_stride: narrow("key", self.cache.key_stride)?,
            value_stride: narrow("value", self.cache.value_stride)?,
            block_len: narrow("block", self.cache.block_len)?,
            table_stride: narrow("table", self.table_stride)?,
            window: narrow("window", self.window.unwrap_or(0))?,
            scale: self.scale,
            soft_cap: self.soft_cap.unwrap_or(0.0),
            ..Zeroable::zeroed()
        })
    }
}

/// How a head's length is cut up: rows of a tile, positions of a step, threads.
#[derive(Debug, Clone, Copy)]
struct Shape {
    dim: usize,
    tile_rows: usize,
    step: usize,
    threads: u32,
}

impl Shape {
    fn of(dim: usize) -> Shape {
        let (tile_rows, step, threads) = if dim == 256 {
            (32, 32, 64)
        } else {
            (64, 64, 128)
        };
        Shape {
            dim,
            tile_rows,
            step,
            threads,
        }
    }

    /// Bytes of rows, a step's keys and values, and each warp's scratch.
    fn memory(self, rows: usize) -> usize {
        ((rows + 2 * self.step) * (self.dim + 8) + self.threads as usize / 32 * 16 * 24) * 2
    }
}

/// Bytes of the workspace for [`attention_decode`]'s splits.
#[must_use]
pub fn partial_bytes(rows: usize, n_heads: usize, head_dim: usize) -> usize {
    rows * n_heads * SPLITS * (head_dim + 2) * 4
}

/// Bytes of the counters for [`attention_decode`].
#[must_use]
pub fn counter_bytes(rows: usize, n_kv_heads: usize) -> usize {
    rows * n_kv_heads * 4
}

/// Enqueues attention of rows that each end a sequence of their own. The grid depends on the number of rows and on the room in the tables.
///
/// `out`: f32, int8 or both of `[rows, n_heads * head_dim]`; `partial`: [`partial_bytes`]; `counters`: [`counter_bytes`], all zero, and zero again after.
///
/// # Errors
/// [`HipError::Range`] for a view that is too short, or a cache that [`Cache::has_matrix_cores`] does not take; the call that failed.
///
/// # Safety
/// When the kernel runs, each place's table has a block of the cache for every position up to the place's, and `counters` are zero.
pub unsafe fn attention_decode(
    stream: &Stream,
    kernels: &Kernels,
    op: Attention,
    unit: SplitUnit,
    out: Forms,
    [partial, counters]: [&View; 2],
) -> Result<(), HipError> {
    let dim = op.cache.head_dim_k;
    require(
        "head of matrix cores",
        op.cache.has_matrix_cores(op.n_heads),
        dim,
    )?;
    let mut operands = Operands::default();
    let mut args = op.args(&mut operands, out)?;
    args.partial = operands.address("partial", partial, partial_bytes(op.rows, op.n_heads, dim))?;
    args.counters = operands.address(
        "counters",
        counters,
        counter_bytes(op.rows, op.cache.n_kv_heads),
    )?;
    args.splits = narrow("splits", SPLITS)?;
    args.split_unit = match unit {
        SplitUnit::Short => 64,
        SplitUnit::Long => 256,
    };
    // No row has more than so many positions, and none more splits: blocks for others would only end.
    let longest = op.table_stride.saturating_mul(op.cache.block_len);
    let splits = longest.div_ceil(args.split_unit as usize).clamp(1, SPLITS);
    let shape = Shape::of(dim);
    let parts = shape.threads as usize / 32 * 16 * (dim + 2) * 4;
    let mut grid = grid(
        [
            args.n_kv_heads,
            narrow("rows", op.rows)?,
            narrow("splits", splits)?,
        ],
        shape.threads,
    );
    grid.shared_bytes = narrow("shared memory", shape.memory(16).max(parts))?;
    let function = kernels.attention(dim, true)?;
    // SAFETY: `AttentionArgs` is the kernel's structure; blocks read what the places lead to, which exists by the caller's word, and write their own heads.
    unsafe { operands.launch(stream, function, grid, args) }
}

/// Rows of a tile of [`attention_prefill`], at most.
#[must_use]
pub fn tile_rows(head_dim: usize, n_heads: usize, n_kv_heads: usize) -> usize {
    Shape::of(head_dim).tile_rows / (n_heads / n_kv_heads.max(1)).max(1)
}

/// Enqueues attention of many rows of a sequence: prefill.
///
/// `out`: `[rows, n_heads * head_dim]` f32; `tiles`: `[n_tiles]` pairs of u32: first row and number of rows, at most [`tile_rows`], of one table and ascending positions without gaps.
///
/// # Errors
/// [`HipError::Range`] for a view that is too short, or a cache that [`Cache::has_matrix_cores`] does not take; the call that failed.
///
/// # Safety
/// When the kernel runs, tiles are as said and name rows that exist, and each place's table has a block of the cache for every position up to the place's.
pub unsafe fn attention_prefill(
    stream: &Stream,
    kernels: &Kernels,
    op: Attention,
    out: &View,
    tiles: &View,
    n_tiles: usize,
) -> Result<(), HipError> {
    let dim = op.cache.head_dim_k;
    require(
        "head of matrix cores",
        op.cache.has_matrix_cores(op.n_heads),
        dim,
    )?;
    let mut operands = Operands::default();
    let forms = Forms {
        f32: Some(out),
        ..Forms::default()
    };
    let mut args = op.args(&mut operands, forms)?;
    args.tiles = operands.address("tiles", tiles, n_tiles * 8)?;
    let shape = Shape::of(dim);
    let mut grid = grid(
        [narrow("tiles", n_tiles)?, args.n_kv_heads, 1],
        shape.threads,
    );
    grid.shared_bytes = narrow("shared memory", shape.memory(shape.tile_rows))?;
    let function = kernels.attention(dim, false)?;
    // SAFETY: `AttentionArgs` is the kernel's structure; blocks read what tiles and places lead to, which exists by the caller's word, and write the heads of their rows.
    unsafe { operands.launch(stream, function, grid, args) }
}

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct PlainArgs {
    attention: AttentionArgs,
    head_dim_k: u32,
    head_dim_v: u32,
    cache_f32: u32,
    _rest: u32,
}

/// Enqueues attention in f32, without matrix cores: for any rows, caches in f32 and heads of any length up to 1,024.
///
/// `out`: `[rows, n_heads * head_dim_v]` f32.
///
/// # Errors
/// [`HipError::Range`] for a view that is too short, or longer heads; the call that failed.
///
/// # Safety
/// When the kernel runs, each place's table has a block of the cache for every position up to the place's.
pub unsafe fn attention_plain(
    stream: &Stream,
    kernels: &Kernels,
    op: Attention,
    out: &View,
) -> Result<(), HipError> {
    require(
        "head",
        op.cache.head_dim_v <= HEAD_LEN_MAX,
        op.cache.head_dim_v,
    )?;
    let mut operands = Operands::default();
    let forms = Forms {
        f32: Some(out),
        ..Forms::default()
    };
    let args = PlainArgs {
        attention: op.args(&mut operands, forms)?,
        head_dim_k: narrow("head", op.cache.head_dim_k)?,
        head_dim_v: narrow("head", op.cache.head_dim_v)?,
        cache_f32: u32::from(op.cache.is_f32),
        _rest: 0,
    };
    let grid = grid([args.attention.n_heads, narrow("rows", op.rows)?, 1], 128);
    // SAFETY: `PlainArgs` is the kernel's structure; blocks read what the places lead to, which exists by the caller's word, and write one head of one row.
    unsafe { operands.launch(stream, &kernels.attention_plain, grid, args) }
}

impl Kernels {
    fn attention(&self, dim: usize, decode: bool) -> Result<&Function, HipError> {
        Ok(match (dim, decode) {
            (64, true) => &self.attention_decode_64,
            (80, true) => &self.attention_decode_80,
            (96, true) => &self.attention_decode_96,
            (128, true) => &self.attention_decode_128,
            (256, true) => &self.attention_decode_256,
            (64, false) => &self.attention_prefill_64,
            (80, false) => &self.attention_prefill_80,
            (96, false) => &self.attention_prefill_96,
            (128, false) => &self.attention_prefill_128,
            (256, false) => &self.attention_prefill_256,
            _ => {
                return Err(HipError::Range {
                    what: "head",
                    start: 0,
                    end: dim,
                    len: HEAD_LEN_MAX,
                });
            }
        })
    }
}
