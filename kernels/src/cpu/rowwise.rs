//! Operations that look at one row, or one element, at a time. Rows go to different threads, sums never do.

use super::Cpu;
use super::activation::{active, let_through};
use super::simd::{Kernel, Simd};
use crate::index::RowPlace;
use crate::operands::{Activations, Vector};
use crate::ops::Activation;
use crate::reference;
use crate::rope::RopeTable;

/// Numbers of a task where any cut will do; a multiple of every vector's length, so that only the last task has a tail.
const SPAN_LEN: usize = 1 << 13;

/// Multiply-adds that an exponential is worth.
const EXP_WORK: usize = 8;

/// `out[r, i] = x[r, i] / sqrt(mean_i(x[r, i]²) + eps) · weight[i]`
pub(super) fn rms_norm(cpu: &Cpu, x: Activations, weight: Vector, eps: f32, out: &mut [f32]) {
    let rows = x
        .data
        .chunks_exact(x.cols)
        .zip(out.chunks_exact_mut(x.cols));
    cpu.workers.for_each(rows, x.data.len(), |(x, out)| {
        cpu.isa.run(RmsNorm {
            x,
            weight,
            eps,
            out,
        })
    });
}

struct RmsNorm<'a> {
    x: &'a [f32],
    weight: Vector<'a>,
    eps: f32,
    out: &'a mut [f32],
}

impl Kernel for RmsNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (chunks, tail) = S::chunks(self.x);
        let mut squares = simd.splat(0.0);
        for chunk in chunks {
            let x = simd.load(chunk);
            squares = simd.mul_add(x, x, squares);
        }
        let x = simd.load(&S::partial(tail));
        squares = simd.mul_add(x, x, squares);
        let mean = simd.sum(squares) / self.x.len() as f32;
        let scale = 1.0 / (mean + self.eps).sqrt();
        for ((out, &x), &weight) in self.out.iter_mut().zip(self.x).zip(self.weight.0) {
            *out = x * scale * f32::from_le_bytes(weight);
        }
    }
}

/// `x[i] += y[i]`
pub(super) fn add(cpu: &Cpu, x: &mut [f32], y: &[f32]) {
    let work = x.len();
    cpu.workers.for_each(
        x.chunks_mut(SPAN_LEN).zip(y.chunks(SPAN_LEN)),
        work,
        |(x, y)| reference::add(x, y),
    );
}

/// `out[i] = activation(gate[i]) · up[i]`
pub(super) fn activate(
    cpu: &Cpu,
    gate: &[f32],
    up: &[f32],
    activation: Activation,
    out: &mut [f32],
) {
    let spans = gate
        .chunks(SPAN_LEN)
        .zip(up.chunks(SPAN_LEN))
        .zip(out.chunks_mut(SPAN_LEN));
    cpu.workers
        .for_each(spans, EXP_WORK * gate.len(), |((gate, up), out)| {
            cpu.isa.run(Activate {
                gate,
                up,
                activation,
                out,
            })
        });
}

struct Activate<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    activation: Activation,
    out: &'a mut [f32],
}

impl Kernel for Activate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let ((gates, gate_tail), (ups, up_tail), (outs, out_tail)) = (
            S::chunks(self.gate),
            S::chunks(self.up),
            S::chunks_mut(self.out),
        );
        for ((gate, up), out) in gates.iter().zip(ups).zip(outs) {
            simd.store(
                simd.mul(
                    active(simd, self.activation, simd.load(gate)),
                    let_through(simd, self.activation, simd.load(up)),
                ),
                out,
            );
        }
        let mut last = S::partial(up_tail);
        let gate = active(simd, self.activation, simd.load(&S::partial(gate_tail)));
        let up = let_through(simd, self.activation, simd.load(&last));
        simd.store(simd.mul(gate, up), &mut last);
        out_tail.copy_from_slice(&last.as_ref()[..out_tail.len()]);
    }
}

/// `x[i] = activation(x[i])`
pub(super) fn activate_alone(cpu: &Cpu, x: &mut [f32], activation: Activation) {
    let work = EXP_WORK * x.len();
    cpu.workers.for_each(x.chunks_mut(SPAN_LEN), work, |x| {
        cpu.isa.run(ActivateAlone { x, activation });
    });
}

struct ActivateAlone<'a> {
    x: &'a mut [f32],
    activation: Activation,
}

impl Kernel for ActivateAlone<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (chunks, tail) = S::chunks_mut(self.x);
        for chunk in chunks {
            let x = active(simd, self.activation, simd.load(chunk));
            simd.store(x, chunk);
        }
        let mut last = S::partial(tail);
        let x = active(simd, self.activation, simd.load(&last));
        simd.store(x, &mut last);
        tail.copy_from_slice(&last.as_ref()[..tail.len()]);
    }
}

/// Does the same to pieces of `x`, wherever they are cut.
pub(super) fn in_place(cpu: &Cpu, x: &mut [f32], f: impl Fn(&mut [f32]) + Sync) {
    let work = x.len();
    cpu.workers.for_each(x.chunks_mut(SPAN_LEN), work, f);
}

/// Rotates pair `i` of every head of each row by `position · frequency[i]`. `x`: `[rows, n_heads * head_dim]`.
pub(super) fn rope(
    cpu: &Cpu,
    x: &mut [f32],
    places: &[RowPlace],
    table: &RopeTable,
    n_heads: usize,
) {
    if places.is_empty() {
        return;
    }
    let (row_len, n_pairs) = (x.len() / places.len(), table.inverse_frequencies().len());
    let work = x.len() + places.len() * n_pairs * 4 * EXP_WORK;
    cpu.workers.for_each(
        x.chunks_exact_mut(row_len).zip(places),
        work,
        |(row, place)| {
            let mut angles = cpu.angles.take();
            let (cos, sin) = angles.at_least(2 * n_pairs).split_at_mut(n_pairs);
            table.cos_sin(place.position, cos, sin);
            for head in row.chunks_exact_mut(row_len / n_heads) {
                table.rotate(head, cos, sin);
            }
        },
    );
}
