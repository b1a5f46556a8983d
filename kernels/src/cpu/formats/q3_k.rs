//! Q3_K: 16 groups of 16 with signed scales of six bits, three bits per element, 4 too large.

use super::blocks::{Chunk, Large, LargeScales, Quantised};
use super::{Simd, add_bits, two_bits};
use crate::layout::k_quants::q3_k_scales;

pub(crate) struct Q3K;

impl Quantised for Q3K {
    type Family = Large<false, false, 16>;

    const BLOCK_BYTES: usize = 32 + 64 + 12 + 2;

    #[inline(always)]
    fn unpack<S: Simd>(simd: S, packed: &[u8], chunk: &mut Chunk<LargeScales>) {
        let block: &[u8; Self::BLOCK_BYTES] = packed.try_into().expect("one block");
        let (thirds, rest) = block.split_first_chunk::<32>().expect("its beginning");
        let (quants, rest) = rest.split_first_chunk::<64>().expect("its middle");
        two_bits(simd, quants, &mut chunk.quants);
        add_bits(simd, thirds, 2, &mut chunk.quants);
        let scales = &mut chunk.scales;
        let groups = q3_k_scales(rest.first_chunk().expect("its scales"));
        for g in 0..16 {
            scales.groups.scales[g] = i16::from(groups[g]);
            scales.groups.mins[g] = 4 * scales.groups.scales[g];
        }
        scales.scale = simd.f16([block[108], block[109]]);
    }
}
