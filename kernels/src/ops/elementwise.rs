//! Operations that look at one row, or one element, at a time.

use super::check::Check;
use crate::{Device, OpError, Tensor, reference};

/// The non-linear function of a feed-forward network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x / (1 + exp(-x))`.
    Silu,
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
    let [_, cols] = check.two_dims("x", x)?;
    let weight = check.vector("weight", weight, cols)?;
    check.shape("out", out, x.shape())?;
    let activations = check.activations("x", x)?;
    let out = check.activations_mut("out", out)?;
    match x.device() {
        Device::Reference => reference::rms_norm(activations, weight, eps, out),
        Device::Cpu(cpu) => cpu.rms_norm(activations, weight, eps, out),
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
    let activations = check.activations("y", y)?;
    check.shape("x", x, y.shape())?;
    let x = check.activations_mut("x", x)?;
    match device {
        Device::Reference => reference::add(x, activations.data),
        Device::Cpu(cpu) => cpu.add(x, activations.data),
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
    let gate_rows = check.activations("gate", gate)?;
    check.shape("up", up, gate.shape())?;
    check.shape("out", out, gate.shape())?;
    let up = check.activations("up", up)?;
    let out = check.activations_mut("out", out)?;
    match device {
        Device::Reference => reference::activate(gate_rows.data, up.data, activation, out),
        Device::Cpu(cpu) => cpu.activate(gate_rows.data, up.data, activation, out),
    }
    Ok(())
}
