//! Non-linear functions of one number.

use crate::ops::Activation;

/// `sqrt(8 / π)`: twice the slope of the approximation's hyperbolic tangent.
pub(crate) const GELU_SLOPE: f32 = 1.595_769;
/// Share of the cube in it.
pub(crate) const GELU_CUBE: f32 = 0.044_715;
/// Bounds of [`Activation::Clamped`].
pub(crate) const CLAMP: f32 = 7.0;
/// Slope of its gate.
pub(crate) const GATE_SLOPE: f32 = 1.702;

/// What a gate becomes.
pub(crate) fn active(activation: Activation, x: f32) -> f32 {
    match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluTanh => x / (1.0 + (-GELU_SLOPE * (x + GELU_CUBE * x * x * x)).exp()),
        Activation::Gelu => 0.5 * x * libm::erfcf(-x * std::f32::consts::FRAC_1_SQRT_2),
        Activation::ReluSquared => x.max(0.0) * x.max(0.0),
        Activation::Clamped => {
            let held = x.min(CLAMP);
            held / (1.0 + (-GATE_SLOPE * held).exp())
        }
    }
}

/// What a gate lets through.
pub(crate) fn let_through(activation: Activation, x: f32) -> f32 {
    match activation {
        Activation::Clamped => x.clamp(-CLAMP, CLAMP) + 1.0,
        Activation::Silu | Activation::GeluTanh | Activation::Gelu | Activation::ReluSquared => x,
    }
}
