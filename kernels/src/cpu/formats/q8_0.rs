//! Q8_0: blocks of an f16 scale and 32 signed bytes.

use super::Simd;
use super::blocks::{Chunk, Quantised, Small, SmallScales, eight_blocks, f16_scales};

pub(crate) struct Q8_0;

impl Quantised for Q8_0 {
    type Family = Small<true, false>;

    const BLOCK_BYTES: usize = 2 + 32;
    const OFFSET: i32 = 128;

    #[inline(always)]
    fn unpack<S: Simd>(simd: S, packed: &[u8], chunk: &mut Chunk<SmallScales>) {
        let blocks: &[[u8; Self::BLOCK_BYTES]; 8] = eight_blocks(packed);
        let quants: &mut [[u8; 32]; 8] = bytemuck::cast_mut(&mut chunk.quants);
        for b in 0..8 {
            let block = &blocks[b];
            // A signed byte plus 128.
            simd.store_bytes(
                simd.xor(
                    simd.load_bytes(block.last_chunk().expect("a block ends with its bytes")),
                    0x80,
                ),
                &mut quants[b],
            );
        }
        chunk.scales = f16_scales::<S, { Self::BLOCK_BYTES }, false>(simd, blocks);
    }
}
