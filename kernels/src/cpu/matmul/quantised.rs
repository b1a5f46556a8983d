//! Products with quantised types.
//!
//! A tile is [`TILE`] weight rows, each row a lane: a four of neighbouring bytes of every row makes a vector, which meets the same four activations of several rows. So a vector's lanes are
//! finished sums of different outputs, and nothing is added across lanes.

use std::marker::PhantomData;
use std::ops::Range;

use super::{Prepared, Product, STRIP, TILE, X_BLOCK, prefetch};
use crate::buffer::Buffer;
use crate::cpu::Cpu;
use crate::cpu::formats::blocks::{
    CHAINS, Chunk, Family, Place, SCALE_BYTES, TileChunk, XChunk, XRow, activation_size, prepare,
    total, total_lanes,
};
use crate::cpu::formats::{Form, Quantised};
use crate::cpu::rows::{Row, RowMut, Rows};
use crate::cpu::simd::{CHUNK_LEN, Kernel, Simd};
use crate::operands::{self, Matrix};

/// With fewer rows of activations, a tile does not pay.
const ROWS_TO_TILE: usize = 4;
/// How far ahead weights are asked for that are read row by row.
const PREFETCH_BYTES: usize = 4096;
/// Fours of bytes in a chunk.
const QUADS: usize = CHUNK_LEN / 4;
/// Fours of bytes of a chunk's scales.
const SCALE_QUADS: usize = SCALE_BYTES / 4;

pub(super) fn product<Q: Quantised>(cpu: &Cpu, product: operands::Product, x: &mut Prepared) {
    let n_rows = x.x.n_rows();
    let form = Form::Bytes {
        block_len: Q::Family::X_BLOCK,
    };
    x.prepare(
        cpu,
        form,
        activation_size::<Q::Family>(x.x.cols),
        |x, row| {
            cpu.isa.run(Prepare {
                x,
                row,
                family: PhantomData::<Q::Family>,
            })
        },
    );
    let product = Product::new(product, &x.rows);
    if n_rows < ROWS_TO_TILE {
        product.for_each(cpu, STRIP, |strip| {
            cpu.isa.run(Direct {
                product: &product,
                strip,
                format: PhantomData::<Q>,
            });
        });
    } else {
        product.for_each(cpu, TILE, |rows| {
            cpu.isa.run(Tiled {
                product: &product,
                rows,
                tile: &mut cpu.quantised_tiles.take(),
                format: PhantomData::<Q>,
            });
        });
    }
}

/// Quantises one row of activations.
struct Prepare<'a, F> {
    x: &'a [f32],
    row: RowMut<'a>,
    family: PhantomData<F>,
}

impl<F: Family> Kernel for Prepare<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        prepare::<F>(self.x, self.row);
    }
}

/// The bytes of a chunk of a row of the file; at a row's end with blocks of zeros for those that are missing, whose activations are zeros as well.
#[inline(always)]
fn chunk<'a, Q: Quantised>(row: &'a [u8], index: usize, padded: &'a mut Padded) -> &'a [u8] {
    let packed = &row[index * Q::CHUNK_BYTES..];
    if packed.len() >= Q::CHUNK_BYTES {
        &packed[..Q::CHUNK_BYTES]
    } else {
        pad(packed, padded);
        &padded[..Q::CHUNK_BYTES]
    }
}

/// Room for any type's chunk: Q8_0 has the largest.
const PADDED_BYTES: usize = CHUNK_LEN / 32 * (2 + 32);
type Padded = [u8; PADDED_BYTES];

#[cold]
#[inline(never)]
fn pad(packed: &[u8], padded: &mut Padded) {
    padded.fill(0);
    padded[..packed.len()].copy_from_slice(packed);
}

/// Multiplies a strip's rows as they lie in the file.
struct Direct<'a, 'out, Q> {
    product: &'a Product<'a, 'out>,
    strip: Range<usize>,
    format: PhantomData<Q>,
}

impl<Q: Quantised> Kernel for Direct<'_, '_, Q> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let x = self.product.x;
        let mut results = [[0.0; STRIP]; ROWS_TO_TILE];
        let rows: [Row; ROWS_TO_TILE] = std::array::from_fn(|r| x.row(r.min(x.n_rows() - 1)));
        match x.n_rows() {
            1 => self.rows::<S, 1>(simd, rows, &mut results),
            2 => self.rows::<S, 2>(simd, rows, &mut results),
            _ => self.rows::<S, 3>(simd, rows, &mut results),
        }
        self.product.write(0, self.strip, &results);
    }
}

impl<Q: Quantised> Direct<'_, '_, Q> {
    #[inline(always)]
    fn rows<S: Simd, const X: usize>(
        &self,
        simd: S,
        x: [Row; ROWS_TO_TILE],
        results: &mut [[f32; STRIP]; ROWS_TO_TILE],
    ) {
        let weight = &self.product.weight;
        let n_chunks = weight.row_len.div_ceil(CHUNK_LEN);
        let x: [XRow<Q::Family>; X] = std::array::from_fn(|r| XRow::new(x[r], n_chunks));
        let (mut unpacked, mut padded) = (Chunk::default(), [0; PADDED_BYTES]);
        for (w, row) in self.strip.clone().enumerate() {
            let mut chains = [[0.0; CHAINS]; X];
            let packed = weight.row(row);
            for index in 0..n_chunks {
                let packed = chunk::<Q>(packed, index, &mut padded);
                prefetch(simd, packed, PREFETCH_BYTES);
                Q::unpack(simd, packed, &mut unpacked);
                let place = place::<Q>(index);
                for r in 0..X {
                    Q::Family::multiply(simd, &unpacked, x[r].chunk(index), place, &mut chains[r]);
                }
            }
            for (results, chains) in results.iter_mut().zip(&chains) {
                results[w] = total(*chains);
            }
        }
    }
}

#[inline(always)]
fn place<Q: Quantised>(index: usize) -> Place {
    Place {
        index,
        offset: Q::OFFSET,
    }
}

/// Weight rows of a task, unpacked and interleaved.
#[derive(Debug, Default)]
pub(in crate::cpu) struct Tile {
    quads: Buffer<[u8; 4]>,
    scales: Buffer<[u8; 4]>,
    factors: Buffer<f32>,
}

impl Tile {
    /// Unpacks up to `S::LANES` weight rows.
    #[inline(always)]
    fn fill<Q: Quantised, S: Simd>(&mut self, simd: S, weight: &Matrix, rows: Range<usize>) {
        let n_chunks = weight.row_len.div_ceil(CHUNK_LEN);
        let quads = self.quads.at_least(n_chunks * QUADS * S::LANES);
        let scales = self.scales.at_least(n_chunks * SCALE_QUADS * S::LANES);
        let factors = self.factors.at_least(n_chunks * 2 * S::LANES);
        let next_tile = S::LANES * weight.row(rows.start).len();
        let (mut unpacked, mut padded) = ([Chunk::default(); TILE], [0; PADDED_BYTES]);
        for index in 0..n_chunks {
            let factors = part(factors, index, 2 * S::LANES);
            let (mut quad_rows, mut scale_rows) =
                ([&[0; CHUNK_LEN]; TILE], [&[0; SCALE_BYTES]; TILE]);
            for lane in 0..rows.len() {
                let packed = chunk::<Q>(weight.row(rows.start + lane), index, &mut padded);
                prefetch(simd, packed, next_tile);
                Q::unpack(simd, packed, &mut unpacked[lane]);
                let [first, second] = Q::Family::factors(&unpacked[lane].scales);
                factors[lane] = first;
                factors[S::LANES + lane] = second;
            }
            // Counted loops here and in the formats: chains of iterators are not always inlined into functions as large as these become.
            for lane in 0..rows.len() {
                quad_rows[lane] = &unpacked[lane].quants;
                scale_rows[lane] = Q::Family::scale_bytes(&unpacked[lane].scales);
            }
            let quads = part(quads, index, QUADS * S::LANES);
            simd.interleave(&quad_rows[..rows.len()], quads);
            let scales = part(scales, index, SCALE_QUADS * S::LANES);
            simd.interleave(&scale_rows[..rows.len()], scales);
        }
    }

    #[inline(always)]
    fn chunk<S: Simd>(&self, index: usize) -> TileChunk<'_> {
        let (quads, scales) = (QUADS * S::LANES, SCALE_QUADS * S::LANES);
        TileChunk {
            quads: &self.quads.as_slice()[index * quads..][..quads],
            scales: &self.scales.as_slice()[index * scales..][..scales],
            factors: &self.factors.as_slice()[index * 2 * S::LANES..][..2 * S::LANES],
        }
    }
}

/// Part number `index` of parts of one length.
#[inline(always)]
fn part<T>(all: &mut [T], index: usize, len: usize) -> &mut [T] {
    &mut all[index * len..][..len]
}

/// Unpacks up to [`TILE`] weight rows and multiplies them with all activations.
struct Tiled<'a, 'out, Q> {
    product: &'a Product<'a, 'out>,
    rows: Range<usize>,
    tile: &'a mut Tile,
    format: PhantomData<Q>,
}

impl<Q: Quantised> Kernel for Tiled<'_, '_, Q> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Product {
            weight, x, blocks, ..
        } = self.product;
        let end = self.rows.end;
        for lanes in self.rows.step_by(S::LANES) {
            self.tile
                .fill::<Q, S>(simd, weight, lanes..(lanes + S::LANES).min(end));
            let n_chunks = weight.row_len.div_ceil(CHUNK_LEN);
            for block in 0..blocks.len() {
                let x_rows = block * X_BLOCK..((block + 1) * X_BLOCK).min(x.n_rows());
                let mut results = [[0.0; TILE]; X_BLOCK];
                let mut row = x_rows.start;
                while row < x_rows.end {
                    let results = &mut results[row - x_rows.start..];
                    let group = |width: usize| x_rows.end - row >= width;
                    let job = Group {
                        tile: &*self.tile,
                        n_chunks,
                        x,
                        row,
                    };
                    row += if S::LANES >= 16 && group(8) {
                        job.multiply::<Q, S, 8>(simd, results)
                    } else if group(4) {
                        job.multiply::<Q, S, 4>(simd, results)
                    } else {
                        job.multiply::<Q, S, 1>(simd, results)
                    };
                }
                self.product
                    .write(block, lanes..(lanes + S::LANES).min(end), &results);
            }
        }
    }
}

/// A tile and the first of some rows of activations.
struct Group<'a> {
    tile: &'a Tile,
    n_chunks: usize,
    x: &'a Rows,
    row: usize,
}

impl Group<'_> {
    /// Multiplies the tile with `X` rows of activations. Returns `X`.
    #[inline(always)]
    fn multiply<Q: Quantised, S: Simd, const X: usize>(
        &self,
        simd: S,
        results: &mut [[f32; TILE]],
    ) -> usize {
        let rows: [XRow<Q::Family>; X] =
            std::array::from_fn(|r| XRow::new(self.x.row(self.row + r), self.n_chunks));
        let mut chains = [[simd.splat(0.0); X]; CHAINS];
        for index in 0..self.n_chunks {
            let x: [XChunk<Q::Family>; X] = std::array::from_fn(|r| rows[r].chunk(index));
            let tile = self.tile.chunk::<S>(index);
            Q::Family::multiply_tile(simd, tile, &x, place::<Q>(index), &mut chains);
        }
        for (r, results) in results.iter_mut().enumerate().take(X) {
            let mut lanes = S::partial(&[]);
            let chains = chains.each_ref().map(|chain| chain[r]);
            simd.store(total_lanes(simd, chains), &mut lanes);
            results[..S::LANES].copy_from_slice(lanes.as_ref());
        }
        X
    }
}
