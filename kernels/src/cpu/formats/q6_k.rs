//! Q6_K: 16 groups of 16 with signed scales of eight bits, six bits per element, 32 too large.

use super::Simd;
use super::blocks::{Chunk, Large, LargeScales, Quantised};

pub(crate) struct Q6K;

impl Quantised for Q6K {
    type Family = Large<false, false, 16>;

    const BLOCK_BYTES: usize = 128 + 64 + 16 + 2;

    #[inline(always)]
    fn unpack<S: Simd>(simd: S, packed: &[u8], chunk: &mut Chunk<LargeScales>) {
        let block: &[u8; Self::BLOCK_BYTES] = packed.try_into().expect("one block");
        let (nibbles, rest) = block.split_first_chunk::<128>().expect("its nibbles");
        let (highs, rest) = rest.split_first_chunk::<64>().expect("its high bits");
        let (groups, _) = rest.split_first_chunk::<16>().expect("its scales");
        let halves = chunk.quants.as_chunks_mut::<128>().0.iter_mut();
        let sources = nibbles
            .as_chunks::<64>()
            .0
            .iter()
            .zip(highs.as_chunks::<32>().0);
        for (half, (nibbles, highs)) in halves.zip(sources) {
            let [first, second]: &[[u8; 32]; 2] = bytemuck::cast_ref(nibbles);
            let (a, b) = (simd.load_bytes(first), simd.load_bytes(second));
            let high = simd.load_bytes(highs);
            let quarters = [
                (simd.field(a, 0, 0x0f, 0), simd.field(high, 0, 0x03, 4)),
                (simd.field(b, 0, 0x0f, 0), simd.field(high, 0, 0x0c, 2)),
                (simd.field(a, 4, 0x0f, 0), simd.field(high, 0, 0x30, 0)),
                (simd.field(b, 4, 0x0f, 0), simd.field(high, 2, 0x30, 0)),
            ];
            for (quants, (low, high)) in half.as_chunks_mut().0.iter_mut().zip(quarters) {
                simd.store_bytes(simd.or(low, high), quants);
            }
        }
        let scales = &mut chunk.scales;
        scales.groups = groups.map(|scale| i16::from(scale.cast_signed()));
        scales.mins = scales.groups.map(|scale| 32 * scale);
        scales.scale = simd.f16([block[208], block[209]]);
    }
}
