//! Bits of several elements that share bytes.

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

/// The bytes with which a block ends.
#[inline(always)]
pub(crate) fn last_16<const BYTES: usize>(block: &[u8; BYTES]) -> &[u8; 16] {
    block.last_chunk().expect("a block ends with its nibbles")
}

/// Two bits per element: each 32 bytes hold 128 elements, the first 32 in the lowest bits.
#[inline(always)]
pub(crate) fn two_bits<S: Simd>(simd: S, packed: &[u8; 64], quants: &mut [u8; CHUNK_LEN]) {
    let packed: &[[u8; 32]; 2] = bytemuck::cast_ref(packed);
    let quants: &mut [[u8; 32]; 8] = bytemuck::cast_mut(quants);
    let shifts = [0, 2, 4, 6, 0, 2, 4, 6];
    for group in 0..8 {
        let bytes = simd.load_bytes(&packed[group / 4]);
        simd.store_bytes(simd.field(bytes, shifts[group], 3, 0), &mut quants[group]);
    }
}

/// Four bits per element: each 32 bytes hold 64 elements, the first 32 in the low nibbles.
#[inline(always)]
pub(crate) fn four_bits<S: Simd>(simd: S, packed: &[u8; 128], quants: &mut [u8; CHUNK_LEN]) {
    let packed: &[[u8; 32]; 4] = bytemuck::cast_ref(packed);
    let quants: &mut [[u8; 32]; 8] = bytemuck::cast_mut(quants);
    for i in 0..4 {
        let bytes = simd.load_bytes(&packed[i]);
        simd.store_bytes(simd.field(bytes, 0, 0x0f, 0), &mut quants[2 * i]);
        simd.store_bytes(simd.field(bytes, 4, 0x0f, 0), &mut quants[2 * i + 1]);
    }
}

/// One more bit per element, as bit number `to`: bit `b` of byte `i` belongs to element `32 b + i`.
#[inline(always)]
pub(crate) fn add_bits<S: Simd>(simd: S, packed: &[u8; 32], to: u32, quants: &mut [u8; CHUNK_LEN]) {
    let bytes = simd.load_bytes(packed);
    let quants: &mut [[u8; 32]; 8] = bytemuck::cast_mut(quants);
    for (bit, quants) in (0..8).zip(quants) {
        let added = simd.or(simd.load_bytes(quants), simd.field(bytes, bit, 1, to));
        simd.store_bytes(added, quants);
    }
}

/// Scale, minimum and the twelve bytes of group scales and minima with which Q4_K and Q5_K begin.
#[inline(always)]
pub(crate) fn six_bit_scales<S: Simd>(simd: S, head: &[u8; 16], scales: &mut LargeScales) {
    let (groups, mins) = scales_and_mins(head.last_chunk().expect("twelve bytes"));
    scales.groups.scales = simd.twice(groups);
    scales.groups.mins = simd.twice(mins);
    scales.scale = simd.f16([head[0], head[1]]);
    scales.min = simd.f16([head[2], head[3]]);
}
