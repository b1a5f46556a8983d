//! IQ4_NL: blocks of an f16 scale and 16 bytes of nibbles that stand for values of a table.

use super::Simd;
use super::bits::{last_16, raised};
use super::blocks::{Chunk, Quantised, Small, SmallScales, eight_blocks, f16_scales};
use crate::layout::iq4::VALUES;

pub(crate) struct Iq4Nl;

impl Quantised for Iq4Nl {
    type Family = Small<true, false>;

    const BLOCK_BYTES: usize = 2 + 16;
    const OFFSET: i32 = 128;

    #[inline(always)]
    fn unpack<S: Simd>(simd: S, packed: &[u8], chunk: &mut Chunk<SmallScales>) {
        const TABLE: [u8; 16] = raised(VALUES, 128);
        let blocks: &[[u8; Self::BLOCK_BYTES]; 8] = eight_blocks(packed);
        let quants: &mut [[u8; 32]; 8] = bytemuck::cast_mut(&mut chunk.quants);
        for b in 0..8 {
            let block = &blocks[b];
            simd.store_bytes(
                simd.look_up(&TABLE, simd.nibbles(last_16(block))),
                &mut quants[b],
            );
        }
        chunk.scales = f16_scales::<S, { Self::BLOCK_BYTES }, false>(simd, blocks);
    }
}
