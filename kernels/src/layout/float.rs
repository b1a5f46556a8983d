//! Types with one number per element: F32, F16 and BF16, all little-endian.

use half::{bf16, f16};

pub(super) fn unpack_f32(bytes: &[u8], row: &mut [f32]) {
    for (&number, value) in bytes.as_chunks().0.iter().zip(row) {
        *value = f32::from_le_bytes(number);
    }
}

pub(super) fn unpack_f16(bytes: &[u8], row: &mut [f32]) {
    for (&number, value) in bytes.as_chunks().0.iter().zip(row) {
        *value = f16::from_le_bytes(number).to_f32();
    }
}

pub(super) fn unpack_bf16(bytes: &[u8], row: &mut [f32]) {
    for (&number, value) in bytes.as_chunks().0.iter().zip(row) {
        *value = bf16::from_le_bytes(number).to_f32();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(unpack: fn(&[u8], &mut [f32]), bytes: &[u8], expected: &[f32]) {
        let mut row = vec![7.0; expected.len()];
        unpack(bytes, &mut row);
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&row), bits(expected), "{row:?} is not {expected:?}");
    }

    #[test]
    fn numbers_are_read_as_they_lie() {
        check(unpack_f32, &[0, 0, 0x80, 0x3f, 0, 0, 0, 0x80], &[1.0, -0.0]);
        check(
            unpack_f16,
            &[0x00, 0x3c, 0x01, 0x00, 0xff, 0x7b, 0x00, 0xfc],
            &[1.0, 2.0_f32.powi(-24), 65504.0, f32::NEG_INFINITY],
        );
        check(
            unpack_bf16,
            &[0x80, 0x3f, 0x49, 0xc0, 0x01, 0x00],
            &[1.0, -3.140_625, f32::from_bits(0x0001_0000)],
        );
    }
}
