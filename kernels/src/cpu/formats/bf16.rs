//! BF16: the upper half of IEEE single precision.

use super::Simd;
use super::float::Element;

pub(crate) struct Bf16;

impl Element for Bf16 {
    type Packed = [u8; 2];

    #[inline(always)]
    fn elements(row: &[u8]) -> &[[u8; 2]] {
        row.as_chunks().0
    }

    #[inline(always)]
    fn load<S: Simd>(simd: S, chunk: &S::Chunk<[u8; 2]>) -> S::F32 {
        simd.load_bf16(chunk)
    }
}
