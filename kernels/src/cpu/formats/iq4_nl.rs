//! IQ4_NL: blocks of an f16 scale and 16 bytes of nibbles that stand for values of a table.

use super::Simd;
use super::blocks::{Chunk, Quantised, Small, SmallScales, small_chunk};
use super::{nibbles, raised};
use crate::layout::iq4::VALUES;

pub(crate) struct Iq4Nl;

impl Quantised for Iq4Nl {
    type Family = Small<true, false>;

    const BLOCK_BYTES: usize = 2 + 16;
    const OFFSET: i32 = 128;

    #[inline(always)]
    fn unpack<S: Simd>(simd: S, packed: &[u8], chunk: &mut Chunk<SmallScales>) {
        const TABLE: [u8; 16] = raised(VALUES, 128);
        small_chunk::<{ Self::BLOCK_BYTES }>(packed, chunk, |block, quants| {
            nibbles(block, quants);
            *quants = simd.look_up(&TABLE, quants);
            (simd.f16([block[0], block[1]]), 0.0)
        });
    }
}
