//! Norms besides that of whole rows by their root mean square.

use super::check::{Check, on_gpu};
use crate::{Device, OpError, Tensor, reference};

/// Normalises each head of `x` by its root mean square and scales by `weight`, in place.
///
/// `x`: `[rows, n]`, any number of heads beside each other; `weight`: `[head_dim]` F32, where `head_dim` divides `n`. With a weight as long as a row, the row is one head.
///
/// # Errors
/// [`OpError::Shape`] if a row is not a whole number of heads, and the checks on type and device.
pub fn head_norm(x: &mut Tensor, weight: &Tensor, eps: f32) -> Result<(), OpError> {
    let check = Check("head_norm");
    let device = check.same_device(weight.device(), &[("x", x.device())])?;
    let [rows, cols] = check.two_dims("x", x)?;
    let head_dim = weight.row_len();
    check.vector_shape("weight", weight, head_dim)?;
    if head_dim == 0 || !cols.is_multiple_of(head_dim) {
        return Err(OpError::Shape {
            op: check.0,
            operand: "x",
            expected: vec![rows, head_dim],
            found: x.shape().to_vec(),
        });
    }
    match device {
        Device::Reference => {
            let weight = check.vector("weight", weight, head_dim)?;
            reference::head_norm(check.activations_mut("x", x)?, weight, eps);
        }
        Device::Cpu(cpu) => {
            let weight = check.vector("weight", weight, head_dim)?;
            cpu.head_norm(check.activations_mut("x", x)?, weight, eps);
        }
        Device::Hip(hip) => {
            let x = check.resident_mut("x", x)?;
            hip.head_norm([rows, cols / head_dim, head_dim], x, on_gpu(weight), eps)?;
        }
    }
    Ok(())
}

/// Takes the mean off each row of `x`, divides by its standard deviation, scales by `weight` and adds `bias`.
///
/// `x`: `[rows, n_embd]`; `weight`, `bias`: `[n_embd]` F32; `out`: same shape as `x`. `eps` is added to the variance. Source: arXiv:1607.06450.
///
/// # Errors
/// The checks on shape, type and device.
pub fn layer_norm(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    eps: f32,
    out: &mut Tensor,
) -> Result<(), OpError> {
    let check = Check("layer_norm");
    check.same_device(
        x.device(),
        &[("weight", weight.device()), ("out", out.device())],
    )?;
    let shape = check.two_dims("x", x)?;
    let [_, cols] = shape;
    check.vector_shape("weight", weight, cols)?;
    if let Some(bias) = bias {
        check.same_device(x.device(), &[("bias", bias.device())])?;
        check.vector_shape("bias", bias, cols)?;
    }
    check.shape("out", out, x.shape())?;
    if let Device::Hip(hip) = x.device() {
        let (x, out) = (check.resident("x", x)?, check.resident_mut("out", out)?);
        let weights = (on_gpu(weight), bias.map(on_gpu));
        return Ok(hip.layer_norm(shape, x, weights, eps, out)?);
    }
    let weight = check.vector("weight", weight, cols)?;
    let bias = bias
        .map(|bias| check.vector("bias", bias, cols))
        .transpose()?;
    let activations = check.activations("x", x)?;
    let device = x.device();
    let out = check.activations_mut("out", out)?;
    match device {
        Device::Cpu(cpu) => cpu.layer_norm(activations, weight, bias, eps, out),
        Device::Reference | Device::Hip(_) => {
            reference::layer_norm(activations, weight, bias, eps, out);
        }
    }
    Ok(())
}
