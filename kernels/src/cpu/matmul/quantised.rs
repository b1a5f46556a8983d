//! Products with quantised types.
//!
//! A tile is [`TILE`] weight rows, each row a lane: a four of neighbouring bytes of every row makes a vector, which meets the same four activations of several rows. So a vector's lanes are
//! finished sums of different outputs, and nothing is added across lanes.

use std::marker::PhantomData;

use super::{Form, Prepared, Product, TILE, X_BLOCK};
use crate::buffer::Buffer;
use crate::cpu::Cpu;
use crate::cpu::formats::Quantised;
use crate::cpu::formats::blocks::{
    CHAINS, Chunk, Family, Place, TileChunk, TileLane, XChunk, activation_size, prepare, total,
    total_lanes, x_chunk,
};
use crate::cpu::rows::{Row, RowMut, Rows};
use crate::cpu::simd::{CHUNK_LEN, Kernel, Simd};
use crate::operands::{self, Matrix};

/// With fewer rows of activations, a tile does not pay.
const ROWS_TO_TILE: usize = 4;
/// Fours of bytes in a chunk.
const QUADS: usize = CHUNK_LEN / 4;

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
    product.for_each_tile(cpu, |first| {
        if n_rows < ROWS_TO_TILE {
            cpu.isa.run(Direct {
                product: &product,
                first,
                format: PhantomData::<Q>,
            });
        } else {
            cpu.isa.run(Tiled {
                product: &product,
                first,
                tile: &mut cpu.quantised_tiles.take(),
                format: PhantomData::<Q>,
            });
        }
    });
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

/// The bytes of each chunk of a row of the file.
#[inline(always)]
fn chunks<Q: Quantised>(row: &[u8], block_len: usize) -> std::slice::Chunks<'_, u8> {
    row.chunks(CHUNK_LEN / block_len * Q::BLOCK_BYTES)
}

/// Multiplies a tile's rows as they lie in the file.
struct Direct<'a, 'out, Q> {
    product: &'a Product<'a, 'out>,
    /// First weight row of the tile.
    first: usize,
    format: PhantomData<Q>,
}

impl<Q: Quantised> Kernel for Direct<'_, '_, Q> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let x = self.product.x;
        let mut results = [[0.0; TILE]; ROWS_TO_TILE];
        let rows: [Row; ROWS_TO_TILE] = std::array::from_fn(|r| x.row(r.min(x.n_rows() - 1)));
        match x.n_rows() {
            1 => self.rows::<S, 1>(simd, rows, &mut results),
            2 => self.rows::<S, 2>(simd, rows, &mut results),
            _ => self.rows::<S, 3>(simd, rows, &mut results),
        }
        self.product
            .write(0, self.product.tile(self.first), &results);
    }
}

impl<Q: Quantised> Direct<'_, '_, Q> {
    #[inline(always)]
    fn rows<S: Simd, const X: usize>(
        &self,
        simd: S,
        x: [Row; ROWS_TO_TILE],
        results: &mut [[f32; TILE]; ROWS_TO_TILE],
    ) {
        let weight = &self.product.weight;
        let mut chunk = Chunk::default();
        for (w, row) in self.product.tile(self.first).enumerate() {
            let mut chains = [[0.0; CHAINS]; X];
            let packed = chunks::<Q>(weight.row(row), weight.tensor_type.block_len());
            for (index, packed) in packed.enumerate() {
                Q::unpack(simd, packed, &mut chunk);
                let place = place::<Q>(index);
                for r in 0..X {
                    let x = x_chunk::<Q::Family>(&x[r], index);
                    Q::Family::multiply(simd, &chunk, x, place, &mut chains[r]);
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
    ints: Buffer<i32>,
    pairs: Buffer<[i16; 2]>,
    floats: Buffer<f32>,
}

impl Tile {
    /// Unpacks up to `S::LANES` weight rows.
    #[inline(always)]
    fn fill<Q: Quantised, S: Simd>(
        &mut self,
        simd: S,
        weight: &Matrix,
        rows: std::ops::Range<usize>,
    ) {
        let size = Q::Family::TILE;
        let block_len = weight.tensor_type.block_len();
        let n_chunks = weight.row_len.div_ceil(CHUNK_LEN);
        let quads = self.quads.at_least(n_chunks * QUADS * S::LANES);
        let ints = self.ints.at_least(n_chunks * size.ints * S::LANES);
        let pairs = self.pairs.at_least(n_chunks * size.pairs * S::LANES);
        let floats = self.floats.at_least(n_chunks * size.floats * S::LANES);
        let mut chunk = Chunk::default();
        let chunk_bytes = CHUNK_LEN / block_len * Q::BLOCK_BYTES;
        for index in 0..n_chunks {
            let quads = part(quads, index, QUADS * S::LANES);
            let mut lane = TileLane {
                lane: 0,
                lanes: S::LANES,
                ints: part(ints, index, size.ints * S::LANES),
                pairs: part(pairs, index, size.pairs * S::LANES),
                floats: part(floats, index, size.floats * S::LANES),
            };
            for row in rows.clone() {
                let packed = &weight.row(row)[index * chunk_bytes..];
                let packed = &packed[..packed.len().min(chunk_bytes)];
                Q::unpack(simd, packed, &mut chunk);
                Q::Family::interleave(&chunk.scales, &mut lane);
                let bytes: &[[u8; 4]; QUADS] = bytemuck::cast_ref(&chunk.quants);
                // Counted loops here and in the formats: chains of iterators are not always inlined into functions as large as these become.
                for q in 0..QUADS {
                    quads[q * S::LANES + lane.lane] = bytes[q];
                }
                lane.lane += 1;
            }
        }
    }

    #[inline(always)]
    fn chunk<F: Family, S: Simd>(&self, index: usize) -> TileChunk<'_> {
        let size = F::TILE;
        TileChunk {
            quads: &self.quads.as_slice()[index * QUADS * S::LANES..][..QUADS * S::LANES],
            ints: &self.ints.as_slice()[index * size.ints * S::LANES..][..size.ints * S::LANES],
            pairs: &self.pairs.as_slice()[index * size.pairs * S::LANES..][..size.pairs * S::LANES],
            floats: &self.floats.as_slice()[index * size.floats * S::LANES..]
                [..size.floats * S::LANES],
        }
    }
}

/// Part number `index` of parts of one length.
#[inline(always)]
fn part<T>(all: &mut [T], index: usize, len: usize) -> &mut [T] {
    &mut all[index * len..][..len]
}

/// Unpacks a tile's rows and multiplies them with all activations.
struct Tiled<'a, 'out, Q> {
    product: &'a Product<'a, 'out>,
    /// First weight row of the tile.
    first: usize,
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
        let end = self.product.tile(self.first).end;
        for lanes in (self.first..end).step_by(S::LANES) {
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
        let rows: [Row; X] = std::array::from_fn(|r| self.x.row(self.row + r));
        let mut chains = [[simd.splat(0.0); X]; CHAINS];
        for index in 0..self.n_chunks {
            let x: [XChunk; X] = std::array::from_fn(|r| x_chunk::<Q::Family>(&rows[r], index));
            let tile = self.tile.chunk::<Q::Family, S>(index);
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
