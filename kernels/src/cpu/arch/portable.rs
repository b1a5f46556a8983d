//! Vectors as arrays: the compiler makes of them what the architecture's baseline has.

use std::array::from_fn;

use half::{bf16, f16};

use crate::cpu::simd::{CHUNK_LEN, Kernel, Simd};

/// Needs nothing, so anybody may have one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Portable;

const LANES: usize = 8;

impl Simd for Portable {
    const LANES: usize = LANES;

    type F32 = [f32; LANES];
    type I32 = [i32; LANES];
    type Bytes = [u8; 32];
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
    fn splat_i32(self, value: i32) -> [i32; LANES] {
        [value; LANES]
    }

    #[inline(always)]
    fn load_i32(self, chunk: &[i32; LANES]) -> [i32; LANES] {
        *chunk
    }

    #[inline(always)]
    fn add_i32(self, a: [i32; LANES], b: [i32; LANES]) -> [i32; LANES] {
        from_fn(|i| a[i].wrapping_add(b[i]))
    }

    #[inline(always)]
    fn sub_i32(self, a: [i32; LANES], b: [i32; LANES]) -> [i32; LANES] {
        from_fn(|i| a[i].wrapping_sub(b[i]))
    }

    #[inline(always)]
    fn mul_i32(self, a: [i32; LANES], b: [i32; LANES]) -> [i32; LANES] {
        from_fn(|i| a[i].wrapping_mul(b[i]))
    }

    #[inline(always)]
    fn to_f32(self, vector: [i32; LANES]) -> [f32; LANES] {
        from_fn(|i| vector[i] as f32)
    }

    #[inline(always)]
    fn load_quads(self, chunk: &[[u8; 4]; LANES]) -> [i32; LANES] {
        from_fn(|i| i32::from_le_bytes(chunk[i]))
    }

    #[inline(always)]
    fn interleave<const BYTES: usize>(self, rows: &[&[u8; BYTES]], to: &mut [[u8; 4]]) {
        for (lane, row) in rows.iter().enumerate() {
            let (quads, _) = row.as_chunks();
            for q in 0..BYTES / 4 {
                to[q * LANES + lane] = quads[q];
            }
        }
    }

    #[inline(always)]
    fn half<const UPPER: bool>(self, pairs: [i32; LANES]) -> [i32; LANES] {
        from_fn(|lane| {
            if UPPER {
                pairs[lane] >> 16
            } else {
                pairs[lane] << 16 >> 16
            }
        })
    }

    #[inline(always)]
    fn dot_quads<const WIDE: bool>(
        self,
        sum: [i32; LANES],
        w: [i32; LANES],
        x: [i8; 4],
    ) -> [i32; LANES] {
        from_fn(|lane| {
            let bytes = w[lane].to_le_bytes();
            let products = (0..4).map(|i| i32::from(bytes[i]) * i32::from(x[i]));
            sum[lane].wrapping_add(products.sum())
        })
    }

    #[inline(always)]
    fn dot_pairs(self, sum: [i32; LANES], w: [i32; LANES], x: [i16; 2]) -> [i32; LANES] {
        from_fn(|lane| {
            let pair: [i16; 2] = bytemuck::cast(w[lane]);
            let products = (0..2).map(|i| i32::from(pair[i]) * i32::from(x[i]));
            sum[lane].wrapping_add(products.sum())
        })
    }

    #[inline(always)]
    fn dot_bf16(self, sum: [f32; LANES], w: [i32; LANES], x: [i32; LANES]) -> [f32; LANES] {
        // A bf16 is the upper half of the f32 with the same value.
        let upper = |bits: i32| f32::from_bits(bits.cast_unsigned() & 0xffff_0000);
        let lower = |bits: i32| f32::from_bits(bits.cast_unsigned() << 16);
        from_fn(|i| sum[i] + lower(w[i]) * lower(x[i]) + upper(w[i]) * upper(x[i]))
    }

    #[inline(always)]
    fn dots_of_32<const WIDE: bool>(
        self,
        w: &[u8; CHUNK_LEN],
        x: &[i8; CHUNK_LEN],
    ) -> [i32; CHUNK_LEN / 32] {
        from_fn(|block| dot(&w[32 * block..][..32], &x[32 * block..][..32]))
    }

    #[inline(always)]
    fn scaled_dots_of_16<const WIDE: bool>(
        self,
        w: &[u8; CHUNK_LEN],
        x: &[i8; CHUNK_LEN],
        scales: &[i16; CHUNK_LEN / 16],
    ) -> i32 {
        let groups = w.chunks_exact(16).zip(x.chunks_exact(16)).zip(scales);
        groups
            .map(|((w, x), &scale)| dot(w, x) * i32::from(scale))
            .sum()
    }

    #[inline(always)]
    fn add_scaled(self, sums: &mut [f32; 8], [a, b]: [&[f32; 8]; 2], n: &[i32; 8]) {
        for i in 0..8 {
            sums[i] += (a[i] * b[i]) * n[i] as f32;
        }
    }

    /// There is no portable way to ask.
    #[inline(always)]
    fn prefetch(self, _: *const u8) {}

    #[inline(always)]
    fn load_bytes(self, bytes: &[u8; 32]) -> [u8; 32] {
        *bytes
    }

    #[inline(always)]
    fn store_bytes(self, bytes: [u8; 32], to: &mut [u8; 32]) {
        *to = bytes;
    }

    #[inline(always)]
    fn nibbles(self, bytes: &[u8; 16]) -> [u8; 32] {
        from_fn(|i| (bytes[i % 16] >> (4 * (i / 16))) & 0x0f)
    }

    #[inline(always)]
    fn bits(self, bits: [u8; 4], value: u8) -> [u8; 32] {
        from_fn(|i| ((bits[i / 8] >> (i % 8)) & 1) * value)
    }

    #[inline(always)]
    fn field(self, bytes: [u8; 32], right: u32, mask: u8, left: u32) -> [u8; 32] {
        bytes.map(|byte| ((byte >> right) & mask) << left)
    }

    #[inline(always)]
    fn or(self, a: [u8; 32], b: [u8; 32]) -> [u8; 32] {
        from_fn(|i| a[i] | b[i])
    }

    #[inline(always)]
    fn xor(self, bytes: [u8; 32], mask: u8) -> [u8; 32] {
        bytes.map(|byte| byte ^ mask)
    }

    #[inline(always)]
    fn look_up(self, table: &[u8; 16], bytes: [u8; 32]) -> [u8; 32] {
        bytes.map(|byte| table[usize::from(byte & 15)])
    }

    #[inline(always)]
    fn f16s(self, numbers: [[u8; 2]; 8]) -> [f32; 8] {
        numbers.map(|number| self.f16(number))
    }

    #[inline(always)]
    fn twice(self, bytes: [u8; 8]) -> [i16; 16] {
        from_fn(|i| i16::from(bytes[i / 2]))
    }
}

#[inline(always)]
fn dot(w: &[u8], x: &[i8]) -> i32 {
    let pairs = w.iter().zip(x);
    pairs.map(|(&w, &x)| i32::from(w) * i32::from(x)).sum()
}
