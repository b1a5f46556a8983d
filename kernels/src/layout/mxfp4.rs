//! MXFP4: 32 elements as a shared power of two and 32 four-bit floats (sign, two bits of exponent, one of mantissa). Source: OCP Microscaling Formats 1.0.
//!
//! Byte `j` of the 16 holds element `j` in its low and element `j + 16` in its high nibble.

/// Twice what a nibble stands for, so that all are whole.
pub(crate) const DOUBLES: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Half of the shared power of two, 2^(exponent - 127), exactly.
#[inline(always)]
pub(crate) fn half_scale(exponent: u8) -> f32 {
    // Below 2 the half is a subnormal number.
    f32::from_bits(match exponent {
        0 | 1 => 0x0020_0000 << exponent,
        _ => u32::from(exponent - 1) << 23,
    })
}

pub(super) fn unpack(bytes: &[u8], row: &mut [f32]) {
    let blocks = bytes.as_chunks::<17>().0;
    for (block, values) in blocks.iter().zip(row.as_chunks_mut::<32>().0) {
        let scale = half_scale(block[0]);
        for (i, value) in values.iter_mut().enumerate() {
            let nibble = (block[1 + i % 16] >> (4 * (i / 16))) & 0x0f;
            *value = scale * f32::from(DOUBLES[usize::from(nibble)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_floats_of_four_bits_times_a_power_of_two() {
        let mut block = vec![128]; // 2
        block.extend((0..16_u8).map(|j| j | (15 - j) << 4));
        let mut row = [0.0; 32];
        unpack(&block, &mut row);
        assert_eq!(row[..8], [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0]);
        assert_eq!(
            row[9..18],
            [-1.0, -2.0, -3.0, -4.0, -6.0, -8.0, -12.0, -12.0, -8.0]
        );
    }

    #[test]
    fn every_exponent_is_a_power_of_two() {
        for exponent in 0..=254_u8 {
            let expected = 2.0_f64.powi(i32::from(exponent) - 128);
            assert_eq!(f64::from(half_scale(exponent)), expected, "{exponent}");
        }
    }
}
