//! Mixtures of experts: `kernels/hip/experts.hip`, and the products of `matvec.hip` and `matmul.hip` through a table of addresses.
//!
//! A *slot* is one expert of one row: row `r` has slots `r * k .. (r + 1) * k`.

use bytemuck::{Pod, Zeroable};
use gguf::TensorType;

use super::Kernels;
use super::matrix::{
    MatMulArgs, ProductArgs, Rows, RowsArgs, Tile, has_matmul, launch_matmul, rows_args,
};
use super::operands::{Half, Operands, grid, narrow, require};
use crate::hip::{HipError, Stream, View};

/// Experts that [`choose_experts`] looks at, at most.
pub const EXPERTS_MAX: usize = 512;
/// Experts of a row, at most.
pub const CHOSEN_MAX: usize = 32;

const MATVEC_BLOCK_OUTPUTS: usize = 8;

/// What the weight of an expert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Gating {
    /// Its softmax over all experts.
    SoftmaxOfAll = 0,
    /// Its sigmoid.
    Sigmoid = 1,
    /// Its softmax over the chosen ones.
    SoftmaxOfChosen = 2,
}

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct ChooseExpertsArgs {
    logits: u64,
    bias: u64,
    ids: u64,
    weights: u64,
    rows: u32,
    n_experts: u32,
    k: u32,
    gating: u32,
    normalise: u32,
    scale: f32,
}

/// Chooses the `k` best experts of each row, best first, the lower id on a tie.
#[derive(Debug, Clone, Copy)]
pub struct ChooseExperts<'a> {
    /// `[rows, n_experts]` f32.
    pub logits: &'a View,
    /// `[n_experts]` f32: added for the choice, not to the weights.
    pub bias: Option<&'a View>,
    /// `[rows, k]` u32.
    pub ids: &'a View,
    /// `[rows, k]` f32.
    pub weights: &'a View,
    /// Rows.
    pub rows: usize,
    /// At most [`EXPERTS_MAX`].
    pub n_experts: usize,
    /// At most [`CHOSEN_MAX`] and `n_experts`.
    pub k: usize,
    /// What the weights are.
    pub gating: Gating,
    /// Whether they are divided by their sum.
    pub normalise: bool,
    /// What they are multiplied with last.
    pub scale: f32,
}

/// Enqueues a choice of experts.
///
/// # Errors
/// [`HipError::Range`] for a view that is too short, or numbers beyond what the kernel takes; the call that failed.
pub fn choose_experts(
    stream: &Stream,
    kernels: &Kernels,
    op: ChooseExperts,
) -> Result<(), HipError> {
    require("experts", op.n_experts <= EXPERTS_MAX, op.n_experts)?;
    require("chosen experts", op.k <= CHOSEN_MAX.min(op.n_experts), op.k)?;
    let mut operands = Operands::default();
    let args = ChooseExpertsArgs {
        logits: operands.address("logits", op.logits, op.rows * op.n_experts * 4)?,
        bias: operands.optional("bias", op.bias, op.n_experts * 4)?,
        ids: operands.address("ids", op.ids, op.rows * op.k * 4)?,
        weights: operands.address("weights", op.weights, op.rows * op.k * 4)?,
        rows: narrow("rows", op.rows)?,
        n_experts: narrow("experts", op.n_experts)?,
        k: narrow("chosen experts", op.k)?,
        gating: op.gating as u32,
        normalise: u32::from(op.normalise),
        scale: op.scale,
    };
    let blocks = [narrow("blocks", op.rows.div_ceil(4))?, 1, 1];
    // SAFETY: `ChooseExpertsArgs` is the kernel's structure; a warp reads and writes one row.
    unsafe { operands.launch(stream, &kernels.choose_experts, grid(blocks, 128), args) }
}

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct OrderSlotsArgs {
    ids: u64,
    order: u64,
    first: u64,
    n_slots: u32,
    n_experts: u32,
}

/// Enqueues listing slots expert by expert: `order[first[e] .. first[e + 1]]` are those whose id is `e`, ascending. An id beyond the experts is in no list.
///
/// `ids`: `[n_slots]` u32; `order`: `[n_slots]` u32; `first`: `[n_experts + 1]` u32.
///
/// # Errors
/// [`HipError::Range`] for a view that is too short; the call that failed.
pub fn order_slots(
    stream: &Stream,
    kernels: &Kernels,
    ids: &View,
    [order, first]: [&View; 2],
    [n_slots, n_experts]: [usize; 2],
) -> Result<(), HipError> {
    let mut operands = Operands::default();
    let args = OrderSlotsArgs {
        ids: operands.address("ids", ids, n_slots * 4)?,
        order: operands.address("order", order, n_slots * 4)?,
        first: operands.address("first", first, (n_experts + 1) * 4)?,
        n_slots: narrow("slots", n_slots)?,
        n_experts: narrow("experts", n_experts)?,
    };
    let blocks = [args.n_experts, 1, 1];
    // SAFETY: `OrderSlotsArgs` is the kernel's structure; what it writes are places among `n_slots` and `n_experts + 1`.
    unsafe { operands.launch(stream, &kernels.order_slots, grid(blocks, 256), args) }
}

/// One matrix of every expert.
#[derive(Debug, Clone, Copy)]
pub struct ExpertWeights<'a> {
    /// `[n_experts]` u64: where each expert's matrix lies.
    pub table: &'a View,
    /// `[n_experts]` u64: where the bias of each lies, `[n_out]` f32.
    pub biases: Option<&'a View>,
    /// What the tables name, so that it lives as long as the launch needs it.
    pub held: &'a [View],
    /// Tensor type of all.
    pub tensor_type: TensorType,
    /// Outputs of each.
    pub n_out: usize,
    /// Inputs of each.
    pub n_in: usize,
    /// Experts.
    pub n_experts: usize,
}

/// The slots of a product with experts: slot `s` is row `s / share` of `x`, and row `s` of `out`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slots {
    /// How many there are.
    pub count: usize,
    /// Slots of a row of `x`; divides `count`.
    pub share: usize,
}

impl Slots {
    /// Rows of `x`.
    fn rows(self) -> Result<usize, HipError> {
        let whole = self.share > 0 && self.count.is_multiple_of(self.share);
        require("slots of a row", whole, self.share)?;
        Ok(self.count / self.share)
    }
}

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct ExpertMatVecArgs {
    product: ProductArgs,
    x: RowsArgs,
    ids: u64,
    n_in: u32,
    x_share: u32,
}

/// Enqueues the products of slots with their experts: slot `s` meets expert `ids[s]`.
///
/// `x`: `[slots.count / slots.share, n_in]`; `ids`: `[slots.count]` u32; `out`: `[slots.count, n_out]` f32.
///
/// # Errors
/// [`HipError::Range`] for a view that is too short; the call that failed.
///
/// # Safety
/// When the kernel runs, every id is an expert, and the tables have the addresses of its matrix of `[n_out, n_in]` and of its bias, which lie in views that are held.
pub unsafe fn expert_matvec(
    stream: &Stream,
    kernels: &Kernels,
    experts: ExpertWeights,
    x: Rows,
    slots: Slots,
    [ids, out]: [&View; 2],
) -> Result<(), HipError> {
    let (n_slots, rows) = (slots.count, slots.rows()?);
    let ExpertWeights {
        n_out,
        n_in,
        n_experts,
        ..
    } = experts;
    let mut operands = Operands::default();
    operands.hold(experts.held);
    let args = ExpertMatVecArgs {
        product: ProductArgs {
            weights: operands.address("table of experts", experts.table, n_experts * 8)?,
            bias: operands.optional("table of biases", experts.biases, n_experts * 8)?,
            out: operands.address("out", out, n_slots * n_out * 4)?,
            tensor_type: experts.tensor_type.id(),
            n_out: narrow("outputs", n_out)?,
            ..Zeroable::zeroed()
        },
        x: rows_args(&mut operands, x, rows, n_in, &[experts.tensor_type])?,
        ids: operands.address("ids", ids, n_slots * 4)?,
        n_in: narrow("inputs", n_in)?,
        x_share: narrow("slots of a row", slots.share)?,
    };
    let blocks = [
        narrow("blocks", n_out.div_ceil(MATVEC_BLOCK_OUTPUTS))?,
        narrow("slots", n_slots)?,
        1,
    ];
    // SAFETY: `ExpertMatVecArgs` is the kernel's structure; matrices are where the table says, by the caller's word.
    unsafe { operands.launch(stream, &kernels.expert_matvec, grid(blocks, 128), args) }
}

/// Enqueues the same products on matrix cores, expert by expert: for many rows.
///
/// `x`: the half form of `[slots.count / slots.share, n_in]`; `order`, `first`: from [`order_slots`]; `out`: `[slots.count, n_out]` f32. Results do not depend on the slots beside, for one tile.
///
/// # Errors
/// [`HipError::Range`] for a view that is too short, or weights for which [`has_matmul`] is false; the call that failed.
///
/// # Safety
/// When the kernel runs, `order` and `first` are what [`order_slots`] made for these slots, and the tables have the addresses of the matrix of `[n_out, n_in]` and of the bias of each expert
/// whose list is not empty, which lie in views that are held.
pub unsafe fn expert_matmul(
    stream: &Stream,
    kernels: &Kernels,
    tile: Tile,
    experts: ExpertWeights,
    x: Half,
    slots: Slots,
    [order, first, out]: [&View; 3],
) -> Result<(), HipError> {
    let (n_slots, rows) = (slots.count, slots.rows()?);
    let ExpertWeights {
        tensor_type,
        n_out,
        n_in,
        n_experts,
        ..
    } = experts;
    require(
        "weights of a matrix product",
        has_matmul(tensor_type, n_in),
        n_in,
    )?;
    let mut operands = Operands::default();
    operands.hold(experts.held);
    let [x, scales] = operands.half(Some(x), rows, n_in)?;
    let args = MatMulArgs {
        x,
        scales,
        bias: operands.optional("table of biases", experts.biases, n_experts * 8)?,
        out: operands.address("out", out, n_slots * n_out * 4)?,
        experts: operands.address("table of experts", experts.table, n_experts * 8)?,
        order: operands.address("order", order, n_slots * 4)?,
        first: operands.address("first", first, (n_experts + 1) * 4)?,
        tensor_type: tensor_type.id(),
        n_in: narrow("inputs", n_in)?,
        n_out: narrow("outputs", n_out)?,
        rows: narrow("slots", n_slots)?,
        x_share: narrow("slots of a row", slots.share)?,
        ..Zeroable::zeroed()
    };
    // Any expert may have all slots; blocks beyond an expert's list end at once.
    let blocks = [
        narrow("row tiles", n_slots.div_ceil(tile.rows()))?,
        narrow("output tiles", n_out.div_ceil(tile.outputs()))?,
        narrow("experts", n_experts)?,
    ];
    launch_matmul(stream, kernels, tile, operands, blocks, args)
}

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct AddExpertsArgs {
    y: u64,
    weights: u64,
    add: u64,
    out: u64,
    n: u32,
    k: u32,
}

/// `out[r, i] = add[r, i] + Σ_j weights[r, j] · y[r · k + j, i]`
#[derive(Debug, Clone, Copy)]
pub struct AddExperts<'a> {
    /// `[rows * k, n]` f32.
    pub y: &'a View,
    /// `[rows, k]` f32.
    pub weights: &'a View,
    /// `[rows, n]` f32; may be `out`.
    pub add: Option<&'a View>,
    /// `[rows, n]` f32.
    pub out: &'a View,
    /// Rows.
    pub rows: usize,
    /// Experts of a row.
    pub k: usize,
    /// Numbers of a row.
    pub n: usize,
}

/// Enqueues putting the experts' outputs together.
///
/// # Errors
/// [`HipError::Range`] for a view that is too short; the call that failed.
pub fn add_experts(stream: &Stream, kernels: &Kernels, op: AddExperts) -> Result<(), HipError> {
    let mut operands = Operands::default();
    let args = AddExpertsArgs {
        y: operands.address("y", op.y, op.rows * op.k * op.n * 4)?,
        weights: operands.address("weights", op.weights, op.rows * op.k * 4)?,
        add: operands.optional("add", op.add, op.rows * op.n * 4)?,
        out: operands.address("out", op.out, op.rows * op.n * 4)?,
        n: narrow("n", op.n)?,
        k: narrow("experts of a row", op.k)?,
    };
    let blocks = [
        narrow("blocks", op.n.div_ceil(256))?,
        narrow("rows", op.rows)?,
        1,
    ];
    // SAFETY: `AddExpertsArgs` is the kernel's structure; elements beyond `n` are left alone.
    unsafe { operands.launch(stream, &kernels.add_experts, grid(blocks, 256), args) }
}
