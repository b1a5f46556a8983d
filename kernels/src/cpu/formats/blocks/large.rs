//! Blocks of 256 in groups with integer scales.

use bytemuck::{Pod, Zeroable};

use super::{CHAINS, Chunk, Family, Place, SCALE_BYTES, TileChunk, XChunk};
use crate::cpu::simd::{CHUNK_LEN, Simd};

/// Elements that share a scale and a minimum in [`LargeScales`]; types with groups of 32 give each twice.
const GROUP_LEN: usize = 16;
const GROUPS: usize = CHUNK_LEN / GROUP_LEN;
const QUADS: usize = CHUNK_LEN / 4;

/// `WIDE`: bytes above 127 occur. `MINS`: minima have a factor of their own; without, they are what the bytes are too large by, and share the scale. `GROUP`: elements that share a group's scale.
///
/// Integers stay below 2^31: with |x| <= 127 the worst is Q6_K, 256 · 63 · 127 · 128 = 2.6e8 less as much again for the minima.
#[derive(Debug)]
pub(crate) struct Large<const WIDE: bool, const MINS: bool, const GROUP: usize>;

/// Integers of each group.
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct GroupScales {
    pub(crate) scales: [i16; GROUPS],
    pub(crate) mins: [i16; GROUPS],
}

/// Element = scale · group scale · byte - (minimum's factor) · group minimum.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LargeScales {
    pub(crate) groups: GroupScales,
    pub(crate) scale: f32,
    /// Factor of the minima; not looked at where they share the scale.
    pub(crate) min: f32,
}

impl<const WIDE: bool, const MINS: bool, const GROUP: usize> Family for Large<WIDE, MINS, GROUP> {
    type Scales = LargeScales;

    const X_BLOCK: usize = CHUNK_LEN;
    const X_SUM: usize = GROUP_LEN;

    type XScales = f32;
    type XSums = [i16; GROUPS];

    #[inline(always)]
    fn multiply<S: Simd>(
        simd: S,
        w: &Chunk<LargeScales>,
        x: XChunk<'_, Self>,
        place: Place,
        chains: &mut [f32; CHAINS],
    ) {
        let sum = simd.scaled_dots_of_16::<WIDE>(&w.quants, x.quants, &w.scales.groups.scales);
        let mut mins = 0;
        for g in 0..GROUPS {
            mins += i32::from(w.scales.groups.mins[g]) * i32::from(x.sums[g]);
        }
        let chain = &mut chains[place.index % CHAINS];
        let x_scale = *x.scales;
        if MINS {
            *chain += (w.scales.scale * x_scale) * sum as f32;
            *chain -= (w.scales.min * x_scale) * mins as f32;
        } else {
            *chain += (w.scales.scale * x_scale) * (sum - mins) as f32;
        }
    }

    #[inline(always)]
    fn scale_bytes(scales: &LargeScales) -> &[u8; SCALE_BYTES] {
        bytemuck::cast_ref(&scales.groups)
    }

    #[inline(always)]
    fn factors(scales: &LargeScales) -> [f32; 2] {
        [scales.scale, scales.min]
    }

    #[inline(always)]
    fn multiply_tile<S: Simd, const X: usize>(
        simd: S,
        tile: TileChunk<'_>,
        x: &[XChunk<'_, Self>; X],
        place: Place,
        chains: &mut [[S::F32; X]; CHAINS],
    ) {
        let quads: &[S::Chunk<[u8; 4]>] = &S::chunks(tile.quads).0[..QUADS];
        let pairs: &[S::Chunk<[u8; 4]>] = &S::chunks(tile.scales).0[..GROUPS];
        let (groups, group_mins) = pairs.split_at(GROUPS / 2);
        let mut sums = [simd.splat_i32(0); X];
        for g in 0..CHUNK_LEN / GROUP {
            let mut dots = [simd.splat_i32(0); X];
            for q in g * GROUP / 4..(g + 1) * GROUP / 4 {
                let w = simd.load_quads(&quads[q]);
                for r in 0..X {
                    dots[r] = simd.dot_quads::<WIDE>(dots[r], w, x[r].quad(q));
                }
            }
            let pair = simd.load_quads(&groups[g * GROUP / (2 * GROUP_LEN)]);
            let scale = if (g * GROUP / GROUP_LEN).is_multiple_of(2) {
                simd.half::<false>(pair)
            } else {
                simd.half::<true>(pair)
            };
            for r in 0..X {
                sums[r] = simd.add_i32(sums[r], simd.mul_i32(dots[r], scale));
            }
        }
        let mut mins = [simd.splat_i32(0); X];
        for p in 0..GROUPS / 2 {
            let pair = simd.load_quads(&group_mins[p]);
            for r in 0..X {
                let x_sums = [x[r].sums[2 * p], x[r].sums[2 * p + 1]];
                mins[r] = simd.dot_pairs(mins[r], pair, x_sums);
            }
        }
        let factors = S::chunks(tile.factors).0;
        let scale = simd.load(&factors[0]);
        let chains = &mut chains[place.index % CHAINS];
        for r in 0..X {
            let x_scale = simd.splat(*x[r].scales);
            let scale = simd.mul(scale, x_scale);
            if MINS {
                chains[r] = simd.add(chains[r], simd.mul(scale, simd.to_f32(sums[r])));
                let factor = simd.mul(simd.load(&factors[1]), x_scale);
                chains[r] = simd.sub(chains[r], simd.mul(factor, simd.to_f32(mins[r])));
            } else {
                let product = simd.mul(scale, simd.to_f32(simd.sub_i32(sums[r], mins[r])));
                chains[r] = simd.add(chains[r], product);
            }
        }
    }
}
