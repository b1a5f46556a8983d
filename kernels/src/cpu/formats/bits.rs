//! Bits of several elements that share bytes. The compiler makes vectors of these loops.

use super::Simd;
use super::blocks::LargeScales;
use crate::cpu::simd::CHUNK_LEN;
use crate::layout::k_quants::scales_and_mins;

/// A table's values, made unsigned.
#[expect(
    clippy::cast_sign_loss,
    clippy::cast_possible_truncation,
    reason = "the sum is a byte for the tables that there are"
)]
pub(crate) const fn raised(values: [i8; 16], by: i16) -> [u8; 16] {
    let mut raised = [0; 16];
    let mut i = 0;
    while i < 16 {
        raised[i] = (values[i] as i16 + by) as u8;
        i += 1;
    }
    raised
}

/// The nibbles of a block's last 16 bytes: the low ones, then the high ones.
#[inline(always)]
pub(crate) fn nibbles<const BYTES: usize>(block: &[u8; BYTES], quants: &mut [u8; 32]) {
    let bytes: &[u8; 16] = block.last_chunk().expect("a block ends with its nibbles");
    let (low, high) = quants.split_at_mut(16);
    for ((low, high), &byte) in low.iter_mut().zip(high).zip(bytes) {
        (*low, *high) = (byte & 0x0f, byte >> 4);
    }
}

/// Bit `i` of a word as the fifth bit of element `i`.
#[inline(always)]
pub(crate) fn fifth_bits(word: [u8; 4], quants: &mut [u8; 32]) {
    for (eight, bits) in quants.as_chunks_mut::<8>().0.iter_mut().zip(word) {
        // Bit i of the byte to byte i: the product copies the byte eight times, the mask keeps one bit of each copy, and adding to it all ones below the top carries any bit to the top.
        let chosen = (u64::from(bits) * 0x0101_0101_0101_0101) & 0x8040_2010_0804_0201;
        let tops = (chosen + 0x007f_7f7f_7f7f_7f7f) & 0x8080_8080_8080_8080;
        for (quant, top) in eight.iter_mut().zip(tops.to_le_bytes()) {
            *quant |= top >> 3;
        }
    }
}

/// Two bits per element: each 32 bytes hold 128 elements, the first 32 in the lowest bits.
#[inline(always)]
pub(crate) fn two_bits(packed: &[u8; 64], quants: &mut [u8; CHUNK_LEN]) {
    let halves = quants.as_chunks_mut::<128>().0.iter_mut();
    for (half, packed) in halves.zip(packed.as_chunks::<32>().0) {
        for (shift, quants) in half.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            for (quant, &byte) in quants.iter_mut().zip(packed) {
                *quant = (byte >> (2 * shift)) & 3;
            }
        }
    }
}

/// Four bits per element: each 32 bytes hold 64 elements, the first 32 in the low nibbles.
#[inline(always)]
pub(crate) fn four_bits(packed: &[u8; 128], quants: &mut [u8; CHUNK_LEN]) {
    let stretches = quants.as_chunks_mut::<64>().0.iter_mut();
    for (stretch, packed) in stretches.zip(packed.as_chunks::<32>().0) {
        let (low, high) = stretch.split_at_mut(32);
        for ((low, high), &byte) in low.iter_mut().zip(high).zip(packed) {
            (*low, *high) = (byte & 0x0f, byte >> 4);
        }
    }
}

/// One more bit per element, as bit number `TO`: bit `b` of byte `i` belongs to element `32 b + i`.
#[inline(always)]
pub(crate) fn add_bits<const TO: usize>(packed: &[u8; 32], quants: &mut [u8; CHUNK_LEN]) {
    for (bit, quants) in quants.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        for (quant, &byte) in quants.iter_mut().zip(packed) {
            *quant |= ((byte >> bit) & 1) << TO;
        }
    }
}

/// Scale, minimum and the twelve bytes of group scales and minima with which Q4_K and Q5_K begin.
#[inline(always)]
pub(crate) fn six_bit_scales<S: Simd>(simd: S, head: &[u8; 16], scales: &mut LargeScales) {
    let (groups, mins) = scales_and_mins(head.last_chunk().expect("twelve bytes"));
    scales.groups = std::array::from_fn(|half| i16::from(groups[half / 2]));
    scales.mins = std::array::from_fn(|half| i16::from(mins[half / 2]));
    scales.scale = simd.f16([head[0], head[1]]);
    scales.min = simd.f16([head[2], head[3]]);
}
