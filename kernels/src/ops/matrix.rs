//! Operations that read matrices: embedding, products, gathering rows.

use super::check::Check;
use crate::operands::{Keep, Matrix, Product, Vector};
use crate::ops::Activation;
use crate::{Device, OpError, RowIndex, Tensor, layout, reference};

/// A matrix and perhaps a bias, on one device.
#[derive(Debug, Clone, Copy)]
pub struct Linear<'a> {
    /// `[n_out, n_in]`, of any supported type.
    pub weight: &'a Tensor,
    /// `[n_out]` F32.
    pub bias: Option<&'a Tensor>,
}

impl<'a> From<&'a Tensor> for Linear<'a> {
    /// The matrix alone.
    fn from(weight: &'a Tensor) -> Linear<'a> {
        Linear { weight, bias: None }
    }
}

/// Copies the table's row of each row's token: `out[r] = table[ids[r]]`.
///
/// `table`: `[n_vocab, n_embd]` of any supported type; `out`: `[rows, n_embd]` f32.
///
/// # Errors
/// [`OpError::Index`] if the index lets ids pass that the table does not have, and the checks on shape, type and device.
pub fn embed(rows: &RowIndex, table: &Tensor, out: &mut Tensor) -> Result<(), OpError> {
    let check = Check("embed");
    check.same_device(
        table.device(),
        &[("rows", rows.device()), ("out", out.device())],
    )?;
    let [n_vocab, row_len] = check.matrix_shape("table", table)?;
    check.shape("out", out, &[rows.n_rows(), row_len])?;
    if rows.limits().n_vocab > n_vocab {
        return Err(OpError::Index {
            op: check.0,
            what: "n_vocab",
            expected: rows.limits().n_vocab,
            found: n_vocab,
        });
    }
    match table.device() {
        // A handful of rows: unpacking them one by one is as fast as memory gives them.
        Device::Reference | Device::Cpu(_) => {
            let matrix = check.matrix("table", table)?;
            let unpack = unpack(check, "table", &matrix)?;
            let out = check.activations_mut("out", out)?;
            for (row, &id) in out.chunks_exact_mut(row_len).zip(rows.ids()) {
                unpack(matrix.row(id as usize), row);
            }
        }
        Device::Hip(hip) => hip.embed(rows, table, check.resident_mut("out", out)?)?,
    }
    Ok(())
}

/// Adds the table's row of each row's position: `out[r] += table[position of r]`.
///
/// `table`: `[n_positions, n_embd]` of any supported type; `out`: `[rows, n_embd]` f32.
///
/// # Errors
/// [`OpError::OutOfRange`] for a position that the table does not have, and the checks on shape, type and device.
pub fn add_positions(rows: &RowIndex, table: &Tensor, out: &mut Tensor) -> Result<(), OpError> {
    let check = Check("add_positions");
    check.same_device(
        table.device(),
        &[("rows", rows.device()), ("out", out.device())],
    )?;
    let [n_positions, row_len] = check.matrix_shape("table", table)?;
    check.shape("out", out, &[rows.n_rows(), row_len])?;
    let places = rows.places();
    let beyond = |place: &crate::RowPlace| place.position as usize >= n_positions;
    if let Some(entry) = places.iter().position(beyond) {
        return Err(OpError::OutOfRange {
            op: check.0,
            what: "position",
            entry,
            index: u64::from(places[entry].position),
            limit: n_positions as u64,
        });
    }
    match table.device() {
        Device::Hip(hip) => hip.add_positions(rows, table, check.resident_mut("out", out)?)?,
        Device::Reference | Device::Cpu(_) => {
            let matrix = check.matrix("table", table)?;
            let unpack = unpack(check, "table", &matrix)?;
            let out = check.activations_mut("out", out)?;
            let mut position = vec![0.0; row_len];
            for (row, place) in out.chunks_exact_mut(row_len).zip(places) {
                unpack(matrix.row(place.position as usize), &mut position);
                for (out, value) in row.iter_mut().zip(&position) {
                    *out += value;
                }
            }
        }
    }
    Ok(())
}

/// Multiplies each row of `x` with the transposed weight and adds the bias: `out[r, o] = Σ_i weight[o, i] · x[r, i] + bias[o]`.
///
/// `x`: `[rows, n_in]` f32; `out`: `[rows, n_out]` f32. On the cpu device quantised weights meet activations that were quantised to int8 in blocks as long as the
/// weight's, 32 or 256 (scale = largest magnitude / 127); F32, F16 and BF16 meet f32 activations.
///
/// # Errors
/// The checks on shape, type and device.
pub fn matmul<'a>(
    linear: impl Into<Linear<'a>>,
    x: &Tensor,
    out: &mut Tensor,
) -> Result<(), OpError> {
    products(Check("matmul"), x, Keep::Nothing, [(linear.into(), out)])
}

/// [`matmul`] whose result is added to `out`, as the residual stream wants it.
///
/// # Errors
/// As [`matmul`].
pub fn matmul_add<'a>(
    linear: impl Into<Linear<'a>>,
    x: &Tensor,
    out: &mut Tensor,
) -> Result<(), OpError> {
    products(Check("matmul_add"), x, Keep::Sum, [(linear.into(), out)])
}

/// Several products with the same `x`, each [`matmul`] bit by bit; `x` is brought into their form once.
///
/// # Errors
/// As [`matmul`]; where one is refused, none is computed.
pub fn matmul_each<const N: usize>(
    x: &Tensor,
    outs: [(Linear, &mut Tensor); N],
) -> Result<(), OpError> {
    products(Check("matmul_each"), x, Keep::Nothing, outs)
}

/// The inner half of a gated feed-forward network: `out = activation(gate · x) · (up · x)`.
///
/// `gate`, `up`: `[n_ff, n_in]` of any supported types; `x`: `[rows, n_in]`; `out`: `[rows, n_ff]`.
///
/// # Errors
/// The checks on shape, type and device.
pub fn gated(
    gate: Linear,
    up: Linear,
    activation: Activation,
    x: &Tensor,
    out: &mut Tensor,
) -> Result<(), OpError> {
    let check = Check("gated");
    let device = check.same_device(x.device(), &[("out", out.device())])?;
    let [rows, n_out] = linear_shape(check, "gate", gate, x)?;
    linear_shape(check, "up", up, x)?;
    check.shape("up", up.weight, gate.weight.shape())?;
    check.shape("out", out, &[rows, n_out])?;
    match device {
        Device::Reference => {
            let x = check.activations("x", x)?;
            let out = check.activations_mut("out", out)?;
            let (mut gates, mut ups) = (vec![0.0; out.len()], vec![0.0; out.len()]);
            for (linear, out) in [(gate, &mut gates), (up, &mut ups)] {
                let (weight, bias) = operand(check, linear)?;
                let product = Product::replacing(weight, bias, out);
                reference::matmul(product, unpack(check, "weight", &weight)?, x);
            }
            reference::activate(&gates, &ups, activation, out);
        }
        Device::Cpu(cpu) => {
            let linears = [operand(check, gate)?, operand(check, up)?];
            let x = check.activations("x", x)?;
            cpu.gated(x, linears, activation, check.activations_mut("out", out)?);
        }
        Device::Hip(hip) => {
            let x = check.resident("x", x)?;
            hip.gated(
                rows,
                x,
                [gate, up],
                activation,
                check.resident_mut("out", out)?,
            )?;
        }
    }
    Ok(())
}

/// Holds a matrix and its bias against the activations: `[rows, n_out]` of their product.
fn linear_shape(
    check: Check,
    operand: &'static str,
    linear: Linear<'_>,
    x: &Tensor,
) -> Result<[usize; 2], OpError> {
    let device = check.same_device(linear.weight.device(), &[("x", x.device())])?;
    let [n_out, n_in] = check.matrix_shape(operand, linear.weight)?;
    let [rows, _] = check.two_dims("x", x)?;
    check.shape("x", x, &[rows, n_in])?;
    if let Some(bias) = linear.bias {
        check.same_device(device, &[("bias", bias.device())])?;
        check.vector_shape("bias", bias, n_out)?;
    }
    Ok([rows, n_out])
}

/// A matrix and its bias as the processor takes them.
fn operand(check: Check, linear: Linear<'_>) -> Result<(Matrix<'_>, Option<Vector<'_>>), OpError> {
    let weight = check.matrix("weight", linear.weight)?;
    let bias = linear
        .bias
        .map(|bias| check.vector("bias", bias, weight.n_rows));
    Ok((weight, bias.transpose()?))
}

fn products<const N: usize>(
    check: Check,
    x: &Tensor,
    keep: Keep,
    outs: [(Linear, &mut Tensor); N],
) -> Result<(), OpError> {
    for (linear, out) in &outs {
        let shape = linear_shape(check, "weight", *linear, x)?;
        check.same_device(linear.weight.device(), &[("out", out.device())])?;
        check.shape("out", out, &shape)?;
    }
    match x.device() {
        Device::Reference => {
            let x = check.activations("x", x)?;
            for product in on_processor(check, keep, outs)? {
                let unpack = unpack(check, "weight", &product.weight)?;
                reference::matmul(product, unpack, x);
            }
        }
        Device::Cpu(cpu) => {
            let products = on_processor(check, keep, outs)?;
            cpu.matmul(check.activations("x", x)?, products);
        }
        Device::Hip(hip) => {
            let [rows, _] = check.two_dims("x", x)?;
            let x = check.resident("x", x)?;
            let mut products = Vec::with_capacity(N);
            for (linear, out) in outs {
                products.push((linear, check.resident_mut("out", out)?));
            }
            hip.products(rows, x, keep, products)?;
        }
    }
    Ok(())
}

/// Products as the processor takes them.
fn on_processor<'a, const N: usize>(
    check: Check,
    keep: Keep,
    outs: [(Linear<'a>, &'a mut Tensor); N],
) -> Result<Vec<Product<'a>>, OpError> {
    let mut products = Vec::with_capacity(N);
    for (linear, out) in outs {
        let (weight, bias) = operand(check, linear)?;
        let out = check.activations_mut("out", out)?;
        products.push(Product {
            weight,
            bias,
            keep,
            out,
        });
    }
    Ok(products)
}

/// How the rows of a matrix are read one by one.
fn unpack(check: Check, operand: &'static str, matrix: &Matrix) -> Result<layout::Unpack, OpError> {
    layout::unpack(matrix.tensor_type).ok_or(OpError::TensorType {
        op: check.0,
        operand,
        found: matrix.tensor_type,
    })
}

/// Copies the rows of which logits are wanted: `out[i] = x[logit_rows[i]]`.
///
/// `x`: `[rows, cols]`; `out`: `[logit rows, cols]`.
///
/// # Errors
/// The checks on shape and device.
pub fn gather_rows(rows: &RowIndex, x: &Tensor, out: &mut Tensor) -> Result<(), OpError> {
    let check = Check("gather_rows");
    check.same_device(
        x.device(),
        &[("rows", rows.device()), ("out", out.device())],
    )?;
    let [_, cols] = check.two_dims("x", x)?;
    check.shape("x", x, &[rows.n_rows(), cols])?;
    check.shape("out", out, &[rows.n_logit_rows(), cols])?;
    match x.device() {
        Device::Reference | Device::Cpu(_) => {
            let data = check.activations("x", x)?.data;
            let out = check.activations_mut("out", out)?;
            for (out, &row) in out.chunks_exact_mut(cols).zip(rows.logit_rows()) {
                out.copy_from_slice(&data[row as usize * cols..][..cols]);
            }
        }
        Device::Hip(hip) => {
            let x = check.resident("x", x)?;
            hip.gather_rows(rows, cols, x, check.resident_mut("out", out)?)?;
        }
    }
    Ok(())
}
