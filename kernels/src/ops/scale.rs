//! Factors and bounds on single numbers.

use super::check::Check;
use crate::ops::Activation;
use crate::{Device, OpError, Tensor, reference};

/// Multiplies every element: `x *= factor`.
///
/// # Errors
/// The check on who owns the memory.
pub fn scale(x: &mut Tensor, factor: f32) -> Result<(), OpError> {
    if let Device::Hip(hip) = &x.device().clone() {
        let check = Check("scale");
        let count = x.n_rows() * x.row_len();
        return Ok(hip.scale(count, check.resident_mut("x", x)?, factor)?);
    }
    each("scale", x, |x| {
        for x in x {
            *x *= factor;
        }
    })
}

/// Sets every element to zero.
///
/// # Errors
/// The check on who owns the memory.
pub fn clear(x: &mut Tensor) -> Result<(), OpError> {
    if let Device::Hip(hip) = &x.device().clone() {
        let check = Check("clear");
        let count = x.n_rows() * x.row_len();
        return Ok(hip.clear(count, check.resident_mut("x", x)?)?);
    }
    each("clear", x, |x| x.fill(0.0))
}

/// Holds every element within a bound that it approaches: `x = cap · tanh(x / cap)`.
///
/// # Errors
/// The check on who owns the memory.
pub fn soft_cap(x: &mut Tensor, cap: f32) -> Result<(), OpError> {
    if let Device::Hip(hip) = &x.device().clone() {
        let check = Check("soft_cap");
        let count = x.n_rows() * x.row_len();
        return Ok(hip.soft_cap(count, check.resident_mut("x", x)?, cap)?);
    }
    each("soft_cap", x, |x| {
        for x in x {
            *x = cap * (*x / cap).tanh();
        }
    })
}

/// Multiplies each row with the sigmoid of a number of its own: `x[r, i] *= 1 / (1 + exp(-gate[r]))`.
///
/// `x`: `[rows, n]`; `gate`: `[rows, 1]`.
///
/// # Errors
/// The checks on shape and device.
pub fn gate_rows(x: &mut Tensor, gate: &Tensor) -> Result<(), OpError> {
    let check = Check("gate_rows");
    let device = check.same_device(gate.device(), &[("x", x.device())])?;
    let [rows, cols] = check.two_dims("x", x)?;
    check.shape("gate", gate, &[rows, 1])?;
    if let Device::Hip(hip) = device {
        let gate = check.resident("gate", gate)?;
        return Ok(hip.gate_rows([rows, cols], check.resident_mut("x", x)?, gate)?);
    }
    let gates = check.activations("gate", gate)?.data;
    let x = check.activations_mut("x", x)?;
    match device {
        Device::Hip(_) => return Err(check.not_on(device)),
        // One exponential for each row.
        Device::Reference | Device::Cpu(_) => {
            for (row, gate) in x.chunks_exact_mut(cols).zip(gates) {
                let factor = 1.0 / (1.0 + (-gate).exp());
                for x in row {
                    *x *= factor;
                }
            }
        }
    }
    Ok(())
}

/// Applies a non-linear function: `x = activation(x)`.
///
/// # Errors
/// The check on who owns the memory.
pub fn activate_alone(x: &mut Tensor, activation: Activation) -> Result<(), OpError> {
    let check = Check("activate_alone");
    let device = x.device().clone();
    if let Device::Hip(hip) = &device {
        let shape = check.two_dims("x", x)?;
        return Ok(hip.activate_alone(shape, check.resident_mut("x", x)?, activation)?);
    }
    let x = check.activations_mut("x", x)?;
    match device {
        Device::Reference => {
            for x in x {
                *x = reference::active(activation, *x);
            }
        }
        Device::Cpu(cpu) => cpu.activate_alone(x, activation),
        Device::Hip(_) => return Err(check.not_on(&device)),
    }
    Ok(())
}

fn each(op: &'static str, x: &mut Tensor, f: impl Fn(&mut [f32]) + Sync) -> Result<(), OpError> {
    let device = x.device().clone();
    let check = Check(op);
    let x = check.activations_mut("x", x)?;
    match device {
        Device::Reference => f(x),
        Device::Cpu(cpu) => cpu.in_place(x, f),
        Device::Hip(_) => return Err(check.not_on(&device)),
    }
    Ok(())
}
