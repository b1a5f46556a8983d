//! MXFP4: blocks of a power of two and 16 bytes of nibbles that stand for four-bit floats.

use super::Simd;
use super::blocks::{Chunk, Quantised, Small, SmallScales, small_chunk};
use super::{nibbles, raised};
use crate::layout::mxfp4::{DOUBLES, half_scale};

pub(crate) struct Mxfp4;

impl Quantised for Mxfp4 {
    type Family = Small<false, false>;

    const BLOCK_BYTES: usize = 1 + 16;
    const OFFSET: i32 = 12;

    #[inline(always)]
    fn unpack<S: Simd>(simd: S, packed: &[u8], chunk: &mut Chunk<SmallScales>) {
        const TABLE: [u8; 16] = raised(DOUBLES, 12);
        small_chunk::<{ Self::BLOCK_BYTES }>(packed, chunk, |block, quants| {
            nibbles(block, quants);
            *quants = simd.look_up(&TABLE, quants);
            (half_scale(block[0]), 0.0)
        });
    }
}
