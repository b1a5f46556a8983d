//! BF16: the upper half of IEEE single precision.

use std::ops::Range;

use super::float::{Arithmetic, Element, ROW_MULTIPLE};
use super::{Form, Isa, Row, RowMut, RowSize, Simd};
use crate::cpu::simd::Kernel;

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

/// BF16 numbers of the file meet activations that were rounded to BF16, two at a time and without being unpacked. Twice as many products as f32 has, where the processor has an instruction for it.
pub(crate) struct Bf16Pairs;

/// Two BF16 numbers, as the file has them.
type Pair = [u8; 4];

/// Pairs in a step over [`ROW_MULTIPLE`] elements.
const STEP_PAIRS: usize = ROW_MULTIPLE / 2;

impl Arithmetic for Bf16Pairs {
    const FORM: Form = Form::Bf16Pairs;

    fn run<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
        isa.run_bf16(kernel)
    }

    fn row_size(n_in: usize) -> RowSize {
        RowSize {
            bytes: 2 * n_in.next_multiple_of(ROW_MULTIPLE),
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
    fn accumulate<S: Simd, const W: usize, const X: usize>(
        simd: S,
        w: [Row<'_>; W],
        x: [Row<'_>; X],
        panel: Range<usize>,
        sums: &mut [[S::F32; X]; W],
    ) {
        let n_steps = panel.len() / ROW_MULTIPLE;
        let (mut w_steps, mut x_steps) = ([[].as_slice(); W], [[].as_slice(); X]);
        for (steps, row) in w_steps.iter_mut().zip(w) {
            *steps = &self::steps(row, &panel)[..n_steps];
        }
        for (steps, row) in x_steps.iter_mut().zip(x) {
            *steps = &self::steps(row, &panel)[..n_steps];
        }
        let mut local = *sums;
        for step in 0..n_steps {
            for vector in 0..STEP_PAIRS / S::LANES {
                let mut x_vectors = [simd.splat_i32(0); X];
                for r in 0..X {
                    x_vectors[r] = simd.load_quads(&S::chunks(&x_steps[r][step]).0[vector]);
                }
                for o in 0..W {
                    let w_vector = simd.load_quads(&S::chunks(&w_steps[o][step]).0[vector]);
                    for r in 0..X {
                        local[o][r] = simd.dot_bf16(local[o][r], w_vector, x_vectors[r]);
                    }
                }
            }
        }
        *sums = local;
    }

    #[inline(always)]
    fn dot<S: Simd, const W: usize>(simd: S, packed: [&[u8]; W], x: Row<'_>) -> [f32; W] {
        // The rows after these are asked for meanwhile.
        let next_rows = W * packed[0].len();
        let n_chunks = packed[0].len() / (size_of::<Pair>() * S::LANES);
        let (mut chunks, mut tails) = ([[].as_slice(); W], [[].as_slice(); W]);
        for ((chunks, tail), row) in chunks.iter_mut().zip(&mut tails).zip(packed) {
            *chunks = &S::chunks(row.as_chunks::<4>().0).0[..n_chunks];
            *tail = &row[n_chunks * size_of::<Pair>() * S::LANES..];
        }
        let (x_chunks, x_tail) = S::chunks(pairs(x)).0.split_at(n_chunks);
        let mut sums = [simd.splat(0.0); W];
        for (i, x_chunk) in x_chunks.iter().enumerate() {
            let x_vector = simd.load_quads(x_chunk);
            for (sum, row) in sums.iter_mut().zip(&chunks) {
                simd.prefetch(
                    row[i]
                        .as_ref()
                        .as_ptr()
                        .cast::<u8>()
                        .wrapping_add(next_rows),
                );
                *sum = simd.dot_bf16(*sum, simd.load_quads(&row[i]), x_vector);
            }
        }
        if let Some(x_chunk) = x_tail.first() {
            let x_vector = simd.load_quads(x_chunk);
            for (sum, tail) in sums.iter_mut().zip(tails) {
                // The last number of an odd row has no partner but zero.
                let mut chunk = S::partial(&[]);
                chunk.as_mut().as_flattened_mut()[..tail.len()].copy_from_slice(tail);
                *sum = simd.dot_bf16(*sum, simd.load_quads(&chunk), x_vector);
            }
        }
        sums.map(|sum| simd.sum(sum))
    }
}

#[inline(always)]
fn pairs(row: Row<'_>) -> &[Pair] {
    bytemuck::cast_slice::<i8, u8>(row.bytes).as_chunks().0
}

/// A row's pairs within a panel.
#[inline(always)]
fn steps<'a>(row: Row<'a>, panel: &Range<usize>) -> &'a [[Pair; STEP_PAIRS]] {
    pairs(row)[panel.start / 2..panel.end / 2].as_chunks().0
}
