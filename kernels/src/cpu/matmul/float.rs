//! Products with types that have one number per element.
//!
//! With many rows a tile of weight rows is unpacked once and multiplied with all activations, a few rows of both at a time in registers and a panel of `K` at a time in the first-level
//! cache. Partial sums are put aside between panels as the vectors they are, so that no way changes the order of a sum.

use std::marker::PhantomData;
use std::ops::Range;

use super::{Prepared, Product, STRIP, TILE, X_BLOCK};
use crate::cpu::Cpu;
use crate::cpu::formats::float::{Arithmetic, accumulate, dot};
use crate::cpu::rows::{Row, Rows};
use crate::cpu::simd::{Kernel, Simd};
use crate::operands;

/// Weight rows and rows of activations whose partial sums fit into registers.
const W_GROUP: usize = 4;
const X_GROUP: usize = 3;
/// Elements of `K` at a time, so that a tile stays in the first-level cache beside a group of activations.
const PANEL_LEN: usize = 512;
/// With fewer rows of activations, unpacking does not pay.
const ROWS_TO_UNPACK: usize = 4;

pub(super) fn product<A: Arithmetic>(cpu: &Cpu, product: operands::Product, x: &mut Prepared) {
    let n_rows = x.x.n_rows();
    x.prepare(cpu, A::FORM, A::row_size(x.x.cols), A::prepare);
    let product = Product::new(product, &x.rows);
    if n_rows < ROWS_TO_UNPACK {
        product.for_each(cpu, STRIP, |strip| {
            let direct = Direct {
                product: &product,
                strip,
                arithmetic: PhantomData::<A>,
            };
            A::run(cpu.isa, direct);
        });
    } else {
        product.for_each(cpu, TILE, |rows| {
            let unpacked = Unpacked {
                product: &product,
                rows,
                tile: &mut cpu.tiles.take(),
                arithmetic: PhantomData::<A>,
            };
            A::run(cpu.isa, unpacked);
        });
    }
}

/// Multiplies a strip's rows as they lie in the file.
struct Direct<'a, 'out, A> {
    product: &'a Product<'a, 'out>,
    strip: Range<usize>,
    arithmetic: PhantomData<A>,
}

impl<A: Arithmetic> Kernel for Direct<'_, '_, A> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Product { weight, x, .. } = self.product;
        let mut results = [[0.0; STRIP]; ROWS_TO_UNPACK];
        let first = self.strip.start;
        let grouped_len = self.strip.len() - self.strip.len() % W_GROUP;
        for w in (0..grouped_len).step_by(W_GROUP) {
            let mut packed: [&[u8]; W_GROUP] = [&[]; W_GROUP];
            for (i, row) in packed.iter_mut().enumerate() {
                *row = weight.row(first + w + i);
            }
            for (row, results) in results.iter_mut().enumerate().take(x.n_rows()) {
                let products = dot::<A, S, W_GROUP>(simd, packed, x.row(row));
                results[w..w + W_GROUP].copy_from_slice(&products);
            }
        }
        for w in grouped_len..self.strip.len() {
            for (row, results) in results.iter_mut().enumerate().take(x.n_rows()) {
                [results[w]] = dot::<A, S, 1>(simd, [weight.row(first + w)], x.row(row));
            }
        }
        self.product.write(0, self.strip, &results);
    }
}

/// Unpacks up to [`TILE`] weight rows and multiplies them with all activations.
struct Unpacked<'a, 'out, A> {
    product: &'a Product<'a, 'out>,
    rows: Range<usize>,
    tile: &'a mut Rows,
    arithmetic: PhantomData<A>,
}

impl<A: Arithmetic> Kernel for Unpacked<'_, '_, A> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Product { weight, x, .. } = self.product;
        let tile = self
            .tile
            .prepare(A::row_size(weight.row_len), self.rows.len());
        for (index, row) in self.rows.clone().zip(tile) {
            A::unpack::<S>(simd, weight.row(index), row);
        }
        for block in 0..self.product.blocks.len() {
            let x_rows = block * X_BLOCK..((block + 1) * X_BLOCK).min(x.n_rows());
            let sums = multiply_block::<A, S>(simd, self.tile, x, x_rows, weight.row_len);
            let mut results = [[0.0; TILE]; X_BLOCK];
            for (w, sums) in sums.iter().enumerate() {
                for (results, &sum) in results.iter_mut().zip(sums) {
                    results[w] = simd.sum(sum);
                }
            }
            self.product.write(block, self.rows.clone(), &results);
        }
    }
}

/// Partial sums of a tile with a block of activations, `[weight row][activation row]`.
type Sums<V> = [[V; X_BLOCK]; TILE];

#[inline(always)]
fn multiply_block<A: Arithmetic, S: Simd>(
    simd: S,
    tile: &Rows,
    x: &Rows,
    x_rows: Range<usize>,
    n_in: usize,
) -> Sums<S::F32> {
    let mut sums = [[simd.splat(0.0); X_BLOCK]; TILE];
    for start in (0..n_in).step_by(PANEL_LEN) {
        let mut place = Place {
            panel: start..(start + PANEL_LEN).min(n_in),
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
fn multiply_group<A: Arithmetic, S: Simd, const W: usize, const X: usize>(
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
    accumulate::<A, S, W, X>(simd, w_rows, x_rows, place.panel.clone(), &mut group);
    for (group, sums) in group.iter().zip(&mut sums[place.w..place.w + W]) {
        sums[place.x..place.x + X].copy_from_slice(group);
    }
    W
}
