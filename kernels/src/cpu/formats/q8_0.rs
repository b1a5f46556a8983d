//! Q8_0: blocks of an f16 scale and 32 signed bytes.

use super::Simd;
use super::blocks::{Chunk, Quantised, Small, SmallScales, small_chunk};

pub(crate) struct Q8_0;

impl Quantised for Q8_0 {
    type Family = Small<true, false>;

    const BLOCK_BYTES: usize = 2 + 32;
    const OFFSET: i32 = 128;

    #[inline(always)]
    fn unpack<S: Simd>(simd: S, packed: &[u8], chunk: &mut Chunk<SmallScales>) {
        small_chunk::<{ Self::BLOCK_BYTES }>(packed, chunk, |block, quants| {
            for (quant, &byte) in quants.iter_mut().zip(&block[2..]) {
                // A signed byte plus 128.
                *quant = byte ^ 0x80;
            }
            (simd.f16([block[0], block[1]]), 0.0)
        });
    }
}
