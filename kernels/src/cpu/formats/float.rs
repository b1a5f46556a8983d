//! Types with one number per element.
//!
//! # The order of a sum
//! A product keeps one vector of partial sums, adds to it from the first element to the last, and adds up its lanes at the end. [`Arithmetic::dot`] and [`Arithmetic::accumulate`] keep the very
//! same order, so which of them a product goes through does not change a bit.

use std::marker::PhantomData;
use std::ops::Range;

use super::{Form, Isa, Row, RowMut, RowSize, Simd};
use crate::cpu::simd::Kernel;

/// A multiple of every vector's length.
pub(crate) const ROW_MULTIPLE: usize = 32;

/// How numbers of the file meet activations.
pub(crate) trait Arithmetic: Send + Sync + 'static {
    /// What activations become.
    const FORM: Form;

    /// Runs a kernel that multiplies so.
    fn run<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
        isa.run(kernel)
    }

    /// Size of a row of `n_in` numbers, zeros up to the next multiple of [`ROW_MULTIPLE`].
    fn row_size(n_in: usize) -> RowSize;

    /// Brings a row of activations into its form.
    fn prepare(x: &[f32], row: RowMut<'_>);

    /// Brings a row of the file into the form that [`Arithmetic::accumulate`] wants.
    fn unpack<S: Simd>(simd: S, packed: &[u8], row: RowMut<'_>);

    /// `sums[w][x] += Σ_i w[i] · x[i]` for `i` in a panel, which begins and ends at multiples of [`ROW_MULTIPLE`].
    fn accumulate<S: Simd, const W: usize, const X: usize>(
        simd: S,
        w: [Row<'_>; W],
        x: [Row<'_>; X],
        panel: Range<usize>,
        sums: &mut [[S::F32; X]; W],
    );

    /// Products of `W` rows of the file with one prepared row of activations.
    fn dot<S: Simd, const W: usize>(simd: S, packed: [&[u8]; W], x: Row<'_>) -> [f32; W];
}

/// Numbers of the file become f32 and meet f32 activations: nothing is rounded but sums.
pub(crate) struct Floats<E>(PhantomData<E>);

/// A tensor type with one number per element.
pub(crate) trait Element: Send + Sync + 'static {
    /// An element in the file.
    type Packed: Copy + Default;

    fn elements(row: &[u8]) -> &[Self::Packed];

    fn load<S: Simd>(simd: S, chunk: &S::Chunk<Self::Packed>) -> S::F32;
}

impl<E: Element> Arithmetic for Floats<E> {
    const FORM: Form = Form::Floats;

    fn row_size(n_in: usize) -> RowSize {
        RowSize {
            floats: n_in.next_multiple_of(ROW_MULTIPLE),
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
        let (chunks, tail) = S::chunks(E::elements(packed));
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

    /// A step over [`ROW_MULTIPLE`] elements has a fixed number of vectors, so the compiler unrolls it: the loop's own instructions would otherwise cost as much as the arithmetic.
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
            *steps = &row.floats[panel.clone()].as_chunks::<ROW_MULTIPLE>().0[..n_steps];
        }
        for (steps, row) in x_steps.iter_mut().zip(x) {
            *steps = &row.floats[panel.clone()].as_chunks::<ROW_MULTIPLE>().0[..n_steps];
        }
        let mut local = *sums;
        for step in 0..n_steps {
            for vector in 0..ROW_MULTIPLE / S::LANES {
                let mut x_vectors = [simd.splat(0.0); X];
                for r in 0..X {
                    x_vectors[r] = simd.load(&S::chunks(&x_steps[r][step]).0[vector]);
                }
                for o in 0..W {
                    let w_vector = simd.load(&S::chunks(&w_steps[o][step]).0[vector]);
                    for r in 0..X {
                        local[o][r] = simd.mul_add(w_vector, x_vectors[r], local[o][r]);
                    }
                }
            }
        }
        *sums = local;
    }

    #[inline(always)]
    fn dot<S: Simd, const W: usize>(simd: S, packed: [&[u8]; W], x: Row<'_>) -> [f32; W] {
        let n_chunks = S::chunks(E::elements(packed[0])).0.len();
        let (mut chunks, mut tails) = ([[].as_slice(); W], [[].as_slice(); W]);
        for ((chunks, tail), row) in chunks.iter_mut().zip(&mut tails).zip(packed) {
            let (whole, rest) = S::chunks(E::elements(row));
            (*chunks, *tail) = (&whole[..n_chunks], rest);
        }
        // The rows after these are asked for meanwhile.
        let next_rows = W * packed[0].len();
        let x = S::chunks(x.floats).0;
        let (x_chunks, x_tail) = x.split_at(n_chunks);
        let mut sums = [simd.splat(0.0); W];
        for (i, x_chunk) in x_chunks.iter().enumerate() {
            let x_vector = simd.load(x_chunk);
            for (sum, row) in sums.iter_mut().zip(&chunks) {
                simd.prefetch(
                    row[i]
                        .as_ref()
                        .as_ptr()
                        .cast::<u8>()
                        .wrapping_add(next_rows),
                );
                *sum = simd.mul_add(E::load(simd, &row[i]), x_vector, *sum);
            }
        }
        if let Some(x_chunk) = x_tail.first() {
            let x_vector = simd.load(x_chunk);
            for (sum, tail) in sums.iter_mut().zip(tails) {
                *sum = simd.mul_add(E::load(simd, &S::partial(tail)), x_vector, *sum);
            }
        }
        sums.map(|sum| simd.sum(sum))
    }
}
