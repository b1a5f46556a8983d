//! Q4_0: blocks of an f16 scale and 16 bytes of nibbles, 8 too large.

use super::Simd;
use super::bits::last_16;
use super::blocks::{Chunk, Quantised, Small, SmallScales, f16_scales, small_chunk};

pub(crate) struct Q4_0;

impl Quantised for Q4_0 {
    type Family = Small<false, false>;

    const BLOCK_BYTES: usize = 2 + 16;
    const OFFSET: i32 = 8;

    #[inline(always)]
    fn unpack<S: Simd>(simd: S, packed: &[u8], chunk: &mut Chunk<SmallScales>) {
        small_chunk::<S, { Self::BLOCK_BYTES }>(
            simd,
            packed,
            chunk,
            |block| simd.nibbles(last_16(block)),
            |blocks| f16_scales::<S, { Self::BLOCK_BYTES }, false>(simd, blocks),
        );
    }
}
