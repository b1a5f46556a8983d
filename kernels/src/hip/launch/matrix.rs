//! Products of weights with activations: `kernels/hip/matvec.hip` and `kernels/hip/matmul.hip`.
//!
//! Few rows meet the weights as dot products of int8 (f32 for weights that are floats), bound by the bandwidth of memory; many meet them on matrix cores in f16. The caller chooses by the rows
//! that it has.

use bytemuck::{Pod, Zeroable};
use gguf::TensorType;

use super::Kernels;
use super::operands::{Forms, FormsArgs, Half, Int8, Operands, grid, narrow, require};
use super::repack::is_supported;
use super::rowwise::Function;
use crate::hip::{HipError, Stream, View};

const MATVEC_THREADS: u32 = 128;
const MATVEC_BLOCK_OUTPUTS: usize = 8;
const GATED_THREADS: u32 = 256;
const GATED_BLOCK_OUTPUTS: usize = 32;
const CHUNK_LEN: usize = 32;
/// Products that share a launch, at most.
pub const GROUP_MAX: usize = 3;

/// A weight matrix on the device, as [`repack`](super::repack::repack) leaves it.
#[derive(Debug, Clone, Copy)]
pub struct Weights<'a> {
    /// All of its bytes.
    pub view: &'a View,
    /// Tensor type.
    pub tensor_type: TensorType,
    /// Rows: outputs.
    pub n_out: usize,
    /// Numbers of a row: inputs.
    pub n_in: usize,
}

impl<'a> Weights<'a> {
    pub(super) fn address(&self, operands: &mut Operands<'a>) -> Result<u64, HipError> {
        require(
            "tensor type",
            is_supported(self.tensor_type),
            self.tensor_type.id() as usize,
        )?;
        let bytes = self
            .tensor_type
            .row_bytes(self.n_in as u64)
            .and_then(|row| usize::try_from(row).ok());
        let bytes = bytes.and_then(|row| row.checked_mul(self.n_out));
        require("row of whole blocks", bytes.is_some(), self.n_in)?;
        operands.address("weights", self.view, bytes.unwrap_or(usize::MAX))
    }
}

/// Whether weights of this type are floats, which meet f32 rows in [`matvec`].
#[must_use]
pub fn is_float(tensor_type: TensorType) -> bool {
    matches!(
        tensor_type,
        TensorType::F32 | TensorType::F16 | TensorType::BF16
    )
}

/// Whether [`matmul`] takes such weights: not F32, which keep their digits in [`matvec`], nor rows that are not whole chunks of 32.
#[must_use]
pub fn has_matmul(tensor_type: TensorType, n_in: usize) -> bool {
    is_supported(tensor_type) && tensor_type != TensorType::F32 && n_in.is_multiple_of(CHUNK_LEN)
}

/// Rows of activations for [`matvec`]: the form that the weights' type wants, or both.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// `[rows, n_in]` f32, for weights that are floats.
    pub f32: Option<&'a View>,
    /// For weights that are quantised.
    pub int8: Option<Int8<'a>>,
}

/// `Rows` of `dot.h`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct RowsArgs {
    f32: u64,
    quants: u64,
    blocks: u64,
}

pub(super) fn rows_args<'a>(
    operands: &mut Operands<'a>,
    x: Rows<'a>,
    rows: usize,
    n_in: usize,
    types: &[TensorType],
) -> Result<RowsArgs, HipError> {
    let floats = types.iter().any(|&tensor_type| is_float(tensor_type));
    let quants = types.iter().any(|&tensor_type| !is_float(tensor_type));
    require("f32 form of x", !floats || x.f32.is_some(), 0)?;
    require("int8 form of x", !quants || x.int8.is_some(), 0)?;
    let [quants, blocks] = operands.int8(x.int8.filter(|_| quants), rows, n_in)?;
    Ok(RowsArgs {
        f32: operands.optional("x", x.f32.filter(|_| floats), rows * n_in * 4)?,
        quants,
        blocks,
    })
}

/// One product: `out[r, o] = Σ_i weights[o, i] · x[r, i] + bias[o] + add[r, o]`.
#[derive(Debug, Clone, Copy)]
pub struct Product<'a> {
    /// `[n_out, n_in]`.
    pub weights: Weights<'a>,
    /// `[n_out]` f32.
    pub bias: Option<&'a View>,
    /// `[rows, n_out]` f32; may be `out`.
    pub add: Option<&'a View>,
    /// `[rows, n_out]` f32.
    pub out: &'a View,
}

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct ProductArgs {
    pub(super) weights: u64,
    pub(super) bias: u64,
    pub(super) add: u64,
    pub(super) out: u64,
    pub(super) tensor_type: u32,
    pub(super) n_out: u32,
    pub(super) first_block: u32,
    pub(super) _rest: u32,
}

impl<'a> Product<'a> {
    pub(super) fn args(
        &self,
        operands: &mut Operands<'a>,
        rows: usize,
        first_block: usize,
    ) -> Result<ProductArgs, HipError> {
        let n_out = self.weights.n_out;
        Ok(ProductArgs {
            weights: self.weights.address(operands)?,
            bias: operands.optional("bias", self.bias, n_out * 4)?,
            add: operands.optional("add", self.add, rows * n_out * 4)?,
            out: operands.address("out", self.out, rows * n_out * 4)?,
            tensor_type: self.weights.tensor_type.id(),
            n_out: narrow("outputs", n_out)?,
            first_block: narrow("blocks", first_block)?,
            _rest: 0,
        })
    }
}

/// The inputs that the products of a group share, which are at most [`GROUP_MAX`]; `None` where there are no products.
pub(super) fn inputs_of(products: &[Product]) -> Result<Option<usize>, HipError> {
    let len = products.len();
    require("products of a group", len <= GROUP_MAX, len)?;
    let mut inputs = products.iter().map(|product| product.weights.n_in);
    let Some(n_in) = inputs.next() else {
        return Ok(None);
    };
    let other = inputs.find(|&other| other != n_in);
    require("inputs of a group", other.is_none(), other.unwrap_or(n_in))?;
    Ok(Some(n_in))
}

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct MatVecArgs {
    products: [ProductArgs; GROUP_MAX],
    x: RowsArgs,
    n_products: u32,
    n_in: u32,
    rows: u32,
    _rest: u32,
}

/// Enqueues one to [`GROUP_MAX`] products over the same rows, of any number of rows: each four of them read the weights once. Results do not depend on the rows beside.
///
/// # Errors
/// [`HipError::Range`] for a view that is too short, a form of `x` that is missing, weights of different `n_in`, or more products; the call that failed.
pub fn matvec(
    stream: &Stream,
    kernels: &Kernels,
    products: &[Product],
    x: Rows,
    rows: usize,
) -> Result<(), HipError> {
    let Some(n_in) = inputs_of(products)? else {
        return Ok(());
    };
    let mut operands = Operands::default();
    let types: Vec<TensorType> = products
        .iter()
        .map(|product| product.weights.tensor_type)
        .collect();
    let mut args = MatVecArgs {
        x: rows_args(&mut operands, x, rows, n_in, &types)?,
        n_products: narrow("products", products.len())?,
        n_in: narrow("inputs", n_in)?,
        rows: narrow("rows", rows)?,
        ..Zeroable::zeroed()
    };
    let mut blocks = 0;
    for (product, place) in products.iter().zip(&mut args.products) {
        *place = product.args(&mut operands, rows, blocks)?;
        blocks += product.weights.n_out.div_ceil(MATVEC_BLOCK_OUTPUTS);
    }
    let (function, rows_per_block) = match rows {
        1 => (&kernels.matvec_1, 1),
        _ => (&kernels.matvec_4, 4),
    };
    let blocks = [
        narrow("blocks", blocks)?,
        narrow("groups of rows", rows.div_ceil(rows_per_block))?,
        1,
    ];
    // SAFETY: `MatVecArgs` is the kernel's structure; rows and outputs beyond the last are not written, and are read as the last.
    unsafe { operands.launch(stream, function, grid(blocks, MATVEC_THREADS), args) }
}

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct GatedMatVecArgs {
    gate: u64,
    up: u64,
    gate_bias: u64,
    up_bias: u64,
    x: RowsArgs,
    out: FormsArgs,
    tensor_type: u32,
    function: u32,
    n_in: u32,
    n_out: u32,
    rows: u32,
    _rest: u32,
}

/// The first half of a gated feed-forward network in one launch: `out = function(gate · x + gate_bias) · (up · x + up_bias)`.
#[derive(Debug, Clone, Copy)]
pub struct Gated<'a> {
    /// `[n_out, n_in]`.
    pub gate: Weights<'a>,
    /// Of the same type and size.
    pub up: Weights<'a>,
    /// `[n_out]` f32.
    pub gate_bias: Option<&'a View>,
    /// `[n_out]` f32.
    pub up_bias: Option<&'a View>,
    /// The non-linear function.
    pub function: Function,
    /// `[rows, n_in]`.
    pub x: Rows<'a>,
    /// Of `[rows, n_out]`: f32, int8 or both.
    pub out: Forms<'a>,
    /// Rows.
    pub rows: usize,
}

/// Enqueues the gated half of a feed-forward network for few rows.
///
/// # Errors
/// [`HipError::Range`] for a view that is too short, weights that differ, or the half form asked for; the call that failed.
pub fn gated_matvec(stream: &Stream, kernels: &Kernels, op: Gated) -> Result<(), HipError> {
    let Weights {
        tensor_type,
        n_out,
        n_in,
        ..
    } = op.gate;
    let same = op.up.tensor_type == tensor_type && op.up.n_out == n_out && op.up.n_in == n_in;
    require("gate and up of one kind", same, op.up.n_out)?;
    require("half form of a gated product", op.out.half.is_none(), n_out)?;
    let mut operands = Operands::default();
    let args = GatedMatVecArgs {
        gate: op.gate.address(&mut operands)?,
        up: op.up.address(&mut operands)?,
        gate_bias: operands.optional("gate bias", op.gate_bias, n_out * 4)?,
        up_bias: operands.optional("up bias", op.up_bias, n_out * 4)?,
        x: rows_args(&mut operands, op.x, op.rows, n_in, &[tensor_type])?,
        out: operands.forms(op.out, op.rows, n_out)?,
        tensor_type: tensor_type.id(),
        function: op.function as u32,
        n_in: narrow("inputs", n_in)?,
        n_out: narrow("outputs", n_out)?,
        rows: narrow("rows", op.rows)?,
        _rest: 0,
    };
    let (function, rows_per_block) = match op.rows {
        1 => (&kernels.gated_matvec_1, 1),
        _ => (&kernels.gated_matvec_4, 4),
    };
    let blocks = [
        narrow("blocks", n_out.div_ceil(GATED_BLOCK_OUTPUTS))?,
        narrow("groups of rows", op.rows.div_ceil(rows_per_block))?,
        1,
    ];
    // SAFETY: `GatedMatVecArgs` is the kernel's structure; rows and outputs beyond the last are not written, and are read as the last.
    unsafe { operands.launch(stream, function, grid(blocks, GATED_THREADS), args) }
}

/// Tiles of the matrix-core kernels: how many rows a block takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tile {
    /// Up to 16 rows.
    Narrow,
    /// Up to 64 rows.
    Middle,
    /// 128 rows and more: prefill.
    Wide,
}

impl Tile {
    /// The tile that suits a number of rows.
    #[must_use]
    pub fn for_rows(rows: usize) -> Tile {
        match rows {
            ..=16 => Tile::Narrow,
            17..=64 => Tile::Middle,
            _ => Tile::Wide,
        }
    }

    pub(super) fn rows(self) -> usize {
        match self {
            Tile::Narrow => 16,
            Tile::Middle => 64,
            Tile::Wide => 128,
        }
    }

    pub(super) fn outputs(self) -> usize {
        match self {
            Tile::Narrow => 64,
            Tile::Middle | Tile::Wide => 128,
        }
    }

    /// Threads of a block, and numbers along k that it takes at a time; AMD's block memory is smaller.
    fn block(self, on_amd: bool) -> (u32, usize) {
        match self {
            Tile::Narrow => (128, 128),
            Tile::Middle | Tile::Wide if on_amd => (256, 32),
            Tile::Middle | Tile::Wide => (256, 64),
        }
    }
}

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct MatMulArgs {
    pub(super) weights: u64,
    pub(super) x: u64,
    pub(super) scales: u64,
    pub(super) bias: u64,
    pub(super) add: u64,
    pub(super) out: u64,
    pub(super) experts: u64,
    pub(super) order: u64,
    pub(super) first: u64,
    pub(super) tensor_type: u32,
    pub(super) n_in: u32,
    pub(super) n_out: u32,
    pub(super) rows: u32,
    pub(super) x_share: u32,
    pub(super) _rest: u32,
}

/// Enqueues a product on matrix cores: weights are unpacked to f16, sums are f32. Results do not depend on the rows beside, for one tile.
///
/// `x`: the half form of `[rows, n_in]`.
///
/// # Errors
/// [`HipError::Range`] for a view that is too short, or weights for which [`has_matmul`] is false; the call that failed.
pub fn matmul(
    stream: &Stream,
    kernels: &Kernels,
    tile: Tile,
    product: Product,
    x: Half,
    rows: usize,
) -> Result<(), HipError> {
    let Weights {
        tensor_type,
        n_out,
        n_in,
        ..
    } = product.weights;
    require(
        "weights of a matrix product",
        has_matmul(tensor_type, n_in),
        n_in,
    )?;
    let mut operands = Operands::default();
    let [x, scales] = operands.half(Some(x), rows, n_in)?;
    let count = rows * n_out;
    let args = MatMulArgs {
        weights: product.weights.address(&mut operands)?,
        x,
        scales,
        bias: operands.optional("bias", product.bias, n_out * 4)?,
        add: operands.optional("add", product.add, count * 4)?,
        out: operands.address("out", product.out, count * 4)?,
        tensor_type: tensor_type.id(),
        n_in: narrow("inputs", n_in)?,
        n_out: narrow("outputs", n_out)?,
        rows: narrow("rows", rows)?,
        x_share: 1,
        ..Zeroable::zeroed()
    };
    let blocks = [
        narrow("row tiles", rows.div_ceil(tile.rows()))?,
        narrow("output tiles", n_out.div_ceil(tile.outputs()))?,
        1,
    ];
    launch_matmul(stream, kernels, tile, operands, blocks, args)
}

/// Enqueues the kernel of a tile.
pub(super) fn launch_matmul(
    stream: &Stream,
    kernels: &Kernels,
    tile: Tile,
    operands: Operands,
    blocks: [u32; 3],
    args: MatMulArgs,
) -> Result<(), HipError> {
    let function = match tile {
        Tile::Narrow => &kernels.matmul_16,
        Tile::Middle => &kernels.matmul_64,
        Tile::Wide => &kernels.matmul_128,
    };
    let (threads, step) = tile.block(kernels.gpu().architecture().starts_with("gfx"));
    let shared_bytes = 2 * (tile.rows() + tile.outputs()) * (step + 8) * 2;
    let mut grid = grid(blocks, threads);
    grid.shared_bytes = narrow("shared memory", shared_bytes)?;
    // SAFETY: `MatMulArgs` is the kernel's structure and the shared memory is two steps of rows and weights; rows and outputs beyond the last are not written, and are read as the last.
    unsafe { operands.launch(stream, function, grid, args) }
}
