//! BF16: the upper half of IEEE single precision.

use super::float::{Arithmetic, Element, row_len};
use super::{Form, Isa, Row, RowMut, RowSize, Simd};
use crate::cpu::simd::Kernel;

pub(crate) struct Bf16;

impl Element for Bf16 {
    type Packed = [u8; 2];

    #[inline(always)]
    fn load<S: Simd>(simd: S, chunk: &S::Chunk<[u8; 2]>) -> S::F32 {
        simd.load_bf16(chunk)
    }
}

/// BF16 numbers of the file meet activations that were rounded to BF16, two at a time and without being unpacked. Twice as many products as f32 has, where the processor has an instruction for it.
pub(crate) struct Bf16Pairs;

/// Two BF16 numbers, as the file has them.
type Pair = [u8; 4];

impl Arithmetic for Bf16Pairs {
    const FORM: Form = Form::Bf16Pairs;
    const LANE_NUMBERS: usize = 2;

    type Packed = Pair;
    type Prepared = Pair;
    type Vector<S: Simd> = S::I32;

    fn run<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
        isa.run_bf16(kernel)
    }

    fn row_size(n_in: usize) -> RowSize {
        RowSize {
            bytes: row_len::<Self>(n_in) * size_of::<Pair>(),
            ..RowSize::default()
        }
    }

    fn prepare(x: &[f32], row: RowMut<'_>) {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(row.bytes);
        let (numbers, padding) = bytes.split_at_mut(2 * x.len());
        for (x, number) in x.iter().zip(numbers.as_chunks_mut().0) {
            *number = half::bf16::from_f32(*x).to_le_bytes();
        }
        padding.fill(0);
    }

    #[inline(always)]
    fn unpack<S: Simd>(_: S, packed: &[u8], row: RowMut<'_>) {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(row.bytes);
        let (numbers, padding) = bytes.split_at_mut(packed.len());
        numbers.copy_from_slice(packed);
        padding.fill(0);
    }

    #[inline(always)]
    fn prepared(row: Row<'_>) -> &[Pair] {
        bytemuck::cast_slice(row.bytes)
    }

    #[inline(always)]
    fn load_packed<S: Simd>(simd: S, chunk: &S::Chunk<Pair>) -> S::I32 {
        simd.load_quads(chunk)
    }

    #[inline(always)]
    fn load<S: Simd>(simd: S, chunk: &S::Chunk<Pair>) -> S::I32 {
        simd.load_quads(chunk)
    }

    #[inline(always)]
    fn multiply<S: Simd>(simd: S, w: S::I32, x: S::I32, sum: S::F32) -> S::F32 {
        simd.dot_bf16(sum, w, x)
    }
}
