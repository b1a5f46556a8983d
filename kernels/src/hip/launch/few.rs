//! Products of some rows on matrix cores: `kernels/hip/matfew.hip`.
//!
//! Each weight is unpacked once for up to 64 rows. A row's result depends neither on the rows beside it nor on how many there are, which no other product on matrix cores promises.

use bytemuck::{Pod, Zeroable};

use super::Kernels;
use super::matrix::{GROUP_MAX, Product, ProductArgs, Weights, has_matmul, inputs_of};
use super::operands::{Half, Operands, grid, narrow, require};
use crate::hip::{HipError, Stream, View};

const THREADS: u32 = 128;
/// Numbers along k that are summed by themselves.
const SPLIT_LEN: usize = 1024;
/// Numbers along k of a step, and bytes of one.
const STEP_LEN: usize = 128;
/// Outputs, counted once for each group of rows, that keep a large GPU busy: with fewer, blocks share their work split by split.
const OUTPUTS_WANTED: usize = 25_600;
const ROWS_MAX: usize = 64;

/// `MatFew` of `matfew.hip`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct MatFewArgs {
    products: [ProductArgs; GROUP_MAX],
    x: u64,
    scales: u64,
    partial: u64,
    counters: u64,
    n_products: u32,
    n_in: u32,
    rows: u32,
    blocks: u32,
}

/// What a block works on.
#[derive(Debug, Clone, Copy)]
struct Tile {
    rows: usize,
    outputs: usize,
    /// The kernel keeps the sums of splits that are over in block memory.
    keeps_totals: bool,
}

impl Tile {
    fn new(kernels: &Kernels, rows: usize) -> Tile {
        let on_amd = kernels.gpu().architecture().starts_with("gfx");
        let rows = match rows {
            ..=16 => 16,
            17..=32 => 32,
            _ => ROWS_MAX,
        };
        Tile {
            rows,
            outputs: if rows > 16 && !on_amd { 128 } else { 64 },
            keeps_totals: !on_amd,
        }
    }

    /// Bytes of the sums of a block, or of a split of it.
    fn sums_bytes(&self) -> usize {
        self.rows * self.outputs * size_of::<f32>()
    }

    /// Two steps of rows in f16, and the totals.
    fn shared_bytes(&self) -> usize {
        let totals = if self.keeps_totals {
            self.sums_bytes()
        } else {
            0
        };
        2 * self.rows * STEP_LEN * 2 + totals
    }
}

/// Blocks of all products, groups of rows, and splits.
fn blocks_of<'a>(
    products: impl Iterator<Item = Weights<'a>>,
    rows: usize,
    tile: Tile,
) -> [usize; 3] {
    let (mut blocks, mut splits) = (0, 0);
    for weights in products {
        blocks += weights.n_out.div_ceil(tile.outputs);
        splits = weights.n_in.div_ceil(SPLIT_LEN);
    }
    [blocks, rows.div_ceil(tile.rows), splits]
}

fn scratch_bytes_of([blocks, groups, splits]: [usize; 3], tile: Tile) -> [usize; 2] {
    [
        blocks * groups * splits * tile.sums_bytes(),
        blocks * groups * 4,
    ]
}

/// Bytes that [`matfew`] wants for partial sums and for counters; `None` where it is better off without.
#[must_use]
pub fn scratch_bytes(kernels: &Kernels, products: &[Product], rows: usize) -> Option<[usize; 2]> {
    let tile = Tile::new(kernels, rows);
    let weights = products.iter().map(|product| product.weights);
    let spread = blocks_of(weights, rows, tile);
    let [blocks, groups, splits] = spread;
    let wants = splits > 1 && blocks * groups * tile.outputs < OUTPUTS_WANTED;
    wants.then(|| scratch_bytes_of(spread, tile))
}

/// Enqueues one to [`GROUP_MAX`] products over the same rows, on matrix cores. Weights are unpacked to f16, sums are f32. Results depend neither on the rows beside nor on the products beside.
///
/// `x`: the half form of `[rows, n_in]`; `scratch`: memory for partial sums and for counters, of [`scratch_bytes`], which lets blocks share the sum of an output. Results are the same without. The
/// counters are zero before and after.
///
/// # Errors
/// [`HipError::Range`] for a view that is too short, weights of different `n_in` or for which [`has_matmul`] is false, or more products; the call that failed.
///
/// # Safety
/// The counters are zero, and nothing else uses them or the partial sums while this runs.
pub unsafe fn matfew(
    stream: &Stream,
    kernels: &Kernels,
    products: &[Product],
    x: Half,
    rows: usize,
    scratch: Option<[&View; 2]>,
) -> Result<(), HipError> {
    let Some(n_in) = inputs_of(products)? else {
        return Ok(());
    };
    let weights = products.iter().map(|product| product.weights);
    let tile = Tile::new(kernels, rows);
    let spread = blocks_of(weights, rows, tile);
    let [blocks, groups, splits] = spread;
    let mut operands = Operands::default();
    let [x, scales] = operands.half(Some(x), rows, n_in)?;
    let mut args = MatFewArgs {
        x,
        scales,
        n_products: narrow("products", products.len())?,
        n_in: narrow("inputs", n_in)?,
        rows: narrow("rows", rows)?,
        blocks: narrow("blocks", blocks)?,
        ..Zeroable::zeroed()
    };
    if let Some([partial, counters]) = scratch {
        let [sums, counts] = scratch_bytes_of(spread, tile);
        args.partial = operands.address("partial sums", partial, sums)?;
        args.counters = operands.address("counters", counters, counts)?;
    }
    let mut first_block = 0;
    for (product, place) in products.iter().zip(&mut args.products) {
        let Weights {
            tensor_type, n_out, ..
        } = product.weights;
        require(
            "weights of a matrix product",
            has_matmul(tensor_type, n_in),
            n_in,
        )?;
        *place = product.args(&mut operands, rows, first_block)?;
        first_block += n_out.div_ceil(tile.outputs);
    }
    let function = match tile.rows {
        16 => &kernels.matfew_16,
        32 => &kernels.matfew_32,
        _ => &kernels.matfew_64,
    };
    let apart = if scratch.is_some() { splits } else { 1 };
    let blocks = [
        args.blocks,
        narrow("groups of rows", groups)?,
        narrow("splits", apart)?,
    ];
    let mut grid = grid(blocks, THREADS);
    grid.shared_bytes = narrow("shared memory", tile.shared_bytes())?;
    // SAFETY: `MatFewArgs` is the kernel's structure and the shared memory is what it takes; rows and outputs beyond the last are not written, the ones are not read and the others are read as the
    // last. Partial sums and counters are long enough for this grid; that nobody else uses them is the caller's word.
    unsafe { operands.launch(stream, function, grid, args) }
}
