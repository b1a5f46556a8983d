//! F16: IEEE half precision.

use super::Simd;
use super::float::Element;

pub(crate) struct F16;

impl Element for F16 {
    type Packed = [u8; 2];

    #[inline(always)]
    fn load<S: Simd>(simd: S, chunk: &S::Chunk<[u8; 2]>) -> S::F32 {
        simd.load_f16(chunk)
    }
}
