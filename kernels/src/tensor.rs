//! A tensor: shape, tensor type and bytes on a device.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use gguf::TensorType;

use crate::buffer::Buffer;
use crate::{Device, OpError};

/// Keeps memory alive that a tensor only looks at, such as a mapping of a file. It must give the same bytes each time.
pub type Owner = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// Numbers on a [`Device`], rows first: shape `[rows, cols]` is a GGUF tensor of dims `[cols, rows]`.
///
/// A tensor either owns f32 numbers (activations) or looks at bytes that somebody else owns (weights): those are used where they lie, whatever their alignment.
pub struct Tensor {
    device: Device,
    tensor_type: TensorType,
    shape: Vec<usize>,
    storage: Storage,
}

enum Storage {
    /// f32 numbers, at least as many as the shape needs.
    Owned(Buffer<f32>),
    /// A range of bytes that was checked against the owner and the shape.
    View { owner: Owner, range: Range<usize> },
}

impl Tensor {
    /// A tensor of f32 zeros. [`Tensor::set_rows`] may later use fewer rows.
    ///
    /// # Errors
    /// [`OpError::Memory`] if the machine has no such memory.
    pub fn zeros(device: &Device, shape: &[usize]) -> Result<Tensor, OpError> {
        let no_memory = || OpError::Memory {
            shape: shape.to_vec(),
        };
        let n_elements = element_count(shape).ok_or_else(no_memory)?;
        let buffer = Buffer::zeros(n_elements).ok_or_else(no_memory)?;
        Ok(Tensor {
            device: device.clone(),
            tensor_type: TensorType::F32,
            shape: shape.to_vec(),
            storage: Storage::Owned(buffer),
        })
    }

    /// A tensor with a copy of `data`, in row-major order.
    ///
    /// # Errors
    /// [`OpError::Bytes`] if `data` is not as long as the shape says, [`OpError::Memory`] if the machine has no such memory.
    pub fn from_f32(device: &Device, shape: &[usize], data: &[f32]) -> Result<Tensor, OpError> {
        let expected = element_count(shape);
        if expected != Some(data.len()) {
            return Err(OpError::Bytes {
                tensor_type: TensorType::F32,
                shape: shape.to_vec(),
                expected: expected.map(|n| 4 * n as u64),
                found: 4 * data.len() as u64,
            });
        }
        let mut tensor = Tensor::zeros(device, shape)?;
        if let Storage::Owned(buffer) = &mut tensor.storage {
            buffer.as_mut_slice().copy_from_slice(data);
        }
        Ok(tensor)
    }

    /// A tensor that looks at `range` of the owner's bytes, without a copy and at any alignment. Any tensor type may be looked at; operations refuse those for which the device has no kernel.
    ///
    /// # Errors
    /// [`OpError::Bytes`] if the range leaves the owner's bytes, or is not exactly as long as shape and type need.
    pub fn from_owner(
        device: &Device,
        tensor_type: TensorType,
        shape: &[usize],
        owner: Owner,
        range: Range<usize>,
    ) -> Result<Tensor, OpError> {
        let expected = byte_count(tensor_type, shape);
        let available = (*owner).as_ref().get(range.clone()).map_or(0, <[u8]>::len) as u64;
        if expected != Some(available) {
            return Err(OpError::Bytes {
                tensor_type,
                shape: shape.to_vec(),
                expected,
                found: available,
            });
        }
        Ok(Tensor {
            device: device.clone(),
            tensor_type,
            shape: shape.to_vec(),
            storage: Storage::View { owner, range },
        })
    }

    /// Dimensions, slowest first.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of rows: the product of all dimensions but the last.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.shape
            .split_last()
            .map_or(1, |(_, outer)| outer.iter().product())
    }

    /// Elements of a row: the last dimension.
    #[must_use]
    pub fn row_len(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// How numbers are laid out.
    #[must_use]
    pub fn tensor_type(&self) -> TensorType {
        self.tensor_type
    }

    /// The device that the tensor lives on.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// A copy of all elements as f32, in row-major order. Waits for what the device still has to write to them.
    ///
    /// # Errors
    /// [`OpError::TensorType`] for a type that this crate cannot unpack.
    pub fn to_f32(&self) -> Result<Vec<f32>, OpError> {
        let row_bytes = self
            .tensor_type
            .row_bytes(self.row_len() as u64)
            .and_then(|n| usize::try_from(n).ok());
        let (Some(row_bytes), Some(unpack)) = (row_bytes, crate::layout::unpack(self.tensor_type))
        else {
            return Err(OpError::TensorType {
                op: "to_f32",
                operand: "tensor",
                found: self.tensor_type,
            });
        };
        let mut values = vec![0.0; self.n_rows() * self.row_len()];
        if row_bytes > 0 {
            for (bytes, row) in self
                .bytes()
                .chunks_exact(row_bytes)
                .zip(values.chunks_exact_mut(self.row_len()))
            {
                unpack(bytes, row);
            }
        }
        Ok(values)
    }

    /// The elements, where they are f32, in memory that the processor reaches and aligned: always so for tensors that [`Tensor::zeros`] and [`Tensor::from_f32`] made on the devices of today.
    #[must_use]
    pub fn as_f32(&self) -> Option<&[f32]> {
        match &self.storage {
            Storage::View { .. } if self.tensor_type == TensorType::F32 => {
                bytemuck::try_cast_slice(self.bytes()).ok()
            }
            _ => self.owned_f32(),
        }
    }

    /// The elements of a tensor that owns them.
    pub(crate) fn owned_f32(&self) -> Option<&[f32]> {
        match &self.storage {
            Storage::Owned(buffer) => Some(&buffer.as_slice()[..self.n_rows() * self.row_len()]),
            Storage::View { .. } => None,
        }
    }

    /// The elements for writing; `None` for views.
    #[must_use]
    pub fn as_f32_mut(&mut self) -> Option<&mut [f32]> {
        let n_elements = self.n_rows() * self.row_len();
        match &mut self.storage {
            Storage::Owned(buffer) => Some(&mut buffer.as_mut_slice()[..n_elements]),
            Storage::View { .. } => None,
        }
    }

    /// Sets the first dimension, within what was allocated: one tensor serves batches of any size. Rows that come back hold what was last written to them.
    ///
    /// # Errors
    /// [`OpError::Memory`] beyond what was allocated, [`OpError::NotOwned`] for a view, [`OpError::Shape`] for a tensor without dimensions.
    pub fn set_rows(&mut self, rows: usize) -> Result<(), OpError> {
        let Storage::Owned(buffer) = &self.storage else {
            return Err(OpError::NotOwned {
                op: "set_rows",
                operand: "tensor",
            });
        };
        let Some((_, inner)) = self.shape.split_first() else {
            return Err(OpError::Shape {
                op: "set_rows",
                operand: "tensor",
                expected: vec![rows],
                found: Vec::new(),
            });
        };
        let dims = std::iter::once(&rows).chain(inner);
        if element_count(dims.clone()).is_none_or(|needed| needed > buffer.len()) {
            return Err(OpError::Memory {
                shape: dims.copied().collect(),
            });
        }
        self.shape[0] = rows;
        Ok(())
    }

    /// The bytes of all rows.
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.storage {
            Storage::Owned(buffer) => {
                bytemuck::cast_slice(&buffer.as_slice()[..self.n_rows() * self.row_len()])
            }
            Storage::View { owner, range } => &(**owner).as_ref()[range.clone()],
        }
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let storage = match &self.storage {
            Storage::Owned(_) => "owned",
            Storage::View { .. } => "view",
        };
        write!(
            f,
            "Tensor({} {:?}, {storage}, on {})",
            self.tensor_type.name(),
            self.shape,
            self.device.kind()
        )
    }
}

/// Number of elements of a shape, if it fits.
fn element_count<'a>(dims: impl IntoIterator<Item = &'a usize>) -> Option<usize> {
    dims.into_iter()
        .try_fold(1_usize, |product, &dim| product.checked_mul(dim))
}

/// Number of bytes of a tensor, if rows are whole blocks and the number fits.
fn byte_count(tensor_type: TensorType, shape: &[usize]) -> Option<u64> {
    let (&row_len, outer) = shape.split_last()?;
    let n_rows = u64::try_from(element_count(outer)?).ok()?;
    tensor_type
        .row_bytes(u64::try_from(row_len).ok()?)?
        .checked_mul(n_rows)
}
