//! Non-linear functions on vectors.

use super::simd::{Simd, exp};
use crate::ops::Activation;
use crate::reference::{CLAMP, GATE_SLOPE, GELU_CUBE, GELU_SLOPE};

/// What a gate becomes.
#[inline(always)]
pub(super) fn active<S: Simd>(simd: S, activation: Activation, x: S::F32) -> S::F32 {
    match activation {
        Activation::Silu => swish(simd, 1.0, x),
        Activation::GeluTanh => {
            let square = simd.mul(x, x);
            let slope = simd.mul_add(square, simd.splat(GELU_CUBE), simd.splat(1.0));
            swish_of(
                simd,
                x,
                simd.mul(simd.splat(GELU_SLOPE), simd.mul(x, slope)),
            )
        }
        Activation::Gelu => gelu(simd, x),
        Activation::ReluSquared => {
            let positive = simd.max(x, simd.splat(0.0));
            simd.mul(positive, positive)
        }
        Activation::Clamped => swish(simd, GATE_SLOPE, simd.min(x, simd.splat(CLAMP))),
    }
}

/// What a gate lets through.
#[inline(always)]
pub(super) fn let_through<S: Simd>(simd: S, activation: Activation, x: S::F32) -> S::F32 {
    match activation {
        Activation::Clamped => {
            let held = simd.max(simd.min(x, simd.splat(CLAMP)), simd.splat(-CLAMP));
            simd.add(held, simd.splat(1.0))
        }
        Activation::Silu | Activation::GeluTanh | Activation::Gelu | Activation::ReluSquared => x,
    }
}

/// `x / (1 + exp(-slope · x))`
#[inline(always)]
fn swish<S: Simd>(simd: S, slope: f32, x: S::F32) -> S::F32 {
    swish_of(simd, x, simd.mul(simd.splat(slope), x))
}

/// `x / (1 + exp(-y))`
#[inline(always)]
fn swish_of<S: Simd>(simd: S, x: S::F32, y: S::F32) -> S::F32 {
    let negative = simd.sub(simd.splat(0.0), y);
    simd.div(x, simd.add(simd.splat(1.0), exp(simd, negative)))
}

/// `max(x, 0) - |x| / 2 · erfc(|x| / √2)`, which needs the complementary error function for positive numbers alone: formula 7.1.26 of Abramowitz and Stegun, within 1.5e-7.
#[inline(always)]
fn gelu<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    const P: f32 = 0.327_591_1;
    const COEFFICIENTS: [f32; 5] = [
        1.061_405_4,
        -1.453_152,
        1.421_413_7,
        -0.284_496_74,
        0.254_829_6,
    ];

    let magnitude = simd.max(x, simd.sub(simd.splat(0.0), x));
    let t = simd.mul(magnitude, simd.splat(std::f32::consts::FRAC_1_SQRT_2));
    let k = simd.div(
        simd.splat(1.0),
        simd.mul_add(simd.splat(P), t, simd.splat(1.0)),
    );
    let mut polynomial = simd.splat(COEFFICIENTS[0]);
    for &coefficient in &COEFFICIENTS[1..] {
        polynomial = simd.mul_add(polynomial, k, simd.splat(coefficient));
    }
    let square = simd.mul(t, t);
    let tail = simd.mul(
        simd.mul(polynomial, k),
        exp(simd, simd.sub(simd.splat(0.0), square)),
    );
    let half = simd.mul(magnitude, simd.splat(0.5));
    simd.sub(simd.max(x, simd.splat(0.0)), simd.mul(half, tail))
}
