//! Q5_1: blocks of an f16 scale, an f16 minimum, a word of fifth bits and 16 bytes of nibbles.

use super::Simd;
use super::bits::last_16;
use super::blocks::{Chunk, Quantised, Small, SmallScales, f16_scales, small_chunk};

pub(crate) struct Q5_1;

impl Quantised for Q5_1 {
    type Family = Small<false, true>;

    const BLOCK_BYTES: usize = 2 + 2 + 4 + 16;

    #[inline(always)]
    fn unpack<S: Simd>(simd: S, packed: &[u8], chunk: &mut Chunk<SmallScales>) {
        small_chunk::<S, { Self::BLOCK_BYTES }>(
            simd,
            packed,
            chunk,
            |block| {
                let fifths = [block[4], block[5], block[6], block[7]];
                simd.or(simd.nibbles(last_16(block)), simd.bits(fifths, 0x10))
            },
            |blocks| f16_scales::<S, { Self::BLOCK_BYTES }, true>(simd, blocks),
        );
    }
}
