//! Q5_0: blocks of an f16 scale, a word of fifth bits and 16 bytes of nibbles, 16 too large.

use super::Simd;
use super::blocks::{Chunk, Quantised, Small, SmallScales, small_chunk};
use super::{fifth_bits, nibbles};

pub(crate) struct Q5_0;

impl Quantised for Q5_0 {
    type Family = Small<false, false>;

    const BLOCK_BYTES: usize = 2 + 4 + 16;
    const OFFSET: i32 = 16;

    #[inline(always)]
    fn unpack<S: Simd>(simd: S, packed: &[u8], chunk: &mut Chunk<SmallScales>) {
        small_chunk::<{ Self::BLOCK_BYTES }>(packed, chunk, |block, quants| {
            nibbles(block, quants);
            fifth_bits([block[2], block[3], block[4], block[5]], quants);
            (simd.f16([block[0], block[1]]), 0.0)
        });
    }
}
