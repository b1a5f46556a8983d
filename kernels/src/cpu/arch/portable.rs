//! Vectors as arrays: the compiler makes of them what the architecture's baseline has.

use std::array::from_fn;

use half::{bf16, f16};

use crate::cpu::simd::{Kernel, Simd};

/// Needs nothing, so anybody may have one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Portable;

const LANES: usize = 8;

impl Simd for Portable {
    const LANES: usize = LANES;

    type F32 = [f32; LANES];
    type Chunk<T: Copy + Default> = [T; LANES];

    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }

    #[inline(always)]
    fn chunks<T: Copy + Default>(elements: &[T]) -> (&[[T; LANES]], &[T]) {
        elements.as_chunks()
    }

    #[inline(always)]
    fn chunks_mut<T: Copy + Default>(elements: &mut [T]) -> (&mut [[T; LANES]], &mut [T]) {
        elements.as_chunks_mut()
    }

    #[inline(always)]
    fn partial<T: Copy + Default>(elements: &[T]) -> [T; LANES] {
        let mut chunk = [T::default(); LANES];
        chunk[..elements.len()].copy_from_slice(elements);
        chunk
    }

    #[inline(always)]
    fn splat(self, value: f32) -> [f32; LANES] {
        [value; LANES]
    }

    #[inline(always)]
    fn load(self, chunk: &[f32; LANES]) -> [f32; LANES] {
        *chunk
    }

    #[inline(always)]
    fn store(self, vector: [f32; LANES], chunk: &mut [f32; LANES]) {
        *chunk = vector;
    }

    #[inline(always)]
    fn load_f32(self, chunk: &[[u8; 4]; LANES]) -> [f32; LANES] {
        from_fn(|i| f32::from_le_bytes(chunk[i]))
    }

    #[inline(always)]
    fn load_f16(self, chunk: &[[u8; 2]; LANES]) -> [f32; LANES] {
        from_fn(|i| self.f16(chunk[i]))
    }

    #[inline(always)]
    fn load_bf16(self, chunk: &[[u8; 2]; LANES]) -> [f32; LANES] {
        from_fn(|i| bf16::from_le_bytes(chunk[i]).to_f32())
    }

    #[inline(always)]
    fn f16(self, bytes: [u8; 2]) -> f32 {
        f16::from_le_bytes(bytes).to_f32_const()
    }

    #[inline(always)]
    fn add(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        from_fn(|i| a[i] + b[i])
    }

    #[inline(always)]
    fn sub(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        from_fn(|i| a[i] - b[i])
    }

    #[inline(always)]
    fn mul(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        from_fn(|i| a[i] * b[i])
    }

    #[inline(always)]
    fn div(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        from_fn(|i| a[i] / b[i])
    }

    /// Rounds twice: `f32::mul_add` is a slow function call where the baseline has no such instruction.
    #[inline(always)]
    fn mul_add(self, a: [f32; LANES], b: [f32; LANES], c: [f32; LANES]) -> [f32; LANES] {
        from_fn(|i| a[i] * b[i] + c[i])
    }

    #[inline(always)]
    fn max(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn min(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        from_fn(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }

    /// The sum leaves `n` plus the exponent's bias in the low bits; they are moved up to where the exponent lies.
    #[inline(always)]
    fn exp2_whole(self, n: [f32; LANES]) -> [f32; LANES] {
        from_fn(|i| f32::from_bits((n[i] + (12_582_912.0 + 127.0)).to_bits() << 23))
    }

    #[inline(always)]
    fn sum(self, v: [f32; LANES]) -> f32 {
        ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]))
    }

    #[inline(always)]
    fn sum_of_each(self, vectors: [[f32; LANES]; 4]) -> [f32; 4] {
        vectors.map(|vector| self.sum(vector))
    }

    #[inline(always)]
    fn dot_i8(self, w: &[i8; 32], x: &[i8; 32]) -> [f32; LANES] {
        let share = |lane: usize| {
            (4 * lane..4 * lane + 4)
                .map(|i| i32::from(w[i]) * i32::from(x[i]))
                .sum::<i32>()
        };
        from_fn(|lane| share(lane) as f32)
    }
}
