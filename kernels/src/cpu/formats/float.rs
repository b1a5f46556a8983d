//! Types with one number per element.
//!
//! # The order of a sum
//! A product keeps one vector of partial sums, adds to it from the first element to the last, and adds up its lanes at the end. [`dot`] and [`accumulate`] keep the very same order, so which of
//! them a product goes through does not change a bit.

use std::marker::PhantomData;
use std::ops::Range;

use bytemuck::Pod;

use super::{Form, Isa, Row, RowMut, RowSize, Simd};
use crate::cpu::simd::Kernel;

/// Lanes' worth that prepared rows are a multiple of: a step of [`accumulate`], some vectors of every instruction set.
pub(crate) const STEP: usize = 32;

/// How numbers of the file meet activations: what a lane of a vector reads of both, and what becomes of it.
pub(crate) trait Arithmetic: Send + Sync + 'static {
    /// What activations become.
    const FORM: Form;
    /// Numbers that a lane takes at a time.
    const LANE_NUMBERS: usize;

    /// What a lane reads of the file: bytes, so that a row may begin anywhere.
    type Packed: Pod + Default;
    /// What a lane reads of a prepared row.
    type Prepared: Pod + Default;
    /// What all lanes have read.
    type Vector<S: Simd>: Copy;

    /// Runs a kernel that multiplies so.
    fn run<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
        isa.run(kernel)
    }

    /// Size of a prepared row of `n_in` numbers: [`row_len`] lanes' worth.
    fn row_size(n_in: usize) -> RowSize;

    /// Brings a row of activations into its form, with zeros behind it.
    fn prepare(x: &[f32], row: RowMut<'_>);

    /// Brings a row of the file into the same form.
    fn unpack<S: Simd>(simd: S, packed: &[u8], row: RowMut<'_>);

    fn prepared(row: Row<'_>) -> &[Self::Prepared];

    fn load_packed<S: Simd>(simd: S, chunk: &S::Chunk<Self::Packed>) -> Self::Vector<S>;
    fn load<S: Simd>(simd: S, chunk: &S::Chunk<Self::Prepared>) -> Self::Vector<S>;

    /// `sum + w · x` in each lane.
    fn multiply<S: Simd>(simd: S, w: Self::Vector<S>, x: Self::Vector<S>, sum: S::F32) -> S::F32;
}

/// Lanes' worth of a prepared row.
pub(crate) fn row_len<A: Arithmetic>(n_in: usize) -> usize {
    n_in.div_ceil(A::LANE_NUMBERS).next_multiple_of(STEP)
}

/// What lanes read of a row of the file, as far as it goes into whole ones.
#[inline(always)]
pub(crate) fn elements<T: Pod>(bytes: &[u8]) -> &[T] {
    bytemuck::cast_slice(&bytes[..bytes.len() - bytes.len() % size_of::<T>()])
}

/// `sums[w][x] += Σ_i w[i] · x[i]` for the numbers of a panel, which begins at a multiple of [`STEP`] lanes' worth and ends at one or with the rows.
///
/// A step has a fixed number of vectors, so the compiler unrolls it: the loop's own instructions would otherwise cost as much as the arithmetic.
#[inline(always)]
pub(crate) fn accumulate<A: Arithmetic, S: Simd, const W: usize, const X: usize>(
    simd: S,
    w: [Row<'_>; W],
    x: [Row<'_>; X],
    panel: Range<usize>,
    sums: &mut [[S::F32; X]; W],
) {
    let panel = panel.start / A::LANE_NUMBERS..row_len::<A>(panel.end);
    let n_steps = panel.len() / STEP;
    let (mut w_steps, mut x_steps) = ([[].as_slice(); W], [[].as_slice(); X]);
    for (steps, row) in w_steps.iter_mut().zip(w) {
        *steps = &A::prepared(row)[panel.clone()].as_chunks::<STEP>().0[..n_steps];
    }
    for (steps, row) in x_steps.iter_mut().zip(x) {
        *steps = &A::prepared(row)[panel.clone()].as_chunks::<STEP>().0[..n_steps];
    }
    let mut local = *sums;
    for step in 0..n_steps {
        for vector in 0..STEP / S::LANES {
            let mut x_vectors = [A::load(simd, &S::partial(&[])); X];
            for r in 0..X {
                x_vectors[r] = A::load(simd, &S::chunks(&x_steps[r][step]).0[vector]);
            }
            for o in 0..W {
                let w_vector = A::load(simd, &S::chunks(&w_steps[o][step]).0[vector]);
                for r in 0..X {
                    local[o][r] = A::multiply(simd, w_vector, x_vectors[r], local[o][r]);
                }
            }
        }
    }
    *sums = local;
}

/// Products of `W` rows of the file with one prepared row of activations.
#[inline(always)]
pub(crate) fn dot<A: Arithmetic, S: Simd, const W: usize>(
    simd: S,
    packed: [&[u8]; W],
    x: Row<'_>,
) -> [f32; W] {
    // The rows after these are asked for meanwhile.
    let next_rows = W * packed[0].len();
    let n_chunks = packed[0].len() / (size_of::<A::Packed>() * S::LANES);
    let (mut chunks, mut tails) = ([[].as_slice(); W], [[].as_slice(); W]);
    for ((chunks, tail), row) in chunks.iter_mut().zip(&mut tails).zip(packed) {
        *chunks = &S::chunks(elements::<A::Packed>(row)).0[..n_chunks];
        *tail = &row[n_chunks * size_of::<A::Packed>() * S::LANES..];
    }
    let (x_chunks, x_tail) = S::chunks(A::prepared(x)).0.split_at(n_chunks);
    let mut sums = [simd.splat(0.0); W];
    for (i, x_chunk) in x_chunks.iter().enumerate() {
        let x_vector = A::load(simd, x_chunk);
        for (sum, row) in sums.iter_mut().zip(&chunks) {
            let address = row[i].as_ref().as_ptr().cast::<u8>();
            simd.prefetch(address.wrapping_add(next_rows));
            *sum = A::multiply(simd, A::load_packed(simd, &row[i]), x_vector, *sum);
        }
    }
    if let Some(x_chunk) = x_tail.first() {
        let x_vector = A::load(simd, x_chunk);
        for (sum, tail) in sums.iter_mut().zip(tails) {
            let mut chunk = S::partial::<A::Packed>(&[]);
            bytemuck::cast_slice_mut(chunk.as_mut())[..tail.len()].copy_from_slice(tail);
            *sum = A::multiply(simd, A::load_packed(simd, &chunk), x_vector, *sum);
        }
    }
    sums.map(|sum| simd.sum(sum))
}

/// Numbers of the file become f32 and meet f32 activations: nothing is rounded but sums.
pub(crate) struct Floats<E>(PhantomData<E>);

/// A tensor type with one number per element.
pub(crate) trait Element: Send + Sync + 'static {
    /// An element in the file.
    type Packed: Pod + Default;

    fn load<S: Simd>(simd: S, chunk: &S::Chunk<Self::Packed>) -> S::F32;
}

impl<E: Element> Arithmetic for Floats<E> {
    const FORM: Form = Form::Floats;
    const LANE_NUMBERS: usize = 1;

    type Packed = E::Packed;
    type Prepared = f32;
    type Vector<S: Simd> = S::F32;

    fn row_size(n_in: usize) -> RowSize {
        RowSize {
            floats: row_len::<Self>(n_in),
            ..RowSize::default()
        }
    }

    fn prepare(x: &[f32], row: RowMut<'_>) {
        let (numbers, padding) = row.floats.split_at_mut(x.len());
        numbers.copy_from_slice(x);
        padding.fill(0.0);
    }

    #[inline(always)]
    fn unpack<S: Simd>(simd: S, packed: &[u8], row: RowMut<'_>) {
        let (chunks, tail) = S::chunks(elements::<E::Packed>(packed));
        let (out, _) = S::chunks_mut(row.floats);
        let mut out = out.iter_mut();
        for (chunk, out) in chunks.iter().zip(&mut out) {
            simd.store(E::load(simd, chunk), out);
        }
        if !tail.is_empty()
            && let Some(out) = out.next()
        {
            simd.store(E::load(simd, &S::partial(tail)), out);
        }
        for out in out {
            simd.store(simd.splat(0.0), out);
        }
    }

    #[inline(always)]
    fn prepared(row: Row<'_>) -> &[f32] {
        row.floats
    }

    #[inline(always)]
    fn load_packed<S: Simd>(simd: S, chunk: &S::Chunk<E::Packed>) -> S::F32 {
        E::load(simd, chunk)
    }

    #[inline(always)]
    fn load<S: Simd>(simd: S, chunk: &S::Chunk<f32>) -> S::F32 {
        simd.load(chunk)
    }

    #[inline(always)]
    fn multiply<S: Simd>(simd: S, w: S::F32, x: S::F32, sum: S::F32) -> S::F32 {
        simd.mul_add(w, x, sum)
    }
}
