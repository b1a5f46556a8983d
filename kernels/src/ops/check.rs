//! The checks that operations share. After them, kernels index without a doubt.

use gguf::TensorType;

use crate::operands::{Activations, Matrix, Vector};
use crate::{Device, KvShape, OpError, RowIndex, Tensor, hip};

/// Checks of one operation: its name is in every refusal.
#[derive(Clone, Copy)]
pub(super) struct Check(pub(super) &'static str);

impl Check {
    /// That a device does not have this operation.
    pub(super) fn not_on(self, device: &Device) -> OpError {
        OpError::NotOnDevice {
            op: self.0,
            device: device.kind(),
        }
    }

    /// That there are as many of something as there must be.
    pub(super) fn count(
        self,
        operand: &'static str,
        expected: usize,
        found: usize,
    ) -> Result<(), OpError> {
        if found == expected {
            return Ok(());
        }
        Err(OpError::Count {
            op: self.0,
            operand,
            expected,
            found,
        })
    }

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

    /// That a tensor is a matrix of a type that the device supports: `[n_rows, row_len]`.
    pub(super) fn matrix_shape(
        self,
        operand: &'static str,
        tensor: &Tensor,
    ) -> Result<[usize; 2], OpError> {
        let shape = self.two_dims(operand, tensor)?;
        if tensor.device().supports(tensor.tensor_type()) {
            return Ok(shape);
        }
        Err(OpError::TensorType {
            op: self.0,
            operand,
            found: tensor.tensor_type(),
        })
    }

    /// A matrix of a type that the device supports, on the processor.
    pub(super) fn matrix<'a>(
        self,
        operand: &'static str,
        tensor: &'a Tensor,
    ) -> Result<Matrix<'a>, OpError> {
        let [n_rows, row_len] = self.matrix_shape(operand, tensor)?;
        let bytes = tensor.bytes().expect(ON_PROCESSOR);
        // Every tensor's bytes were held against its shape when it was made.
        let row_bytes = bytes.len().checked_div(n_rows).unwrap_or(0);
        Ok(Matrix {
            tensor_type: tensor.tensor_type(),
            n_rows,
            row_len,
            row_bytes,
            bytes,
        })
    }

    /// Activations to read, of two dimensions, on the processor.
    pub(super) fn activations<'a>(
        self,
        operand: &'static str,
        tensor: &'a Tensor,
    ) -> Result<Activations<'a>, OpError> {
        let [_, cols] = self.two_dims(operand, tensor)?;
        let data = tensor.owned_f32().ok_or(self.not_owned(operand))?;
        Ok(Activations { cols, data })
    }

    /// Activations to write, on the processor.
    pub(super) fn activations_mut<'a>(
        self,
        operand: &'static str,
        tensor: &'a mut Tensor,
    ) -> Result<&'a mut [f32], OpError> {
        tensor.as_f32_mut().ok_or(self.not_owned(operand))
    }

    /// Activations to read, on a GPU.
    pub(super) fn resident<'a>(
        self,
        operand: &'static str,
        tensor: &'a Tensor,
    ) -> Result<&'a hip::Activations, OpError> {
        tensor.resident().ok_or(self.not_owned(operand))
    }

    /// Activations to write, on a GPU.
    pub(super) fn resident_mut<'a>(
        self,
        operand: &'static str,
        tensor: &'a mut Tensor,
    ) -> Result<&'a mut hip::Activations, OpError> {
        tensor.resident_mut().ok_or(self.not_owned(operand))
    }

    fn not_owned(self, operand: &'static str) -> OpError {
        OpError::NotOwned {
            op: self.0,
            operand,
        }
    }

    /// That a tensor is a vector of `len` f32 numbers.
    pub(super) fn vector_shape(
        self,
        operand: &'static str,
        tensor: &Tensor,
        len: usize,
    ) -> Result<(), OpError> {
        self.shape(operand, tensor, &[len])?;
        if tensor.tensor_type() == TensorType::F32 {
            return Ok(());
        }
        Err(OpError::TensorType {
            op: self.0,
            operand,
            found: tensor.tensor_type(),
        })
    }

    /// A vector of `len` f32 numbers, on the processor.
    pub(super) fn vector<'a>(
        self,
        operand: &'static str,
        tensor: &'a Tensor,
        len: usize,
    ) -> Result<Vector<'a>, OpError> {
        self.vector_shape(operand, tensor, len)?;
        let bytes = tensor.bytes().expect(ON_PROCESSOR);
        Ok(Vector(bytes.as_chunks().0))
    }
}

/// A weight, or a tensor of whatever kind, in a GPU's memory.
pub(super) fn on_gpu(tensor: &Tensor) -> &hip::View {
    tensor
        .device_view()
        .expect("the tensor's device was matched: it is a GPU")
}

const ON_PROCESSOR: &str = "the tensor's device was matched: it is the processor";
