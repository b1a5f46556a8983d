//! Blocks of 32 with a scale, and maybe a minimum, in floating point.

use bytemuck::{Pod, Zeroable};

use super::{CHAINS, Chunk, Family, Place, SCALE_BYTES, TileChunk, XChunk};
use crate::cpu::simd::{CHUNK_LEN, Simd};

/// Elements of a block.
const BLOCK_LEN: usize = 32;
/// Blocks of a chunk: each belongs to a chain of its own.
const BLOCKS: usize = CHUNK_LEN / BLOCK_LEN;
const _: () = assert!(BLOCKS == CHAINS, "chunks and chains go in step");

/// `WIDE`: bytes above 127 occur. `MINS`: element = scale · quant + minimum; without, element = scale · (byte - offset).
#[derive(Debug)]
pub(crate) struct Small<const WIDE: bool, const MINS: bool>;

/// Of each block.
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct SmallScales {
    pub(crate) scales: [f32; BLOCKS],
    pub(crate) mins: [f32; BLOCKS],
}

/// The blocks of a chunk.
#[inline(always)]
pub(crate) fn eight_blocks<const BYTES: usize>(packed: &[u8]) -> &[[u8; BYTES]; BLOCKS] {
    let blocks: &[[u8; BYTES]] = packed.as_chunks().0;
    blocks.try_into().expect("a whole chunk")
}

/// The f16 numbers with which blocks begin: scales, and where there are some minima.
#[inline(always)]
pub(crate) fn f16_scales<S: Simd, const BYTES: usize, const MINS: bool>(
    simd: S,
    blocks: &[[u8; BYTES]; BLOCKS],
) -> SmallScales {
    let mut scales = SmallScales {
        scales: simd.f16s(numbers_at(blocks, 0)),
        mins: [0.0; BLOCKS],
    };
    if MINS {
        scales.mins = simd.f16s(numbers_at(blocks, 2));
    }
    scales
}

/// Two bytes of each block. They are put together in two words: a vector that is loaded from eight short stores would wait for all of them to reach the cache.
#[inline(always)]
fn numbers_at<const BYTES: usize>(blocks: &[[u8; BYTES]; BLOCKS], at: usize) -> [[u8; 2]; BLOCKS] {
    let mut words = [0_u64; 2];
    for b in 0..BLOCKS {
        let number = u16::from_le_bytes([blocks[b][at], blocks[b][at + 1]]);
        words[b / 4] |= u64::from(number) << (16 * (b % 4));
    }
    bytemuck::cast(words.map(u64::to_le_bytes))
}

impl<const WIDE: bool, const MINS: bool> Family for Small<WIDE, MINS> {
    type Scales = SmallScales;

    const X_BLOCK: usize = BLOCK_LEN;
    const X_SUM: usize = BLOCK_LEN;

    type XScales = [f32; BLOCKS];
    type XSums = [i16; BLOCKS];

    #[inline(always)]
    fn multiply<S: Simd>(
        simd: S,
        w: &Chunk<SmallScales>,
        x: XChunk<'_, Self>,
        place: Place,
        chains: &mut [f32; CHAINS],
    ) {
        let dots = simd.dots_of_32::<WIDE>(&w.quants, x.quants);
        let (mut sums, mut offsets) = ([0; BLOCKS], [0; BLOCKS]);
        for b in 0..BLOCKS {
            offsets[b] = i32::from(x.sums[b]);
            sums[b] = dots[b] - place.offset * offsets[b];
        }
        simd.add_scaled(chains, [&w.scales.scales, x.scales], &sums);
        if MINS {
            simd.add_scaled(chains, [&w.scales.mins, x.scales], &offsets);
        }
    }

    #[inline(always)]
    fn scale_bytes(scales: &SmallScales) -> &[u8; SCALE_BYTES] {
        bytemuck::cast_ref(scales)
    }

    #[inline(always)]
    fn factors(_: &SmallScales) -> [f32; 2] {
        [0.0; 2]
    }

    #[inline(always)]
    fn multiply_tile<S: Simd, const X: usize>(
        simd: S,
        tile: TileChunk<'_>,
        x: &[XChunk<'_, Self>; X],
        place: Place,
        chains: &mut [[S::F32; X]; CHAINS],
    ) {
        let (quads, scales) = (S::chunks(tile.quads).0, S::chunks(tile.scales).0);
        for b in 0..BLOCKS {
            let mut dots = [simd.splat_i32(0); X];
            for q in b * BLOCK_LEN / 4..(b + 1) * BLOCK_LEN / 4 {
                let w = simd.load_quads(&quads[q]);
                for r in 0..X {
                    dots[r] = simd.dot_quads::<WIDE>(dots[r], w, x[r].quad(q));
                }
            }
            let scale = simd.load_f32(&scales[b]);
            for r in 0..X {
                let offset = simd.splat_i32(place.offset * i32::from(x[r].sums[b]));
                let scale = simd.mul(scale, simd.splat(x[r].scales[b]));
                let product = simd.mul(scale, simd.to_f32(simd.sub_i32(dots[r], offset)));
                chains[b][r] = simd.add(chains[b][r], product);
            }
            if MINS {
                let min = simd.load_f32(&scales[BLOCKS + b]);
                for r in 0..X {
                    let scale = simd.mul(min, simd.splat(x[r].scales[b]));
                    let product = simd.mul(scale, simd.splat(f32::from(x[r].sums[b])));
                    chains[b][r] = simd.add(chains[b][r], product);
                }
            }
        }
    }
}
