//! MXFP4: blocks of a power of two and 16 bytes of nibbles that stand for four-bit floats.

use super::Simd;
use super::bits::{last_16, raised};
use super::blocks::{Chunk, Quantised, Small, SmallScales, eight_blocks};
use crate::layout::mxfp4::{DOUBLES, half_scale};

pub(crate) struct Mxfp4;

impl Quantised for Mxfp4 {
    type Family = Small<false, false>;

    const BLOCK_BYTES: usize = 1 + 16;
    const OFFSET: i32 = 12;

    #[inline(always)]
    fn unpack<S: Simd>(simd: S, packed: &[u8], chunk: &mut Chunk<SmallScales>) {
        const TABLE: [u8; 16] = raised(DOUBLES, 12);
        let blocks: &[[u8; Self::BLOCK_BYTES]; 8] = eight_blocks(packed);
        let quants: &mut [[u8; 32]; 8] = bytemuck::cast_mut(&mut chunk.quants);
        for b in 0..8 {
            let block = &blocks[b];
            simd.store_bytes(
                simd.look_up(&TABLE, simd.nibbles(last_16(block))),
                &mut quants[b],
            );
        }
        for b in 0..8 {
            chunk.scales.scales[b] = half_scale(blocks[b][0]);
        }
    }
}
