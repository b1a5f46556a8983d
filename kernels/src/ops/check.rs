//! The checks that operations share. After them, kernels index without a doubt.

use gguf::TensorType;

use crate::operands::{Activations, Matrix, Vector};
use crate::{Device, KvShape, OpError, RowIndex, Tensor};

/// Checks of one operation: its name is in every refusal.
#[derive(Clone, Copy)]
pub(super) struct Check(pub(super) &'static str);

impl Check {
    /// That all operands are on the device of the first.
    pub(super) fn same_device<'a>(
        self,
        device: &'a Device,
        others: &[(&'static str, &Device)],
    ) -> Result<&'a Device, OpError> {
        match others.iter().find(|(_, other)| !device.same_as(other)) {
            None => Ok(device),
            Some((operand, other)) => Err(OpError::Device {
                op: self.0,
                operand,
                expected: device.description(),
                found: other.description(),
            }),
        }
    }

    /// That a tensor has exactly this shape.
    pub(super) fn shape(
        self,
        operand: &'static str,
        tensor: &Tensor,
        expected: &[usize],
    ) -> Result<(), OpError> {
        if tensor.shape() == expected {
            return Ok(());
        }
        Err(OpError::Shape {
            op: self.0,
            operand,
            expected: expected.to_vec(),
            found: tensor.shape().to_vec(),
        })
    }

    /// That a tensor has two dimensions, neither of which fixes anything yet.
    pub(super) fn two_dims(
        self,
        operand: &'static str,
        tensor: &Tensor,
    ) -> Result<[usize; 2], OpError> {
        match *tensor.shape() {
            [rows, cols] if cols > 0 => Ok([rows, cols]),
            _ => Err(OpError::Shape {
                op: self.0,
                operand,
                expected: vec![0, 0],
                found: tensor.shape().to_vec(),
            }),
        }
    }

    /// That a list has one entry for each row.
    pub(super) fn count(
        self,
        operand: &'static str,
        expected: usize,
        found: usize,
    ) -> Result<(), OpError> {
        if expected == found {
            return Ok(());
        }
        Err(OpError::Count {
            op: self.0,
            operand,
            expected,
            found,
        })
    }

    /// That an index was made for a store of this size.
    pub(super) fn index(self, rows: &RowIndex, shape: &KvShape) -> Result<(), OpError> {
        let made_for = rows.limits().kv;
        let sizes = [
            ("block_len", shape.block_len, made_for.block_len),
            ("n_blocks", shape.n_blocks, made_for.n_blocks),
        ];
        match sizes.into_iter().find(|(_, store, index)| store != index) {
            None => Ok(()),
            Some((what, found, expected)) => Err(OpError::Index {
                op: self.0,
                what,
                expected,
                found,
            }),
        }
    }

    /// That the store has the layer.
    pub(super) fn layer(self, shape: &KvShape, layer: usize) -> Result<(), OpError> {
        if layer < shape.n_layers {
            return Ok(());
        }
        Err(OpError::OutOfRange {
            op: self.0,
            what: "layer",
            entry: 0,
            index: layer as u64,
            limit: shape.n_layers as u64,
        })
    }

    /// A matrix of a type that the device supports.
    pub(super) fn matrix<'a>(
        self,
        operand: &'static str,
        tensor: &'a Tensor,
    ) -> Result<Matrix<'a>, OpError> {
        let [n_rows, row_len] = self.two_dims(operand, tensor)?;
        let tensor_type = tensor.tensor_type();
        if !tensor.device().supports(tensor_type) {
            return Err(OpError::TensorType {
                op: self.0,
                operand,
                found: tensor_type,
            });
        }
        let bytes = tensor.bytes();
        // Every tensor's bytes were held against its shape when it was made.
        let row_bytes = bytes.len().checked_div(n_rows).unwrap_or(0);
        Ok(Matrix {
            tensor_type,
            n_rows,
            row_len,
            row_bytes,
            bytes,
        })
    }

    /// Activations to read, of two dimensions.
    pub(super) fn activations<'a>(
        self,
        operand: &'static str,
        tensor: &'a Tensor,
    ) -> Result<Activations<'a>, OpError> {
        let [_, cols] = self.two_dims(operand, tensor)?;
        let data = tensor.owned_f32().ok_or(OpError::NotOwned {
            op: self.0,
            operand,
        })?;
        Ok(Activations { cols, data })
    }

    /// Activations to write.
    pub(super) fn activations_mut<'a>(
        self,
        operand: &'static str,
        tensor: &'a mut Tensor,
    ) -> Result<&'a mut [f32], OpError> {
        tensor.as_f32_mut().ok_or(OpError::NotOwned {
            op: self.0,
            operand,
        })
    }

    /// A vector of `len` f32 numbers.
    pub(super) fn vector<'a>(
        self,
        operand: &'static str,
        tensor: &'a Tensor,
        len: usize,
    ) -> Result<Vector<'a>, OpError> {
        self.shape(operand, tensor, &[len])?;
        if tensor.tensor_type() != TensorType::F32 {
            return Err(OpError::TensorType {
                op: self.0,
                operand,
                found: tensor.tensor_type(),
            });
        }
        Ok(Vector(tensor.bytes().as_chunks().0))
    }
}
