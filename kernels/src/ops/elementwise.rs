//! Operations that look at one row, or one element, at a time.

use super::check::{Check, on_gpu};
use crate::{Device, OpError, Tensor, reference};

/// The non-linear function of a feed-forward network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x / (1 + exp(-x))`.
    Silu,
    /// `x · Φ(x)` by the usual approximation: `x / (1 + exp(-2 sqrt(2/π) (x + 0.044715 x³)))`. Source: arXiv:1606.08415.
    GeluTanh,
    /// `x · Φ(x)`, with the normal distribution Φ itself.
    Gelu,
    /// `max(x, 0)²`. Source: arXiv:2109.08668.
    ReluSquared,
    /// A gate `x / (1 + exp(-1.702 x))` of at most 7, and what it lets through held to ±7 and moved by 1.
    Clamped,
}

/// Normalises each row of `x` by its root mean square and scales by `weight`.
///
/// `x`: `[rows, n_embd]`; `weight`: `[n_embd]` F32; `out`: same shape as `x`. `eps` comes from `{arch}.attention.layer_norm_rms_epsilon`. Source: arXiv:1910.07467.
///
/// # Errors
/// The checks on shape, type and device.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32, out: &mut Tensor) -> Result<(), OpError> {
    let check = Check("rms_norm");
    check.same_device(
        x.device(),
        &[("weight", weight.device()), ("out", out.device())],
    )?;
    let shape = check.two_dims("x", x)?;
    let [_, cols] = shape;
    check.vector_shape("weight", weight, cols)?;
    check.shape("out", out, x.shape())?;
    match x.device() {
        Device::Reference => {
            let (x, weight) = (
                check.activations("x", x)?,
                check.vector("weight", weight, cols)?,
            );
            reference::rms_norm(x, weight, eps, check.activations_mut("out", out)?);
        }
        Device::Cpu(cpu) => {
            let (x, weight) = (
                check.activations("x", x)?,
                check.vector("weight", weight, cols)?,
            );
            cpu.rms_norm(x, weight, eps, check.activations_mut("out", out)?);
        }
        Device::Hip(hip) => {
            let x = check.resident("x", x)?;
            hip.rms_norm(
                shape,
                x,
                on_gpu(weight),
                eps,
                check.resident_mut("out", out)?,
            )?;
        }
    }
    Ok(())
}

/// Adds element by element: `x += y`. Both have the same shape.
///
/// # Errors
/// The checks on shape and device.
pub fn add(x: &mut Tensor, y: &Tensor) -> Result<(), OpError> {
    let check = Check("add");
    let device = check.same_device(y.device(), &[("x", x.device())])?;
    check.shape("x", x, y.shape())?;
    let shape = check.two_dims("y", y)?;
    match device {
        Device::Reference => {
            let y = check.activations("y", y)?;
            reference::add(check.activations_mut("x", x)?, y.data);
        }
        Device::Cpu(cpu) => {
            let y = check.activations("y", y)?;
            cpu.add(check.activations_mut("x", x)?, y.data);
        }
        Device::Hip(hip) => {
            let y = check.resident("y", y)?;
            hip.add(shape, check.resident_mut("x", x)?, y)?;
        }
    }
    Ok(())
}

/// The gate of a feed-forward network: `out = activation(gate) · up`. All have the same shape.
///
/// # Errors
/// The checks on shape and device.
pub fn activate(
    gate: &Tensor,
    up: &Tensor,
    out: &mut Tensor,
    activation: Activation,
) -> Result<(), OpError> {
    let check = Check("activate");
    let device = check.same_device(gate.device(), &[("up", up.device()), ("out", out.device())])?;
    let shape = check.two_dims("gate", gate)?;
    check.shape("up", up, gate.shape())?;
    check.shape("out", out, gate.shape())?;
    match device {
        Device::Reference => {
            let (gate, up) = (
                check.activations("gate", gate)?,
                check.activations("up", up)?,
            );
            let out = check.activations_mut("out", out)?;
            reference::activate(gate.data, up.data, activation, out);
        }
        Device::Cpu(cpu) => {
            let (gate, up) = (
                check.activations("gate", gate)?,
                check.activations("up", up)?,
            );
            let out = check.activations_mut("out", out)?;
            cpu.activate(gate.data, up.data, activation, out);
        }
        Device::Hip(hip) => {
            let (gate, up) = (check.resident("gate", gate)?, check.resident("up", up)?);
            hip.activate(shape, gate, up, activation, check.resident_mut("out", out)?)?;
        }
    }
    Ok(())
}
