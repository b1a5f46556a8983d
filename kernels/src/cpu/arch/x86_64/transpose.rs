//! Rows of 32-bit elements turned into columns.

use std::arch::x86_64::*;

/// Element `r` of vector `q` of the result is element `q` of vector `r`.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn sixteen(rows: [__m512i; 16]) -> [__m512i; 16] {
    let mut pairs = rows;
    for i in 0..8 {
        pairs[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        pairs[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    // Quarter `k` of `fours[4 i + j]` is element `4 k + j` of the rows `4 i ..`.
    let mut fours = pairs;
    for i in 0..4 {
        let p = &pairs[4 * i..][..4];
        fours[4 * i] = _mm512_unpacklo_epi64(p[0], p[2]);
        fours[4 * i + 1] = _mm512_unpackhi_epi64(p[0], p[2]);
        fours[4 * i + 2] = _mm512_unpacklo_epi64(p[1], p[3]);
        fours[4 * i + 3] = _mm512_unpackhi_epi64(p[1], p[3]);
    }
    let mut columns = fours;
    for j in 0..4 {
        let [a, b, c, d] = [fours[j], fours[4 + j], fours[8 + j], fours[12 + j]];
        let (ab, cd) = (
            _mm512_shuffle_i32x4::<0b01_00_01_00>(a, b),
            _mm512_shuffle_i32x4::<0b01_00_01_00>(c, d),
        );
        columns[j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(ab, cd);
        columns[4 + j] = _mm512_shuffle_i32x4::<0b11_01_11_01>(ab, cd);
        let (ab, cd) = (
            _mm512_shuffle_i32x4::<0b11_10_11_10>(a, b),
            _mm512_shuffle_i32x4::<0b11_10_11_10>(c, d),
        );
        columns[8 + j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(ab, cd);
        columns[12 + j] = _mm512_shuffle_i32x4::<0b11_01_11_01>(ab, cd);
    }
    columns
}

/// [`sixteen`] of eight.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn eight(rows: [__m256i; 8]) -> [__m256i; 8] {
    let mut pairs = rows;
    for i in 0..4 {
        pairs[2 * i] = _mm256_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        pairs[2 * i + 1] = _mm256_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    let mut fours = pairs;
    for i in 0..2 {
        let p = &pairs[4 * i..][..4];
        fours[4 * i] = _mm256_unpacklo_epi64(p[0], p[2]);
        fours[4 * i + 1] = _mm256_unpackhi_epi64(p[0], p[2]);
        fours[4 * i + 2] = _mm256_unpacklo_epi64(p[1], p[3]);
        fours[4 * i + 3] = _mm256_unpackhi_epi64(p[1], p[3]);
    }
    let mut columns = fours;
    for j in 0..4 {
        columns[j] = _mm256_permute2x128_si256::<0x20>(fours[j], fours[4 + j]);
        columns[4 + j] = _mm256_permute2x128_si256::<0x31>(fours[j], fours[4 + j]);
    }
    columns
}
