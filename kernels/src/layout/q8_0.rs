//! Q8_0: 32 elements as an f16 scale followed by 32 signed bytes; element = scale · byte.

use half::f16;

/// Elements of a block.
const BLOCK_LEN: usize = 32;
/// Bytes of a block: the scale, then one byte per element.
const BLOCK_BYTES: usize = 2 + BLOCK_LEN;

pub(super) fn unpack(bytes: &[u8], row: &mut [f32]) {
    for (block, values) in bytes
        .as_chunks::<BLOCK_BYTES>()
        .0
        .iter()
        .zip(row.as_chunks_mut::<BLOCK_LEN>().0)
    {
        let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
        for (&quant, value) in block[2..].iter().zip(values) {
            *value = scale * f32::from(quant.cast_signed());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_scale_times_byte() {
        let mut bytes = vec![0x00, 0x38]; // 0.5
        bytes.extend((0..32_u8).map(|i| i.wrapping_mul(17)));
        bytes.extend([0x00, 0xbc]); // -1
        bytes.extend([0x80; 32]);
        let mut row = [0.0; 64];
        unpack(&bytes, &mut row);
        assert_eq!(row[..3], [0.0, 8.5, 17.0]);
        assert_eq!(row[8], -60.0, "136 is -120 as a signed byte");
        assert_eq!(row[32..], [128.0; 32]);
    }
}
