//! F32: IEEE single precision, at any alignment.

use super::Simd;
use super::float::Element;

pub(crate) struct F32;

impl Element for F32 {
    type Packed = [u8; 4];

    #[inline(always)]
    fn load<S: Simd>(simd: S, chunk: &S::Chunk<[u8; 4]>) -> S::F32 {
        simd.load_f32(chunk)
    }
}
