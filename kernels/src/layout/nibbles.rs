//! Q4_0, Q4_1, Q5_0 and Q5_1: 32 elements as one f16 scale (the `_1` types: and one f16 minimum), in the 5-bit types a word of fifth bits, then 16 bytes of two nibbles each.
//!
//! Byte `j` holds element `j` in its low and element `j + 16` in its high nibble; bit `i` of the word is the fifth bit of element `i`. The `_0` types are symmetric: element = scale · (quant - half
//! of the range). The `_1` types are affine: element = scale · quant + minimum.

use half::f16;

/// Elements of a block.
const BLOCK_LEN: usize = 32;

pub(super) fn unpack_q4_0(bytes: &[u8], row: &mut [f32]) {
    for (block, values) in blocks::<18>(bytes, row) {
        let (scale, quants) = (f16_at(block, 0), low_bits(block));
        for (value, quant) in values.iter_mut().zip(quants) {
            *value = scale * (f32::from(quant) - 8.0);
        }
    }
}

pub(super) fn unpack_q4_1(bytes: &[u8], row: &mut [f32]) {
    for (block, values) in blocks::<20>(bytes, row) {
        let (scale, min, quants) = (f16_at(block, 0), f16_at(block, 2), low_bits(block));
        for (value, quant) in values.iter_mut().zip(quants) {
            *value = scale * f32::from(quant) + min;
        }
    }
}

pub(super) fn unpack_q5_0(bytes: &[u8], row: &mut [f32]) {
    for (block, values) in blocks::<22>(bytes, row) {
        let (scale, quants) = (f16_at(block, 0), five_bits(block, 2));
        for (value, quant) in values.iter_mut().zip(quants) {
            *value = scale * (f32::from(quant) - 16.0);
        }
    }
}

pub(super) fn unpack_q5_1(bytes: &[u8], row: &mut [f32]) {
    for (block, values) in blocks::<24>(bytes, row) {
        let (scale, min, quants) = (f16_at(block, 0), f16_at(block, 2), five_bits(block, 4));
        for (value, quant) in values.iter_mut().zip(quants) {
            *value = scale * f32::from(quant) + min;
        }
    }
}

fn blocks<'a, const BYTES: usize>(
    bytes: &'a [u8],
    row: &'a mut [f32],
) -> impl Iterator<Item = (&'a [u8; BYTES], &'a mut [f32; BLOCK_LEN])> {
    bytes.as_chunks().0.iter().zip(row.as_chunks_mut().0)
}

fn f16_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// The nibbles of the block's last 16 bytes.
fn low_bits<const BYTES: usize>(block: &[u8; BYTES]) -> [u8; BLOCK_LEN] {
    let bytes: &[u8; 16] = block.last_chunk().expect("a block ends with its nibbles");
    std::array::from_fn(|i| (bytes[i % 16] >> (4 * (i / 16))) & 0x0f)
}

/// The nibbles with their fifth bits, which are the word that begins `at` this byte.
fn five_bits<const BYTES: usize>(block: &[u8; BYTES], at: usize) -> [u8; BLOCK_LEN] {
    let nibbles = low_bits(block);
    std::array::from_fn(|i| nibbles[i] | ((block[at + i / 8] >> (i % 8)) & 1) << 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Byte `j` is `j` in the low nibble and `15 - j` in the high one.
    fn nibbles() -> Vec<u8> {
        (0..16_u8).map(|j| j | (15 - j) << 4).collect()
    }

    fn check(unpack: fn(&[u8], &mut [f32]), block: &[u8], expected: impl Fn(usize) -> f32) {
        let mut row = [7.0; 64];
        unpack(&[block, block].concat(), &mut row);
        for (i, value) in row.into_iter().enumerate() {
            assert_eq!(value, expected(i % 32), "element {i}");
        }
    }

    /// Quant `i` of the nibbles above.
    fn quant(i: usize) -> f32 {
        (if i < 16 { i } else { 31 - i }) as f32
    }

    #[test]
    fn four_bits_are_symmetric_or_affine() {
        let scale = [0x00, 0x38]; // 0.5
        check(unpack_q4_0, &[scale.as_slice(), &nibbles()].concat(), |i| {
            0.5 * (quant(i) - 8.0)
        });
        let min = [0x00, 0xc2]; // -3
        check(
            unpack_q4_1,
            &[scale.as_slice(), &min, &nibbles()].concat(),
            |i| 0.5 * quant(i) - 3.0,
        );
    }

    #[test]
    fn the_fifth_bit_of_element_i_is_bit_i() {
        let (scale, min) = ([0x00, 0xc0], [0x00, 0x3c]); // -2 and 1
        let word = 0b1000_0000_0000_0001_0100_0000_0000_0010_u32;
        let fifth = |i: usize| {
            if [1, 14, 16, 31].contains(&i) {
                16.0
            } else {
                0.0
            }
        };
        check(
            unpack_q5_0,
            &[scale.as_slice(), &word.to_le_bytes(), &nibbles()].concat(),
            |i| -2.0 * (quant(i) + fifth(i) - 16.0),
        );
        check(
            unpack_q5_1,
            &[scale.as_slice(), &min, &word.to_le_bytes(), &nibbles()].concat(),
            |i| -2.0 * (quant(i) + fifth(i)) + 1.0,
        );
    }
}
