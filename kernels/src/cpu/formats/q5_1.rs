//! Q5_1: blocks of an f16 scale, an f16 minimum, a word of fifth bits and 16 bytes of nibbles.

use super::Simd;
use super::blocks::{Chunk, Quantised, Small, SmallScales, small_chunk};
use super::{fifth_bits, nibbles};

pub(crate) struct Q5_1;

impl Quantised for Q5_1 {
    type Family = Small<false, true>;

    const BLOCK_BYTES: usize = 2 + 2 + 4 + 16;

    #[inline(always)]
    fn unpack<S: Simd>(simd: S, packed: &[u8], chunk: &mut Chunk<SmallScales>) {
        small_chunk::<{ Self::BLOCK_BYTES }>(packed, chunk, |block, quants| {
            nibbles(block, quants);
            fifth_bits([block[4], block[5], block[6], block[7]], quants);
            (
                simd.f16([block[0], block[1]]),
                simd.f16([block[2], block[3]]),
            )
        });
    }
}
