//! Blocks packed here bit by bit, by element and by group, from the published field layouts.

use super::*;

/// Scale 2, minimum 0.5.
const SCALE: [u8; 2] = [0x00, 0x40];
const MIN: [u8; 2] = [0x00, 0x38];

/// A number below `limit` for each index, without an obvious period.
fn some(i: usize, limit: usize) -> u8 {
    u8::try_from((i * i * 7 + i * 3 + i / 5) % limit).expect("a byte")
}

fn check(unpack: fn(&[u8], &mut [f32]), block: &[u8], expected: impl Fn(usize) -> f32) {
    let mut row = [7.0; 2 * BLOCK_LEN];
    unpack(&[block, block].concat(), &mut row);
    for (i, value) in row.into_iter().enumerate() {
        assert_eq!(value, expected(i % BLOCK_LEN), "element {i}");
    }
}

/// Two bits per element: 128 elements to 32 bytes.
fn pairs(quant: impl Fn(usize) -> u8) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    for half in 0..2 {
        for pair in 0..4 {
            for i in 0..32 {
                bytes[32 * half + i] |= (quant(128 * half + 32 * pair + i) & 3) << (2 * pair);
            }
        }
    }
    bytes
}

/// Four bits per element: 64 elements to 32 bytes.
fn nibbles(quant: impl Fn(usize) -> u8) -> Vec<u8> {
    let mut bytes = vec![0; 128];
    for stretch in 0..4 {
        for i in 0..32 {
            let (low, high) = (64 * stretch + i, 64 * stretch + 32 + i);
            bytes[32 * stretch + i] = (quant(low) & 15) | (quant(high) & 15) << 4;
        }
    }
    bytes
}

/// One bit per element: bit `b` of byte `i` is element `32 b + i`.
fn bits(set: impl Fn(usize) -> bool) -> Vec<u8> {
    let mut bytes = vec![0; 32];
    for bit in 0..8 {
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte |= u8::from(set(32 * bit + i)) << bit;
        }
    }
    bytes
}

/// Six-bit scales and minima of eight groups.
fn sixes(scales: impl Fn(usize) -> u8, mins: impl Fn(usize) -> u8) -> Vec<u8> {
    let mut bytes = vec![0; 12];
    for j in 0..4 {
        bytes[j] = scales(j) | (scales(j + 4) >> 4) << 6;
        bytes[j + 4] = mins(j) | (mins(j + 4) >> 4) << 6;
        bytes[j + 8] = (scales(j + 4) & 15) | (mins(j + 4) & 15) << 4;
    }
    bytes
}

#[test]
fn q2_k() {
    let groups: Vec<u8> = (0..16)
        .map(|g| some(g, 16) | some(g + 40, 16) << 4)
        .collect();
    let block = [groups, pairs(|i| some(i, 4)), SCALE.to_vec(), MIN.to_vec()].concat();
    check(unpack_q2_k, &block, |i| {
        2.0 * f32::from(some(i / 16, 16)) * f32::from(some(i, 4))
            - 0.5 * f32::from(some(i / 16 + 40, 16))
    });
}

#[test]
fn q3_k() {
    let mut scales = vec![0; 12];
    for g in 0..16 {
        let scale = some(g, 64);
        scales[g % 8] |= (scale & 15) << (4 * (g / 8));
        scales[8 + g % 4] |= (scale >> 4) << (2 * (g / 4));
    }
    let thirds = bits(|i| some(i, 8) >= 4);
    let block = [thirds, pairs(|i| some(i, 8)), scales, SCALE.to_vec()].concat();
    check(unpack_q3_k, &block, |i| {
        2.0 * (f32::from(some(i / 16, 64)) - 32.0) * (f32::from(some(i, 8)) - 4.0)
    });
}

#[test]
fn q4_k_and_q5_k() {
    let groups = sixes(|g| some(g, 64), |g| some(g + 9, 64));
    let head = [SCALE.to_vec(), MIN.to_vec(), groups].concat();
    let expected = |i: usize, quant: u8| {
        2.0 * f32::from(some(i / 32, 64)) * f32::from(quant) - 0.5 * f32::from(some(i / 32 + 9, 64))
    };
    let block = [head.clone(), nibbles(|i| some(i, 16))].concat();
    check(unpack_q4_k, &block, |i| expected(i, some(i, 16)));
    let fifths = bits(|i| some(i, 32) >= 16);
    let block = [head, fifths, nibbles(|i| some(i, 32))].concat();
    check(unpack_q5_k, &block, |i| expected(i, some(i, 32)));
}

#[test]
fn q6_k() {
    let (mut low, mut high) = (vec![0; 128], vec![0; 64]);
    for i in 0..BLOCK_LEN {
        let (half, within, quant) = (i / 128, i % 128, some(i, 64));
        low[64 * half + within % 64] |= (quant & 15) << (4 * (within / 64));
        high[32 * half + within % 32] |= (quant >> 4) << (2 * (within / 32));
    }
    let groups: Vec<u8> = (0..16).map(|g| some(g, 251).wrapping_add(100)).collect();
    let block = [low, high, groups.clone(), SCALE.to_vec()].concat();
    check(unpack_q6_k, &block, |i| {
        2.0 * f32::from(groups[i / 16].cast_signed()) * (f32::from(some(i, 64)) - 32.0)
    });
}
