//! IQ4_NL and IQ4_XS: four bits per element that stand for one of sixteen unevenly spaced values.
//!
//! Byte `j` of each 16 holds element `j` in its low and element `j + 16` in its high nibble.

use half::f16;

/// What a nibble stands for. Source: `kvalues_iq4nl` of ggml.
pub(crate) const VALUES: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

/// Elements that share a scale.
const GROUP_LEN: usize = 32;

fn f16_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

fn unpack_group(scale: f32, nibbles: &[u8], values: &mut [f32; GROUP_LEN]) {
    for (i, value) in values.iter_mut().enumerate() {
        let nibble = (nibbles[i % 16] >> (4 * (i / 16))) & 0x0f;
        *value = scale * f32::from(VALUES[usize::from(nibble)]);
    }
}

/// 32 elements: scale, 16 bytes of nibbles.
pub(super) fn unpack_nl(bytes: &[u8], row: &mut [f32]) {
    let blocks = bytes.as_chunks::<18>().0;
    for (block, values) in blocks.iter().zip(row.as_chunks_mut().0) {
        unpack_group(f16_at(block, 0), &block[2..], values);
    }
}

/// 256 elements: scale, a 16-bit word with two high bits of each group's scale, four bytes with the four low ones, 128 bytes of nibbles. Element = (scale · (group scale - 32)) · value.
pub(super) fn unpack_xs(bytes: &[u8], row: &mut [f32]) {
    let blocks = bytes.as_chunks::<136>().0;
    for (block, values) in blocks.iter().zip(row.as_chunks_mut::<256>().0) {
        let scale = f16_at(block, 0);
        let groups = xs_scales(block[2..8].try_into().expect("six bytes"));
        let nibbles = block[8..].as_chunks::<16>().0;
        for ((values, nibbles), group) in
            values.as_chunks_mut().0.iter_mut().zip(nibbles).zip(groups)
        {
            unpack_group(scale * (f32::from(group) - 32.0), nibbles, values);
        }
    }
}

/// The eight group scales of IQ4_XS plus 32, six bits each: nibbles behind two bytes of high bits.
#[inline(always)]
pub(crate) fn xs_scales(packed: &[u8; 6]) -> [u8; 8] {
    let high = u64::from(u16::from_le_bytes([packed[0], packed[1]]));
    let low = u32::from_le_bytes([packed[2], packed[3], packed[4], packed[5]]).into();
    let spread = |bits: u64, shift: u32, mask: u64| (bits | bits << shift) & mask;
    let low = spread(low, 16, 0x0000_ffff_0000_ffff);
    let low = spread(low, 8, 0x00ff_00ff_00ff_00ff);
    let low = spread(low, 4, 0x0f0f_0f0f_0f0f_0f0f);
    let high = spread(high, 24, 0x0000_00ff_0000_00ff);
    let high = spread(high, 12, 0x000f_000f_000f_000f);
    let high = spread(high, 6, 0x0303_0303_0303_0303);
    (low | high << 4).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nibbles_look_values_up() {
        let mut block = vec![0x00, 0x38]; // 0.5
        block.extend((0..16_u8).map(|j| j | (15 - j) << 4));
        let mut row = [0.0; 32];
        unpack_nl(&block, &mut row);
        assert_eq!(row[..3], [-63.5, -52.0, -41.5]);
        assert_eq!(row[15..18], [56.5, 56.5, 44.5]);
        assert_eq!(row[31], -63.5);
    }

    #[test]
    fn groups_of_the_long_block_have_scales_of_their_own() {
        // Six bits of group g: 9 g.
        let scale = |group: usize| u8::try_from(9 * group % 64).expect("six bits");
        let high = (0..8).fold(0_u16, |word, group| {
            word | u16::from(scale(group) >> 4) << (2 * group)
        });
        let mut block = vec![0x00, 0x40]; // 2
        block.extend(high.to_le_bytes());
        block.extend((0..4).map(|pair| (scale(2 * pair) & 15) | (scale(2 * pair + 1) & 15) << 4));
        block.extend((0..128_u8).map(|byte| byte.wrapping_mul(37)));
        let mut row = [0.0; 256];
        unpack_xs(&block, &mut row);
        for (i, value) in row.into_iter().enumerate() {
            let (group, within) = (i / 32, i % 32);
            let byte = block[8 + 16 * group + within % 16];
            let nibble = if within < 16 { byte & 15 } else { byte >> 4 };
            let expected =
                2.0 * (f32::from(scale(group)) - 32.0) * f32::from(VALUES[usize::from(nibble)]);
            assert_eq!(value, expected, "element {i}");
        }
    }
}
