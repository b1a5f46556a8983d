//! MXFP4: blocks of a power of two and 16 bytes of nibbles that stand for four-bit floats.

use super::Simd;
use super::bits::{last_16, raised};
use super::blocks::{Chunk, Quantised, Small, SmallScales, small_chunk};
use crate::layout::mxfp4::{DOUBLES, half_scale};

pub(crate) struct Mxfp4;

impl Quantised for Mxfp4 {
    type Family = Small<false, false>;

    const BLOCK_BYTES: usize = 1 + 16;
    const OFFSET: i32 = 12;

    #[inline(always)]
    fn unpack<S: Simd>(simd: S, packed: &[u8], chunk: &mut Chunk<SmallScales>) {
        const TABLE: [u8; 16] = raised(DOUBLES, 12);
        small_chunk::<S, { Self::BLOCK_BYTES }>(
            simd,
            packed,
            chunk,
            |block| simd.look_up(&TABLE, simd.nibbles(last_16(block))),
            |blocks| SmallScales {
                scales: blocks.map(|block| half_scale(block[0])),
                ..SmallScales::default()
            },
        );
    }
}
