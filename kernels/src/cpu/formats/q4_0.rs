//! Q4_0: blocks of an f16 scale and 16 bytes of nibbles, 8 too large.

use super::Simd;
use super::bits::last_16;
use super::blocks::{Chunk, Quantised, Small, SmallScales, eight_blocks, f16_scales};

pub(crate) struct Q4_0;

impl Quantised for Q4_0 {
    type Family = Small<false, false>;

    const BLOCK_BYTES: usize = 2 + 16;
    const OFFSET: i32 = 8;

    #[inline(always)]
    fn unpack<S: Simd>(simd: S, packed: &[u8], chunk: &mut Chunk<SmallScales>) {
        let blocks: &[[u8; Self::BLOCK_BYTES]; 8] = eight_blocks(packed);
        let quants: &mut [[[u8; 32]; 2]; 4] = bytemuck::cast_mut(&mut chunk.quants);
        for pair in 0..4 {
            let nibbles = [last_16(&blocks[2 * pair]), last_16(&blocks[2 * pair + 1])];
            simd.store_nibbles(nibbles, &mut quants[pair]);
        }
        chunk.scales = f16_scales::<S, { Self::BLOCK_BYTES }, false>(simd, blocks);
    }
}
