//! Products of weights with rows of activations.
//!
//! Few rows (decode) stream the weights past: memory is the limit, and rows of the file are multiplied as they lie there. With many rows (prefill) arithmetic is the limit: a tile of weight
//! rows is unpacked once and multiplied with all activations, a few rows of both at a time in registers and a panel of `K` at a time in the first-level cache. Partial sums are put aside
//! between panels as the vectors they are, so that neither way changes the order of a sum.

use std::any::TypeId;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use gguf::TensorType;

use super::Cpu;
use super::formats::{Bf16, F16, F32, Family, Format, Q8_0};
use super::rows::{Row, RowMut, Rows};
use super::scratch::Loan;
use super::simd::{Kernel, Simd};
use crate::operands::{self, Activations, Keep, Matrix, Vector};

/// Weight rows of a task.
const TILE: usize = 16;
/// Rows of activations that are multiplied with a tile before the next ones.
const X_BLOCK: usize = 24;
/// Weight rows and rows of activations whose partial sums fit into registers.
const W_GROUP: usize = 4;
const X_GROUP: usize = 3;
/// With fewer rows of activations, unpacking does not pay.
const ROWS_TO_UNPACK: usize = 4;

/// Whether there is a kernel for products with this tensor type.
pub(super) fn supported(tensor_type: TensorType) -> bool {
    matches!(
        tensor_type,
        TensorType::F32 | TensorType::F16 | TensorType::BF16 | TensorType::Q8_0
    )
}

/// Activations in the form that the products with them want.
pub(super) struct Prepared<'a> {
    x: Activations<'a>,
    rows: Loan<'a, Rows>,
    /// The family in whose form the rows are.
    family: Option<TypeId>,
}

impl<'a> Prepared<'a> {
    /// Activations in no form yet.
    pub(super) fn new(cpu: &'a Cpu, x: Activations<'a>) -> Prepared<'a> {
        Prepared {
            x,
            rows: cpu.activations.take(),
            family: None,
        }
    }

    /// Brings the activations into the form of a family, if they are not in it yet.
    fn prepare<A: Family>(&mut self, cpu: &Cpu) {
        if self.family.replace(TypeId::of::<A>()) == Some(TypeId::of::<A>()) {
            return;
        }
        let x = self.x;
        let rows = self.rows.prepare(A::activation_size(x.cols), x.n_rows());
        cpu.workers.for_each(
            x.data.chunks_exact(x.cols).zip(rows),
            x.data.len(),
            |(x, row)| {
                cpu.isa.run(Prepare {
                    x,
                    row,
                    family: PhantomData::<A>,
                })
            },
        );
    }
}

/// `out[r, o] = Σ_i weight[o, i] · x[r, i] + bias[o]`, or that added to `out`.
///
/// # Panics
/// For a tensor type that is not [`supported`].
pub(super) fn matmul(cpu: &Cpu, product: operands::Product, x: &mut Prepared) {
    match product.weight.tensor_type {
        TensorType::F32 => run::<F32>(cpu, product, x),
        TensorType::F16 => run::<F16>(cpu, product, x),
        TensorType::BF16 => run::<Bf16>(cpu, product, x),
        TensorType::Q8_0 => run::<Q8_0>(cpu, product, x),
        other => unreachable!("{other} was refused when the operands were checked"),
    }
}

fn run<F: Format>(cpu: &Cpu, product: operands::Product, x: &mut Prepared) {
    let operands::Product {
        weight,
        bias,
        keep,
        out,
    } = product;
    if out.is_empty() {
        return;
    }
    let n_rows = x.x.n_rows();
    x.prepare::<F::Family>(cpu);

    let blocks: Vec<_> = out
        .chunks_mut(X_BLOCK * weight.n_rows)
        .map(Mutex::new)
        .collect();
    let product = Product {
        weight,
        bias,
        keep,
        x: &x.rows,
        blocks: &blocks,
    };
    let work = n_rows
        .saturating_mul(weight.n_rows)
        .saturating_mul(weight.row_len);
    cpu.workers
        .for_each((0..weight.n_rows).step_by(TILE), work, |first| {
            if n_rows < ROWS_TO_UNPACK {
                cpu.isa.run(Direct {
                    product: &product,
                    first,
                    format: PhantomData::<F>,
                });
            } else {
                cpu.isa.run(Unpacked {
                    product: &product,
                    first,
                    tile: &mut cpu.tiles.take(),
                    format: PhantomData::<F>,
                });
            }
        });
}

/// What all tasks of a product share.
struct Product<'a, 'out> {
    weight: Matrix<'a>,
    bias: Option<Vector<'a>>,
    keep: Keep,
    x: &'a Rows,
    /// The output in blocks of [`X_BLOCK`] rows, each `[up to X_BLOCK, n_out]`. Tasks write different columns: a lock is held just for that.
    blocks: &'a [Mutex<&'out mut [f32]>],
}

impl Product<'_, '_> {
    /// Number of weight rows of the tile that begins at `first`.
    fn tile_len(&self, first: usize) -> usize {
        TILE.min(self.weight.n_rows - first)
    }

    /// Writes the columns from `first` of each row of a block, or adds to them.
    fn write(&self, block: usize, first: usize, results: &[[f32; TILE]]) {
        let mut out = self.blocks[block]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let len = self.tile_len(first);
        for (row, results) in out.chunks_exact_mut(self.weight.n_rows).zip(results) {
            let columns = (first..).zip(&mut row[first..first + len]);
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

/// Brings one row of activations into its family's form.
struct Prepare<'a, A> {
    x: &'a [f32],
    row: RowMut<'a>,
    family: PhantomData<A>,
}

impl<A: Family> Kernel for Prepare<'_, A> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        A::prepare(simd, self.x, self.row);
    }
}

/// Multiplies a tile's rows as they lie in the file.
struct Direct<'a, 'out, F> {
    product: &'a Product<'a, 'out>,
    /// First weight row of the tile.
    first: usize,
    format: PhantomData<F>,
}

impl<F: Format> Kernel for Direct<'_, '_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Product { weight, x, .. } = self.product;
        let mut results = [[0.0; TILE]; ROWS_TO_UNPACK];
        let tile_len = self.product.tile_len(self.first);
        let grouped_len = tile_len - tile_len % W_GROUP;
        for w in (0..grouped_len).step_by(W_GROUP) {
            let mut packed: [&[u8]; W_GROUP] = [&[]; W_GROUP];
            for (i, row) in packed.iter_mut().enumerate() {
                *row = weight.row(self.first + w + i);
            }
            for (row, results) in results.iter_mut().enumerate().take(x.n_rows()) {
                results[w..w + W_GROUP].copy_from_slice(&F::dot(simd, packed, x.row(row)));
            }
        }
        for w in grouped_len..tile_len {
            for (row, results) in results.iter_mut().enumerate().take(x.n_rows()) {
                [results[w]] = F::dot(simd, [weight.row(self.first + w)], x.row(row));
            }
        }
        self.product.write(0, self.first, &results);
    }
}

/// Unpacks a tile's rows and multiplies them with all activations.
struct Unpacked<'a, 'out, F> {
    product: &'a Product<'a, 'out>,
    /// First weight row of the tile.
    first: usize,
    tile: &'a mut Rows,
    format: PhantomData<F>,
}

impl<F: Format> Kernel for Unpacked<'_, '_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Product { weight, x, .. } = self.product;
        let tile_len = self.product.tile_len(self.first);
        for (index, row) in self
            .tile
            .prepare(F::Family::weight_size(weight.row_len), tile_len)
            .enumerate()
        {
            F::unpack(simd, weight.row(self.first + index), row);
        }
        for block in 0..self.product.blocks.len() {
            let x_rows = block * X_BLOCK..((block + 1) * X_BLOCK).min(x.n_rows());
            let sums = multiply_block::<F::Family, S>(simd, self.tile, x, x_rows, weight.row_len);
            let mut results = [[0.0; TILE]; X_BLOCK];
            for (w, sums) in sums.iter().enumerate() {
                for (results, &sum) in results.iter_mut().zip(sums) {
                    results[w] = simd.sum(sum);
                }
            }
            self.product.write(block, self.first, &results);
        }
    }
}

/// Partial sums of a tile with a block of activations, `[weight row][activation row]`.
type Sums<V> = [[V; X_BLOCK]; TILE];

#[inline(always)]
fn multiply_block<A: Family, S: Simd>(
    simd: S,
    tile: &Rows,
    x: &Rows,
    x_rows: Range<usize>,
    n_in: usize,
) -> Sums<S::F32> {
    let mut sums = [[simd.splat(0.0); X_BLOCK]; TILE];
    for start in (0..n_in).step_by(A::PANEL_LEN) {
        let mut place = Place {
            panel: start..(start + A::PANEL_LEN).min(n_in),
            first_x: x_rows.start,
            x: 0,
            w: 0,
        };
        while place.x < x_rows.len() {
            place.w = 0;
            let x_left = x_rows.len() - place.x;
            while place.w < tile.n_rows() {
                let w_left = tile.n_rows() - place.w;
                place.w += match (w_left >= W_GROUP, x_left) {
                    (true, X_GROUP..) => {
                        multiply_group::<A, S, W_GROUP, X_GROUP>(simd, tile, x, &place, &mut sums)
                    }
                    (true, 2) => {
                        multiply_group::<A, S, W_GROUP, 2>(simd, tile, x, &place, &mut sums)
                    }
                    (true, _) => {
                        multiply_group::<A, S, W_GROUP, 1>(simd, tile, x, &place, &mut sums)
                    }
                    (false, X_GROUP..) => {
                        multiply_group::<A, S, 1, X_GROUP>(simd, tile, x, &place, &mut sums)
                    }
                    (false, 2) => multiply_group::<A, S, 1, 2>(simd, tile, x, &place, &mut sums),
                    (false, _) => multiply_group::<A, S, 1, 1>(simd, tile, x, &place, &mut sums),
                };
            }
            place.x += x_left.min(X_GROUP);
        }
    }
    sums
}

/// Where a group lies.
struct Place {
    /// Elements of `K`.
    panel: Range<usize>,
    /// First row of activations of the block.
    first_x: usize,
    /// First row of activations of the group, counted in the block.
    x: usize,
    /// First weight row of the group, counted in the tile.
    w: usize,
}

/// Adds the products of `W` rows of a tile with `X` rows of activations over one panel. Returns `W`.
#[inline(always)]
fn multiply_group<A: Family, S: Simd, const W: usize, const X: usize>(
    simd: S,
    tile: &Rows,
    x: &Rows,
    place: &Place,
    sums: &mut Sums<S::F32>,
) -> usize {
    let mut group = [[simd.splat(0.0); X]; W];
    for (group, sums) in group.iter_mut().zip(&sums[place.w..place.w + W]) {
        group.copy_from_slice(&sums[place.x..place.x + X]);
    }
    let (mut w_rows, mut x_rows) = ([Row::default(); W], [Row::default(); X]);
    for (i, row) in w_rows.iter_mut().enumerate() {
        *row = tile.row(place.w + i);
    }
    for (i, row) in x_rows.iter_mut().enumerate() {
        *row = x.row(place.first_x + place.x + i);
    }
    A::accumulate(simd, w_rows, x_rows, place.panel.clone(), &mut group);
    for (group, sums) in group.iter().zip(&mut sums[place.w..place.w + W]) {
        sums[place.x..place.x + X].copy_from_slice(group);
    }
    W
}
