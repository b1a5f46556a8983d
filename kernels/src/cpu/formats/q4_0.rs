//! Q4_0: blocks of an f16 scale and 16 bytes of nibbles, 8 too large.

use super::Simd;
use super::blocks::{Chunk, Quantised, Small, SmallScales, small_chunk};
use super::nibbles;

pub(crate) struct Q4_0;

impl Quantised for Q4_0 {
    type Family = Small<false, false>;

    const BLOCK_BYTES: usize = 2 + 16;
    const OFFSET: i32 = 8;

    #[inline(always)]
    fn unpack<S: Simd>(simd: S, packed: &[u8], chunk: &mut Chunk<SmallScales>) {
        small_chunk::<{ Self::BLOCK_BYTES }>(packed, chunk, |block, quants| {
            nibbles(block, quants);
            (simd.f16([block[0], block[1]]), 0.0)
        });
    }
}
