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
        let nibbles: &[[u8; 32]; 4] = bytemuck::cast_ref(nibbles);
        let highs: &[[u8; 32]; 2] = bytemuck::cast_ref(highs);
        let quants: &mut [[u8; 32]; 8] = bytemuck::cast_mut(&mut chunk.quants);
        for half in 0..2 {
            let a = simd.load_bytes(&nibbles[2 * half]);
            let b = simd.load_bytes(&nibbles[2 * half + 1]);
            let high = simd.load_bytes(&highs[half]);
            let first = simd.or(simd.field(a, 0, 0x0f, 0), simd.field(high, 0, 0x03, 4));
            let second = simd.or(simd.field(b, 0, 0x0f, 0), simd.field(high, 0, 0x0c, 2));
            let third = simd.or(simd.field(a, 4, 0x0f, 0), simd.field(high, 0, 0x30, 0));
            let fourth = simd.or(simd.field(b, 4, 0x0f, 0), simd.field(high, 2, 0x30, 0));
            simd.store_bytes(first, &mut quants[4 * half]);
            simd.store_bytes(second, &mut quants[4 * half + 1]);
            simd.store_bytes(third, &mut quants[4 * half + 2]);
            simd.store_bytes(fourth, &mut quants[4 * half + 3]);
        }
        let scales = &mut chunk.scales;
        for g in 0..16 {
            scales.groups.scales[g] = i16::from(groups[g].cast_signed());
            scales.groups.mins[g] = 32 * scales.groups.scales[g];
        }
        scales.scale = simd.f16([block[208], block[209]]);
    }
}
