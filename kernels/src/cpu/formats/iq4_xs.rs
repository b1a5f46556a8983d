//! IQ4_XS: 8 groups of 32 with signed scales of six bits, nibbles that stand for values of a table.

use super::blocks::{Chunk, Large, LargeScales, Quantised};
use super::{Simd, raised};
use crate::layout::iq4::{VALUES, xs_scales};

pub(crate) struct Iq4Xs;

impl Quantised for Iq4Xs {
    type Family = Large<true, false, 32>;

    const BLOCK_BYTES: usize = 2 + 2 + 4 + 128;

    #[inline(always)]
    fn unpack<S: Simd>(simd: S, packed: &[u8], chunk: &mut Chunk<LargeScales>) {
        const TABLE: [u8; 16] = raised(VALUES, 128);
        let block: &[u8; Self::BLOCK_BYTES] = packed.try_into().expect("one block");
        let (head, bytes) = block.split_first_chunk::<8>().expect("its beginning");
        let bytes: &[[u8; 16]; 8] =
            bytemuck::cast_ref(bytes.first_chunk::<128>().expect("its nibbles"));
        let quants: &mut [[u8; 32]; 8] = bytemuck::cast_mut(&mut chunk.quants);
        for g in 0..8 {
            simd.store_bytes(
                simd.look_up(&TABLE, simd.nibbles(&bytes[g])),
                &mut quants[g],
            );
        }
        let groups = simd.twice(xs_scales(head.last_chunk().expect("six bytes")));
        let scales = &mut chunk.scales;
        for g in 0..16 {
            scales.groups.scales[g] = groups[g] - 32;
            scales.groups.mins[g] = 128 * scales.groups.scales[g];
        }
        scales.scale = simd.f16([head[0], head[1]]);
    }
}
