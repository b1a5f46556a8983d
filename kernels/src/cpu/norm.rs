//! Norms of rows and of heads. Rows go to different threads, sums never do.

use super::Cpu;
use super::simd::{Kernel, Simd};
use crate::operands::{Activations, Vector};

/// Normalises each run of `weight.len()` elements by its root mean square, in place.
pub(super) fn head_norm(cpu: &Cpu, x: &mut [f32], weight: Vector, eps: f32) {
    let work = x.len();
    let heads = x.chunks_exact_mut(weight.0.len());
    cpu.workers.for_each(heads, work, |head| {
        cpu.isa.run(HeadNorm { head, weight, eps });
    });
}

struct HeadNorm<'a> {
    head: &'a mut [f32],
    weight: Vector<'a>,
    eps: f32,
}

impl Kernel for HeadNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mean = sum(simd, self.head, |simd, x| simd.mul(x, x)) / self.head.len() as f32;
        let scale = 1.0 / (mean + self.eps).sqrt();
        for (x, &weight) in self.head.iter_mut().zip(self.weight.0) {
            *x = *x * scale * f32::from_le_bytes(weight);
        }
    }
}

/// `out[r, i] = (x[r, i] - mean_i(x[r, i])) / sqrt(variance_i(x[r, i]) + eps) · weight[i] + bias[i]`
pub(super) fn layer_norm(
    cpu: &Cpu,
    x: Activations,
    weight: Vector,
    bias: Option<Vector>,
    eps: f32,
    out: &mut [f32],
) {
    let rows = x
        .data
        .chunks_exact(x.cols)
        .zip(out.chunks_exact_mut(x.cols));
    cpu.workers.for_each(rows, x.data.len(), |(x, out)| {
        cpu.isa.run(LayerNorm {
            x,
            weight,
            bias,
            eps,
            out,
        });
    });
}

struct LayerNorm<'a> {
    x: &'a [f32],
    weight: Vector<'a>,
    bias: Option<Vector<'a>>,
    eps: f32,
    out: &'a mut [f32],
}

impl Kernel for LayerNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let len = self.x.len() as f32;
        let mean = sum(simd, self.x, |_, x| x) / len;
        for (out, &x) in self.out.iter_mut().zip(self.x) {
            *out = x - mean;
        }
        let variance = sum(simd, self.out, |simd, x| simd.mul(x, x)) / len;
        let scale = 1.0 / (variance + self.eps).sqrt();
        for (out, &weight) in self.out.iter_mut().zip(self.weight.0) {
            *out = *out * scale * f32::from_le_bytes(weight);
        }
        if let Some(bias) = self.bias {
            for (out, &bias) in self.out.iter_mut().zip(bias.0) {
                *out += f32::from_le_bytes(bias);
            }
        }
    }
}

/// `Σ_i f(x[i])`, lane by lane, then the lanes. `f` of zero is zero.
#[inline(always)]
fn sum<S: Simd>(simd: S, x: &[f32], f: impl Fn(S, S::F32) -> S::F32) -> f32 {
    let (chunks, tail) = S::chunks(x);
    let mut sum = simd.splat(0.0);
    for chunk in chunks {
        sum = simd.add(sum, f(simd, simd.load(chunk)));
    }
    sum = simd.add(sum, f(simd, simd.load(&S::partial(tail))));
    simd.sum(sum)
}
