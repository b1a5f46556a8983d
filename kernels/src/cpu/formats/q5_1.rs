//! Q5_1: blocks of an f16 scale, an f16 minimum, a word of fifth bits and 16 bytes of nibbles.

use super::Simd;
use super::bits::last_16;
use super::blocks::{Chunk, Quantised, Small, SmallScales, eight_blocks, f16_scales};

pub(crate) struct Q5_1;

impl Quantised for Q5_1 {
    type Family = Small<false, true>;

    const BLOCK_BYTES: usize = 2 + 2 + 4 + 16;

    #[inline(always)]
    fn unpack<S: Simd>(simd: S, packed: &[u8], chunk: &mut Chunk<SmallScales>) {
        let blocks: &[[u8; Self::BLOCK_BYTES]; 8] = eight_blocks(packed);
        let quants: &mut [[u8; 32]; 8] = bytemuck::cast_mut(&mut chunk.quants);
        for b in 0..8 {
            let block = &blocks[b];
            simd.store_bytes(
                simd.or(
                    simd.nibbles(last_16(block)),
                    simd.bits([block[4], block[5], block[6], block[7]], 0x10),
                ),
                &mut quants[b],
            );
        }
        chunk.scales = f16_scales::<S, { Self::BLOCK_BYTES }, true>(simd, blocks);
    }
}
