//! Q2_K: 16 groups of 16 with scales and minima of four bits, two bits per element.

use super::blocks::{Chunk, Large, LargeScales, Quantised};
use super::{Simd, two_bits};

pub(crate) struct Q2K;

impl Quantised for Q2K {
    type Family = Large<false, true, 16>;

    const BLOCK_BYTES: usize = 16 + 64 + 2 + 2;

    #[inline(always)]
    fn unpack<S: Simd>(simd: S, packed: &[u8], chunk: &mut Chunk<LargeScales>) {
        let block: &[u8; Self::BLOCK_BYTES] = packed.try_into().expect("one block");
        let (groups, quants) = block.split_first_chunk::<16>().expect("its beginning");
        two_bits(
            simd,
            quants.first_chunk().expect("its middle"),
            &mut chunk.quants,
        );
        let scales = &mut chunk.scales;
        for g in 0..16 {
            scales.groups.scales[g] = i16::from(groups[g] & 0x0f);
            scales.groups.mins[g] = i16::from(groups[g] >> 4);
        }
        scales.scale = simd.f16([block[80], block[81]]);
        scales.min = simd.f16([block[82], block[83]]);
    }
}
