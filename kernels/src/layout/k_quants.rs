//! Q2_K … Q6_K: 256 elements in groups of 16 or 32; each group's scale (and minimum) is a small integer times an f16 number of the block.
//!
//! Element = (scale · group scale) · quant, in Q2_K, Q4_K and Q5_K less (minimum · group minimum). Quants of several groups share bytes: byte `i` of a stretch holds element `i` of each of
//! its groups, the first group in the lowest bits.

use half::f16;

/// Elements of a block.
pub(crate) const BLOCK_LEN: usize = 256;

fn blocks<'a, const BYTES: usize>(
    bytes: &'a [u8],
    row: &'a mut [f32],
) -> impl Iterator<Item = (&'a [u8; BYTES], &'a mut [f32; BLOCK_LEN])> {
    bytes.as_chunks().0.iter().zip(row.as_chunks_mut().0)
}

fn f16_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Bytes: 16 of group scales (low nibble) and minima (high nibble), 64 of quants, scale, minimum. Groups of 16; each 32 bytes of quants hold 128 elements, two bits at a time.
pub(super) fn unpack_q2_k(bytes: &[u8], row: &mut [f32]) {
    for (block, values) in blocks::<84>(bytes, row) {
        let (groups, quants) = block.split_at(16);
        let (scale, min) = (f16_at(block, 80), f16_at(block, 82));
        for (i, value) in values.iter_mut().enumerate() {
            let group = groups[i / 16];
            let quant = (quants[32 * (i / 128) + i % 32] >> (2 * (i % 128 / 32))) & 3;
            let scale = scale * f32::from(group & 0x0f);
            *value = scale * f32::from(quant) - min * f32::from(group >> 4);
        }
    }
}

/// Bytes: 32 of third bits, 64 of quants (as in Q2_K), 12 of group scales, scale. Bit `b` of byte `i` of the third bits belongs to element `32 b + i`; a quant is -4 ..= 3.
pub(super) fn unpack_q3_k(bytes: &[u8], row: &mut [f32]) {
    for (block, values) in blocks::<110>(bytes, row) {
        let (thirds, quants) = (&block[..32], &block[32..96]);
        let groups = q3_k_scales(block[96..108].try_into().expect("twelve bytes"));
        let scale = f16_at(block, 108);
        for (i, value) in values.iter_mut().enumerate() {
            let low = (quants[32 * (i / 128) + i % 32] >> (2 * (i % 128 / 32))) & 3;
            let third = (thirds[i % 32] >> (i / 32)) & 1;
            let quant = f32::from(low | third << 2) - 4.0;
            *value = scale * f32::from(groups[i / 16]) * quant;
        }
    }
}

/// The 16 group scales of Q3_K, -32 ..= 31: four low bits in the nibbles of the first eight bytes (low nibbles first), two high bits in the last four bytes (lowest bits first).
#[inline(always)]
pub(crate) fn q3_k_scales(packed: &[u8; 12]) -> [i8; 16] {
    std::array::from_fn(|i| {
        let low = (packed[i % 8] >> (4 * (i / 8))) & 0x0f;
        let high = (packed[8 + i % 4] >> (2 * (i / 4))) & 3;
        (low | high << 4).cast_signed() - 32
    })
}

/// Bytes: scale, minimum, 12 of group scales and minima, 128 of nibbles. Groups of 32; each 32 bytes of nibbles hold 64 elements.
pub(super) fn unpack_q4_k(bytes: &[u8], row: &mut [f32]) {
    for (block, values) in blocks::<144>(bytes, row) {
        let (scales, mins) = scales_and_mins(block[4..16].try_into().expect("twelve bytes"));
        let (scale, min, nibbles) = (f16_at(block, 0), f16_at(block, 2), &block[16..]);
        for (i, value) in values.iter_mut().enumerate() {
            let quant = (nibbles[32 * (i / 64) + i % 32] >> (4 * (i % 64 / 32))) & 0x0f;
            let scale = scale * f32::from(scales[i / 32]);
            *value = scale * f32::from(quant) - min * f32::from(mins[i / 32]);
        }
    }
}

/// As Q4_K, with 32 bytes of fifth bits before the nibbles: bit `b` of byte `i` belongs to element `32 b + i`.
pub(super) fn unpack_q5_k(bytes: &[u8], row: &mut [f32]) {
    for (block, values) in blocks::<176>(bytes, row) {
        let (scales, mins) = scales_and_mins(block[4..16].try_into().expect("twelve bytes"));
        let (fifths, nibbles) = (&block[16..48], &block[48..]);
        let (scale, min) = (f16_at(block, 0), f16_at(block, 2));
        for (i, value) in values.iter_mut().enumerate() {
            let low = (nibbles[32 * (i / 64) + i % 32] >> (4 * (i % 64 / 32))) & 0x0f;
            let quant = low | ((fifths[i % 32] >> (i / 32)) & 1) << 4;
            let scale = scale * f32::from(scales[i / 32]);
            *value = scale * f32::from(quant) - min * f32::from(mins[i / 32]);
        }
    }
}

/// The eight group scales and the eight group minima of Q4_K and Q5_K, six bits each: the first four of both are the low bits of the first eight bytes, whose two high bits are those of the last
/// four; their low bits are the nibbles of the last four bytes.
#[inline(always)]
pub(crate) fn scales_and_mins(packed: &[u8; 12]) -> ([u8; 8], [u8; 8]) {
    let word = |at: usize| {
        u32::from_le_bytes([packed[at], packed[at + 1], packed[at + 2], packed[at + 3]])
    };
    let (a, b, c) = (word(0), word(4), word(8));
    let (six, four, two) = (0x3f3f_3f3f, 0x0f0f_0f0f, 0x0303_0303);
    let eight = |first: u32, last: u32| (u64::from(last) << 32 | u64::from(first)).to_le_bytes();
    let scales = eight(a & six, c & four | ((a >> 6) & two) << 4);
    let mins = eight(b & six, (c >> 4) & four | ((b >> 6) & two) << 4);
    (scales, mins)
}

/// Bytes: 128 of low nibbles, 64 of high bits, 16 of signed group scales, scale. Groups of 16; each half of the block has 64 bytes of nibbles (elements 0 .. 64 in the low ones) and 32 of high bits,
/// two at a time; a quant is -32 ..= 31.
pub(super) fn unpack_q6_k(bytes: &[u8], row: &mut [f32]) {
    for (block, values) in blocks::<210>(bytes, row) {
        let (nibbles, highs, groups) = (&block[..128], &block[128..192], &block[192..208]);
        let scale = f16_at(block, 208);
        for (i, value) in values.iter_mut().enumerate() {
            let low = (nibbles[64 * (i / 128) + i % 64] >> (4 * (i % 128 / 64))) & 0x0f;
            let high = (highs[32 * (i / 128) + i % 32] >> (2 * (i % 128 / 32))) & 3;
            let quant = f32::from(low | high << 4) - 32.0;
            *value = scale * f32::from(groups[i / 16].cast_signed()) * quant;
        }
    }
}

#[cfg(test)]
mod tests;
