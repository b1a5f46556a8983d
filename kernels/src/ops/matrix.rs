//! Operations that read matrices: embedding, product, gathering rows.

use super::check::Check;
use crate::operands::Activations;
use crate::{Device, OpError, Tensor, layout, reference};

/// Copies the table's row of each token id: `out[r] = table[ids[r]]`.
///
/// `table`: `[n_vocab, n_embd]` of any supported type; `ids`: `[rows]`; `out`: `[rows, n_embd]` f32.
///
/// # Errors
/// [`OpError::OutOfRange`] for an id that the table does not have, and the checks on shape, type and device.
pub fn embed(table: &Tensor, ids: &[u32], out: &mut Tensor) -> Result<(), OpError> {
    let check = Check("embed");
    check.same_device(table.device(), &[("out", out.device())])?;
    let matrix = check.matrix("table", table)?;
    check.shape("out", out, &[ids.len(), matrix.row_len])?;
    check.indices("token id", ids, matrix.n_rows)?;
    let unpack = layout::unpack(matrix.tensor_type).ok_or(OpError::TensorType {
        op: "embed",
        operand: "table",
        found: matrix.tensor_type,
    })?;
    let out = check.activations_mut("out", out)?;
    match table.device() {
        // A handful of rows: unpacking them one by one is as fast as memory gives them.
        Device::Reference | Device::Cpu(_) => {
            for (row, &id) in out.chunks_exact_mut(matrix.row_len).zip(ids) {
                unpack(matrix.row(id as usize), row);
            }
        }
    }
    Ok(())
}

/// Multiplies each row of `x` with the transposed weight: `out[r, o] = Σ_i weight[o, i] · x[r, i]`.
///
/// `weight`: `[n_out, n_in]` of any supported type; `x`: `[rows, n_in]` f32; `out`: `[rows, n_out]` f32. On the cpu device a Q8_0 weight meets activations that were quantised to int8 in
/// blocks of 32 (scale = largest magnitude / 127); all other types meet f32 activations.
///
/// # Errors
/// The checks on shape, type and device.
pub fn matmul(weight: &Tensor, x: &Tensor, out: &mut Tensor) -> Result<(), OpError> {
    let check = Check("matmul");
    check.same_device(weight.device(), &[("x", x.device()), ("out", out.device())])?;
    let matrix = check.matrix("weight", weight)?;
    let [rows, _] = check.two_dims("x", x)?;
    check.shape("x", x, &[rows, matrix.row_len])?;
    check.shape("out", out, &[rows, matrix.n_rows])?;
    let unpack = layout::unpack(matrix.tensor_type)
        .filter(|_| weight.device().supports(matrix.tensor_type))
        .ok_or(OpError::TensorType {
            op: "matmul",
            operand: "weight",
            found: matrix.tensor_type,
        })?;
    let x = check.activations("x", x)?;
    let out = check.activations_mut("out", out)?;
    match weight.device() {
        Device::Reference => reference::matmul(matrix, unpack, x, out),
        Device::Cpu(cpu) => cpu.matmul(matrix, x, out),
    }
    Ok(())
}

/// Copies chosen rows: `out[i] = x[rows[i]]`.
///
/// `x`: `[n, cols]`; `out`: `[rows.len(), cols]`.
///
/// # Errors
/// [`OpError::OutOfRange`] for a row that `x` does not have, and the checks on shape and device.
pub fn gather_rows(x: &Tensor, rows: &[u32], out: &mut Tensor) -> Result<(), OpError> {
    let check = Check("gather_rows");
    check.same_device(x.device(), &[("out", out.device())])?;
    let [n, cols] = check.two_dims("x", x)?;
    check.shape("out", out, &[rows.len(), cols])?;
    check.indices("row", rows, n)?;
    let Activations { data, .. } = check.activations("x", x)?;
    let out = check.activations_mut("out", out)?;
    match x.device() {
        Device::Reference | Device::Cpu(_) => {
            for (out, &row) in out.chunks_exact_mut(cols).zip(rows) {
                out.copy_from_slice(&data[row as usize * cols..][..cols]);
            }
        }
    }
    Ok(())
}
