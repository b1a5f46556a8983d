//! Operations on rows: `kernels/hip/rowwise.hip`.

use bytemuck::{Pod, Zeroable};

use super::Kernels;
use super::operands::{Forms, FormsArgs, Operands, grid, narrow, require};
use crate::hip::{HipError, Stream, View};

const ROW_THREADS: u32 = 512;
const HEAD_THREADS: u32 = 256;
const HEADS_PER_BLOCK: usize = 8;
const FLAT_THREADS: u32 = 256;
const ADDED_PER_THREAD: usize = 4;

/// The non-linear functions of feed-forward networks, numbered as in `kernels/hip/activation.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Function {
    /// `x / (1 + exp(-x))`
    Silu = 0,
    /// `x · Φ(x)`
    Gelu = 1,
    /// The approximation of `Gelu` by a hyperbolic tangent.
    GeluTanh = 2,
    /// `max(x, 0)`
    Relu = 3,
    /// `max(x, 0)²`
    ReluSquared = 4,
    /// gpt-oss's gate: `gate · sigmoid(1.702 gate) · (up + 1)`, gate at most 7, up within -7 ..= 7. Only with `up`.
    SwigluClamped = 5,
}

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct RmsNormArgs {
    x: u64,
    add: u64,
    weight: u64,
    out: FormsArgs,
    n: u32,
    eps: f32,
}

/// `out[r, i] = x[r, i] / sqrt(mean_i(x[r, i]²) + eps) · weight[i]`; with `add`, `x += add` comes first and stays.
#[derive(Debug, Clone, Copy)]
pub struct RmsNorm<'a> {
    /// `[rows, n]` f32.
    pub x: &'a View,
    /// `[rows, n]` f32.
    pub add: Option<&'a View>,
    /// `[n]` f32.
    pub weight: &'a View,
    /// Of `[rows, n]`; its f32 may be `x` itself.
    pub out: Forms<'a>,
    /// Rows.
    pub rows: usize,
    /// Numbers of a row.
    pub n: usize,
    /// Added to the mean.
    pub eps: f32,
}

/// Enqueues an RMS norm.
///
/// # Errors
/// [`HipError::Range`] for a view that is too short; the call that failed.
pub fn rms_norm(stream: &Stream, kernels: &Kernels, op: RmsNorm) -> Result<(), HipError> {
    let mut operands = Operands::default();
    let bytes = op.rows * op.n * 4;
    let args = RmsNormArgs {
        x: operands.address("x", op.x, bytes)?,
        add: operands.optional("add", op.add, bytes)?,
        weight: operands.address("weight", op.weight, op.n * 4)?,
        out: operands.forms(op.out, op.rows, op.n)?,
        n: narrow("n", op.n)?,
        eps: op.eps,
    };
    let grid = grid([narrow("rows", op.rows)?, 1, 1], ROW_THREADS);
    // SAFETY: `RmsNormArgs` is the kernel's structure; a block reads and writes one row of each operand.
    unsafe { operands.launch(stream, &kernels.rms_norm, grid, args) }
}

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct LayerNormArgs {
    x: u64,
    weight: u64,
    bias: u64,
    out: FormsArgs,
    n: u32,
    eps: f32,
}

/// `out[r, i] = (x[r, i] - mean) / sqrt(variance + eps) · weight[i] + bias[i]`
#[derive(Debug, Clone, Copy)]
pub struct LayerNorm<'a> {
    /// `[rows, n]` f32.
    pub x: &'a View,
    /// `[n]` f32.
    pub weight: &'a View,
    /// `[n]` f32.
    pub bias: Option<&'a View>,
    /// Of `[rows, n]`; its f32 may be `x` itself.
    pub out: Forms<'a>,
    /// Rows.
    pub rows: usize,
    /// Numbers of a row.
    pub n: usize,
    /// Added to the variance.
    pub eps: f32,
}

/// Enqueues a layer norm.
///
/// # Errors
/// [`HipError::Range`] for a view that is too short; the call that failed.
pub fn layer_norm(stream: &Stream, kernels: &Kernels, op: LayerNorm) -> Result<(), HipError> {
    let mut operands = Operands::default();
    let args = LayerNormArgs {
        x: operands.address("x", op.x, op.rows * op.n * 4)?,
        weight: operands.address("weight", op.weight, op.n * 4)?,
        bias: operands.optional("bias", op.bias, op.n * 4)?,
        out: operands.forms(op.out, op.rows, op.n)?,
        n: narrow("n", op.n)?,
        eps: op.eps,
    };
    let grid = grid([narrow("rows", op.rows)?, 1, 1], ROW_THREADS);
    // SAFETY: `LayerNormArgs` is the kernel's structure; a block reads and writes one row of each operand.
    unsafe { operands.launch(stream, &kernels.layer_norm, grid, args) }
}

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct HeadNormArgs {
    x: u64,
    weight: u64,
    n: u32,
    n_heads: u32,
    stride: u32,
    eps: f32,
}

/// RMS norm of each head, in place: `x[r, h, i] = x[r, h, i] / sqrt(mean_i(x[r, h, i]²) + eps) · weight[i]`.
#[derive(Debug, Clone, Copy)]
pub struct HeadNorm<'a> {
    /// `[rows, n_heads, n]` f32.
    pub x: &'a View,
    /// `[n]` f32.
    pub weight: &'a View,
    /// Rows.
    pub rows: usize,
    /// Heads of a row.
    pub n_heads: usize,
    /// Numbers of a head.
    pub n: usize,
    /// Added to the mean.
    pub eps: f32,
}

/// Enqueues an RMS norm of heads.
///
/// # Errors
/// [`HipError::Range`] for a view that is too short; the call that failed.
pub fn head_norm(stream: &Stream, kernels: &Kernels, op: HeadNorm) -> Result<(), HipError> {
    let mut operands = Operands::default();
    let args = HeadNormArgs {
        x: operands.address("x", op.x, op.rows * op.n_heads * op.n * 4)?,
        weight: operands.address("weight", op.weight, op.n * 4)?,
        n: narrow("n", op.n)?,
        n_heads: narrow("heads", op.n_heads)?,
        stride: narrow("row", op.n_heads * op.n)?,
        eps: op.eps,
    };
    let blocks = [
        narrow("heads", op.n_heads.div_ceil(HEADS_PER_BLOCK))?,
        narrow("rows", op.rows)?,
        1,
    ];
    // SAFETY: `HeadNormArgs` is the kernel's structure; a warp reads and writes one head.
    unsafe { operands.launch(stream, &kernels.head_norm, grid(blocks, HEAD_THREADS), args) }
}

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct WriteFormsArgs {
    x: u64,
    out: FormsArgs,
    n: u32,
    _rest: u32,
}

/// Enqueues writing rows in other forms: `x` is `[rows, n]` f32.
///
/// # Errors
/// [`HipError::Range`] for a view that is too short; the call that failed.
pub fn write_forms(
    stream: &Stream,
    kernels: &Kernels,
    x: &View,
    [rows, n]: [usize; 2],
    out: Forms,
) -> Result<(), HipError> {
    let mut operands = Operands::default();
    let args = WriteFormsArgs {
        x: operands.address("x", x, rows * n * 4)?,
        out: operands.forms(out, rows, n)?,
        n: narrow("n", n)?,
        _rest: 0,
    };
    let grid = grid([narrow("rows", rows)?, 1, 1], ROW_THREADS);
    // SAFETY: `WriteFormsArgs` is the kernel's structure; a block reads and writes one row of each operand.
    unsafe { operands.launch(stream, &kernels.write_forms, grid, args) }
}

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct ActivateArgs {
    gate: u64,
    up: u64,
    out: FormsArgs,
    n: u32,
    stride: u32,
    function: u32,
    _rest: u32,
}

/// `out = function(gate) · up`, or `function(gate)` without `up`.
#[derive(Debug, Clone, Copy)]
pub struct Activate<'a> {
    /// `[rows, n]` f32.
    pub gate: &'a View,
    /// `[rows, n]` f32.
    pub up: Option<&'a View>,
    /// Of `[rows, n]`; its f32 may be `gate` itself.
    pub out: Forms<'a>,
    /// Rows.
    pub rows: usize,
    /// Numbers of a row.
    pub n: usize,
    /// The non-linear function.
    pub function: Function,
}

/// Enqueues the gate of a feed-forward network.
///
/// # Errors
/// [`HipError::Range`] for a view that is too short; the call that failed.
pub fn activate(stream: &Stream, kernels: &Kernels, op: Activate) -> Result<(), HipError> {
    let mut operands = Operands::default();
    let bytes = op.rows * op.n * 4;
    let args = ActivateArgs {
        gate: operands.address("gate", op.gate, bytes)?,
        up: operands.optional("up", op.up, bytes)?,
        out: operands.forms(op.out, op.rows, op.n)?,
        n: narrow("n", op.n)?,
        stride: narrow("n", op.n)?,
        function: op.function as u32,
        _rest: 0,
    };
    let grid = grid([narrow("rows", op.rows)?, 1, 1], ROW_THREADS);
    // SAFETY: `ActivateArgs` is the kernel's structure; a block reads and writes one row of each operand.
    unsafe { operands.launch(stream, &kernels.activate, grid, args) }
}

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct AddArgs {
    x: u64,
    y: u64,
    count: u64,
    n: u32,
    y_rows: u32,
    scale: f32,
    _rest: u32,
}

/// `x[r, i] = x[r, i] · scale + y[r, i]`; a `y` of one row is added to every row, no `y` adds nothing.
#[derive(Debug, Clone, Copy)]
pub struct Add<'a> {
    /// `[rows, n]` f32.
    pub x: &'a View,
    /// `[y_rows, n]` f32.
    pub y: Option<&'a View>,
    /// Rows of `x`.
    pub rows: usize,
    /// Rows of `y`: 1, or as many as `x` has.
    pub y_rows: usize,
    /// Numbers of a row.
    pub n: usize,
    /// Factor on `x`, usually 1.
    pub scale: f32,
}

/// Enqueues a sum.
///
/// # Errors
/// [`HipError::Range`] for a view that is too short or a `y` of another number of rows; the call that failed.
pub fn add(stream: &Stream, kernels: &Kernels, op: Add) -> Result<(), HipError> {
    require(
        "rows of y",
        op.y_rows == 1 || op.y_rows == op.rows,
        op.y_rows,
    )?;
    let mut operands = Operands::default();
    let count = op.rows * op.n;
    let args = AddArgs {
        x: operands.address("x", op.x, count * 4)?,
        y: operands.optional("y", op.y, op.y_rows * op.n * 4)?,
        count: count as u64,
        n: narrow("n", op.n)?,
        y_rows: narrow("rows of y", op.y_rows)?,
        scale: op.scale,
        _rest: 0,
    };
    let per_block = FLAT_THREADS as usize * ADDED_PER_THREAD;
    let grid = grid(
        [narrow("blocks", count.div_ceil(per_block))?, 1, 1],
        FLAT_THREADS,
    );
    // SAFETY: `AddArgs` is the kernel's structure; elements beyond `count` are left alone.
    unsafe { operands.launch(stream, &kernels.add, grid, args) }
}

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct SoftCapArgs {
    x: u64,
    count: u64,
    cap: f32,
    _rest: u32,
}

/// Enqueues bounding `count` f32 numbers: `x = cap · tanh(x / cap)`.
///
/// # Errors
/// [`HipError::Range`] for a view that is too short; the call that failed.
pub fn soft_cap(
    stream: &Stream,
    kernels: &Kernels,
    x: &View,
    count: usize,
    cap: f32,
) -> Result<(), HipError> {
    let mut operands = Operands::default();
    let args = SoftCapArgs {
        x: operands.address("x", x, count * 4)?,
        count: count as u64,
        cap,
        _rest: 0,
    };
    let blocks = narrow("blocks", count.div_ceil(FLAT_THREADS as usize))?;
    // SAFETY: `SoftCapArgs` is the kernel's structure; elements beyond `count` are left alone.
    unsafe {
        operands.launch(
            stream,
            &kernels.soft_cap,
            grid([blocks, 1, 1], FLAT_THREADS),
            args,
        )
    }
}

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct GateRowsArgs {
    x: u64,
    gate: u64,
    count: u64,
    n: u32,
    _rest: u32,
}

/// Enqueues multiplying each of `rows` rows of `n` numbers with the sigmoid of its gate: `x[r, i] *= 1 / (1 + exp(-gate[r]))`.
///
/// `x`: `[rows, n]` f32; `gate`: `[rows]` f32.
///
/// # Errors
/// [`HipError::Range`] for a view that is too short; the call that failed.
pub fn gate_rows(
    stream: &Stream,
    kernels: &Kernels,
    x: &View,
    gate: &View,
    [rows, n]: [usize; 2],
) -> Result<(), HipError> {
    let mut operands = Operands::default();
    let count = rows * n;
    let args = GateRowsArgs {
        x: operands.address("x", x, count * 4)?,
        gate: operands.address("gate", gate, rows * 4)?,
        count: count as u64,
        n: narrow("n", n)?,
        _rest: 0,
    };
    let blocks = narrow("blocks", count.div_ceil(FLAT_THREADS as usize))?;
    let grid = grid([blocks, 1, 1], FLAT_THREADS);
    // SAFETY: `GateRowsArgs` is the kernel's structure; elements beyond `count` are left alone.
    unsafe { operands.launch(stream, &kernels.gate_rows, grid, args) }
}

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct GatherRowsArgs {
    x: u64,
    rows: u64,
    out: u64,
    n: u32,
    _rest: u32,
}

/// `out[i] = x[rows[i]]`
#[derive(Debug, Clone, Copy)]
pub struct GatherRows<'a> {
    /// `[x_rows, n]` f32.
    pub x: &'a View,
    /// `[n_rows]` u32.
    pub rows: &'a View,
    /// `[n_rows, n]` f32.
    pub out: &'a View,
    /// Rows to copy.
    pub n_rows: usize,
    /// Numbers of a row.
    pub n: usize,
}

/// Enqueues copying chosen rows.
///
/// # Errors
/// [`HipError::Range`] for a view that is too short; the call that failed.
///
/// # Safety
/// When the kernel runs, every entry of `rows` is a row of `x`.
pub unsafe fn gather_rows(
    stream: &Stream,
    kernels: &Kernels,
    op: GatherRows,
) -> Result<(), HipError> {
    let mut operands = Operands::default();
    let args = GatherRowsArgs {
        x: operands.address("x", op.x, 0)?,
        rows: operands.address("rows", op.rows, op.n_rows * 4)?,
        out: operands.address("out", op.out, op.n_rows * op.n * 4)?,
        n: narrow("n", op.n)?,
        _rest: 0,
    };
    let grid = grid([narrow("rows", op.n_rows)?, 1, 1], FLAT_THREADS);
    // SAFETY: `GatherRowsArgs` is the kernel's structure; a block copies one row, which exists by the caller's word.
    unsafe { operands.launch(stream, &kernels.gather_rows, grid, args) }
}
