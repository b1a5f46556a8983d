//! IQ4_XS: 8 groups of 32 with signed scales of six bits, nibbles that stand for values of a table.

use super::blocks::{Chunk, Large, LargeScales, Quantised};
use super::{Simd, raised};
use crate::layout::iq4::{VALUES, xs_scales};

pub(crate) struct Iq4Xs;

impl Quantised for Iq4Xs {
    type Family = Large<true, false, 32>;

    const BLOCK_BYTES: usize = 2 + 2 + 4 + 128;

    #[inline(always)]
    fn unpack<S: Simd>(simd: S, packed: &[u8], chunk: &mut Chunk<LargeScales>) {
        const TABLE: [u8; 16] = raised(VALUES, 128);
        let block: &[u8; Self::BLOCK_BYTES] = packed.try_into().expect("one block");
        let (head, bytes) = block.split_first_chunk::<8>().expect("its beginning");
        for (bytes, quants) in bytes
            .as_chunks::<16>()
            .0
            .iter()
            .zip(chunk.quants.as_chunks_mut().0)
        {
            simd.store_bytes(simd.look_up(&TABLE, simd.nibbles(bytes)), quants);
        }
        let groups = xs_scales(head.last_chunk().expect("six bytes"));
        let scales = &mut chunk.scales;
        scales.groups = std::array::from_fn(|half| i16::from(groups[half / 2]));
        scales.mins = scales.groups.map(|scale| 128 * scale);
        scales.scale = simd.f16([head[0], head[1]]);
    }
}
