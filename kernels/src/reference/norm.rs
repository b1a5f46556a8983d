//! Norms of rows and of heads.

use crate::operands::{Activations, Vector};

/// `x[h, i] = x[h, i] / sqrt(mean_i(x[h, i]²) + eps) · weight[i]`, for each run `h` of `weight.len()` elements.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the mean is complete: it is rounded to f32 once"
)]
pub(crate) fn head_norm(x: &mut [f32], weight: Vector, eps: f32) {
    for head in x.chunks_exact_mut(weight.0.len()) {
        let squares = head.iter().map(|&x| f64::from(x) * f64::from(x));
        let mean = (squares.sum::<f64>() / weight.0.len() as f64) as f32;
        let scale = 1.0 / (mean + eps).sqrt();
        for (x, &weight) in head.iter_mut().zip(weight.0) {
            *x = *x * scale * f32::from_le_bytes(weight);
        }
    }
}

/// `out[r, i] = (x[r, i] - mean_i(x[r, i])) / sqrt(variance_i(x[r, i]) + eps) · weight[i] + bias[i]`
#[expect(
    clippy::cast_possible_truncation,
    reason = "mean and variance are complete, and so is each result: they are rounded to f32 once"
)]
pub(crate) fn layer_norm(
    x: Activations,
    weight: Vector,
    bias: Option<Vector>,
    eps: f32,
    out: &mut [f32],
) {
    let len = x.cols as f64;
    for (row, out) in x
        .data
        .chunks_exact(x.cols)
        .zip(out.chunks_exact_mut(x.cols))
    {
        let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / len;
        let squares = row.iter().map(|&x| (f64::from(x) - mean).powi(2));
        let variance = (squares.sum::<f64>() / len) as f32;
        let scale = 1.0 / (variance + eps).sqrt();
        for (i, (out, &x)) in out.iter_mut().zip(row).enumerate() {
            let centred = (f64::from(x) - mean) as f32;
            let bias = bias.map_or(0.0, |bias| f32::from_le_bytes(bias.0[i]));
            *out = centred * scale * f32::from_le_bytes(weight.0[i]) + bias;
        }
    }
}
