//! Plain float32 truth: one loop per index of the formula, in order, one thread.
//!
//! Numbers that an operation takes and gives are f32. Sums are kept in f64 until they are complete, so that what is left is the rounding of the result and not of the order of a sum: the
//! other devices are compared with this one, each with its own order.

mod activation;
mod attention;
mod norm;

pub(crate) use activation::{CLAMP, GATE_SLOPE, GELU_CUBE, GELU_SLOPE, active, let_through};
pub(crate) use attention::attention;
pub(crate) use norm::{head_norm, layer_norm};

use crate::index::RowPlace;
use crate::layout::Unpack;
use crate::operands::{Activations, Keep, Product, Vector};
use crate::ops::Activation;
use crate::rope::{RopeKind, RopeTable};

/// `out[r, o] = Σ_i weight[o, i] · x[r, i] + bias[o]`, or that added to `out`.
pub(crate) fn matmul(product: Product, unpack: Unpack, x: Activations) {
    let Product {
        weight,
        bias,
        keep,
        out,
    } = product;
    let mut weight_row = vec![0.0; weight.row_len];
    for o in 0..weight.n_rows {
        unpack(weight.row(o), &mut weight_row);
        for r in 0..x.n_rows() {
            let mut result = dot(&weight_row, x.row(r));
            if let Some(bias) = bias {
                result += bias.get(o);
            }
            match keep {
                Keep::Nothing => out[r * weight.n_rows + o] = result,
                Keep::Sum => out[r * weight.n_rows + o] += result,
            }
        }
    }
}

/// `Σ_i a[i] · b[i]`
#[expect(
    clippy::cast_possible_truncation,
    reason = "the sum is complete: it is rounded to f32 once"
)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sum = 0.0;
    for (&a, &b) in a.iter().zip(b) {
        sum += f64::from(a) * f64::from(b);
    }
    sum as f32
}

/// `out[r, i] = x[r, i] / sqrt(mean_i(x[r, i]²) + eps) · weight[i]`
#[expect(
    clippy::cast_possible_truncation,
    reason = "the mean is complete: it is rounded to f32 once"
)]
pub(crate) fn rms_norm(x: Activations, weight: Vector, eps: f32, out: &mut [f32]) {
    for (r, out) in out.chunks_exact_mut(x.cols).enumerate() {
        let row = x.row(r);
        let mut sum = 0.0;
        for &value in row {
            sum += f64::from(value) * f64::from(value);
        }
        let mean = (sum / x.cols as f64) as f32;
        let scale = 1.0 / (mean + eps).sqrt();
        for ((out, &value), &weight) in out.iter_mut().zip(row).zip(weight.0) {
            *out = value * scale * f32::from_le_bytes(weight);
        }
    }
}

/// `x[i] += y[i]`
pub(crate) fn add(x: &mut [f32], y: &[f32]) {
    for (x, &y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// `out[i] = activation(gate[i]) · up[i]`
pub(crate) fn activate(gate: &[f32], up: &[f32], activation: Activation, out: &mut [f32]) {
    for ((out, &gate), &up) in out.iter_mut().zip(gate).zip(up) {
        *out = active(activation, gate) * let_through(activation, up);
    }
}

/// Rotates pair `i` of every head of each row by `position · frequency[i]`. `x`: `[rows, n_heads * head_dim]`.
pub(crate) fn rope(x: &mut [f32], places: &[RowPlace], table: &RopeTable, n_heads: usize) {
    if places.is_empty() || n_heads == 0 {
        return;
    }
    let head_dim = x.len() / places.len() / n_heads;
    let n_pairs = table.inverse_frequencies().len();
    let (mut cos, mut sin) = (vec![0.0; n_pairs], vec![0.0; n_pairs]);
    for (row, place) in x.chunks_exact_mut(n_heads * head_dim).zip(places) {
        table.cos_sin(place.position, &mut cos, &mut sin);
        for head in row.chunks_exact_mut(head_dim) {
            for i in 0..n_pairs {
                let (first, second) = match table.params().kind {
                    RopeKind::Interleaved => (2 * i, 2 * i + 1),
                    RopeKind::Halves => (i, i + n_pairs),
                };
                let (a, b) = (head[first], head[second]);
                head[first] = a * cos[i] - b * sin[i];
                head[second] = b * cos[i] + a * sin[i];
            }
        }
    }
}

/// The index of the largest number of a row; the lowest among equals. NaN is no number; 0 where nothing is above -∞.
pub(crate) fn argmax(row: &[f32]) -> u32 {
    let (mut best, mut largest) = (0, f32::NEG_INFINITY);
    for (index, &value) in (0..).zip(row) {
        if value > largest {
            (best, largest) = (index, value);
        }
    }
    best
}
