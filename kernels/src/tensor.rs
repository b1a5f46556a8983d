//! A tensor: shape, tensor type and bytes on a device.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use gguf::TensorType;

use crate::buffer::Buffer;
use crate::{Device, OpError, hip};

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
    /// Activations in a GPU's memory, at least as many as the shape needs.
    Resident(hip::Activations),
    /// A weight in a GPU's memory, as its kernels read it.
    Weight(hip::Weight),
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
        let storage = match device {
            Device::Reference | Device::Cpu(_) => {
                Storage::Owned(Buffer::zeros(n_elements).ok_or_else(no_memory)?)
            }
            Device::Hip(hip) => {
                let row_len = shape.last().copied().unwrap_or(1);
                let rows = n_elements.checked_div(row_len).unwrap_or(0);
                Storage::Resident(hip::Activations::zeros(hip, rows, row_len)?)
            }
        };
        Ok(Tensor {
            device: device.clone(),
            tensor_type: TensorType::F32,
            shape: shape.to_vec(),
            storage,
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
        match &mut tensor.storage {
            Storage::Owned(buffer) => buffer.as_mut_slice().copy_from_slice(data),
            Storage::Resident(rows) => rows.set(data)?,
            Storage::View { .. } | Storage::Weight(_) => {
                unreachable!("a tensor of zeros owns its memory")
            }
        }
        Ok(tensor)
    }

    /// A tensor that looks at `range` of the owner's bytes, without a copy and at any alignment; on a GPU, a copy of them. Any tensor type may be looked at; operations refuse those for which the
    /// device has no kernel.
    ///
    /// # Errors
    /// [`OpError::Hip`] if a copy cannot be made, [`OpError::Bytes`] if the range leaves the owner's bytes, or is not exactly as long as shape and type need.
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
        let storage = match device {
            Device::Reference | Device::Cpu(_) => Storage::View { owner, range },
            Device::Hip(hip) => {
                let bytes = &(*owner).as_ref()[range];
                Storage::Weight(hip::Weight::copied(hip, tensor_type, bytes)?)
            }
        };
        Ok(Tensor {
            device: device.clone(),
            tensor_type,
            shape: shape.to_vec(),
            storage,
        })
    }

    /// A tensor that looks at a weight in a GPU's memory, which holds it as the kernels read it: behind [`repack`](hip::launch::repack::repack) for the types that need it.
    ///
    /// # Errors
    /// [`OpError::Bytes`] if the view is not exactly as long as shape and type need, [`OpError::Device`] if it lies on another GPU.
    pub fn from_view(
        hip: &Arc<hip::Hip>,
        tensor_type: TensorType,
        shape: &[usize],
        view: hip::View,
    ) -> Result<Tensor, OpError> {
        let expected = byte_count(tensor_type, shape);
        if expected != Some(view.len() as u64) {
            return Err(OpError::Bytes {
                tensor_type,
                shape: shape.to_vec(),
                expected,
                found: view.len() as u64,
            });
        }
        if !view.gpu().same_as(hip.gpu()) {
            return Err(OpError::Device {
                op: "from_view",
                operand: "view",
                expected: hip.description(),
                found: format!("hip:{}", view.gpu().ordinal()),
            });
        }
        Ok(Tensor {
            device: Device::Hip(hip.clone()),
            tensor_type,
            shape: shape.to_vec(),
            storage: Storage::Weight(hip::Weight::placed(hip, view)),
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
    /// [`OpError::TensorType`] for a type that this crate cannot unpack where it lies, [`OpError::Hip`] if the device failed.
    pub fn to_f32(&self) -> Result<Vec<f32>, OpError> {
        let n_elements = self.n_rows() * self.row_len();
        match &self.storage {
            Storage::Resident(rows) => return Ok(rows.get(n_elements)?),
            Storage::Weight(weight) if self.tensor_type == TensorType::F32 => {
                return Ok(weight.get(n_elements)?);
            }
            _ => {}
        }
        let row_bytes = self
            .tensor_type
            .row_bytes(self.row_len() as u64)
            .and_then(|n| usize::try_from(n).ok());
        let (Some(row_bytes), Some(unpack), Some(bytes)) = (
            row_bytes,
            crate::layout::unpack(self.tensor_type),
            self.bytes(),
        ) else {
            return Err(OpError::TensorType {
                op: "to_f32",
                operand: "tensor",
                found: self.tensor_type,
            });
        };
        let mut values = vec![0.0; n_elements];
        if row_bytes > 0 {
            for (bytes, row) in bytes
                .chunks_exact(row_bytes)
                .zip(values.chunks_exact_mut(self.row_len()))
            {
                unpack(bytes, row);
            }
        }
        Ok(values)
    }

    /// The elements, where they are f32, in memory that the processor reaches and aligned: always so for tensors that [`Tensor::zeros`] and [`Tensor::from_f32`] made on the processor.
    #[must_use]
    pub fn as_f32(&self) -> Option<&[f32]> {
        match &self.storage {
            Storage::View { .. } if self.tensor_type == TensorType::F32 => {
                bytemuck::try_cast_slice(self.bytes()?).ok()
            }
            _ => self.owned_f32(),
        }
    }

    /// The elements of a tensor that owns them.
    pub(crate) fn owned_f32(&self) -> Option<&[f32]> {
        match &self.storage {
            Storage::Owned(buffer) => Some(&buffer.as_slice()[..self.n_rows() * self.row_len()]),
            _ => None,
        }
    }

    /// The elements for writing; `None` for views and in memory that the processor does not reach.
    #[must_use]
    pub fn as_f32_mut(&mut self) -> Option<&mut [f32]> {
        let n_elements = self.n_rows() * self.row_len();
        match &mut self.storage {
            Storage::Owned(buffer) => Some(&mut buffer.as_mut_slice()[..n_elements]),
            _ => None,
        }
    }

    /// Sets the first dimension, within what was allocated: one tensor serves batches of any size. Rows that come back hold what was last written to them.
    ///
    /// # Errors
    /// [`OpError::Memory`] beyond what was allocated, [`OpError::NotOwned`] for a view, [`OpError::Shape`] for a tensor without dimensions.
    pub fn set_rows(&mut self, rows: usize) -> Result<(), OpError> {
        let capacity = match &self.storage {
            Storage::Owned(buffer) => buffer.len(),
            Storage::Resident(rows) => rows.capacity(),
            Storage::View { .. } | Storage::Weight(_) => {
                return Err(OpError::NotOwned {
                    op: "set_rows",
                    operand: "tensor",
                });
            }
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
        if element_count(dims.clone()).is_none_or(|needed| needed > capacity) {
            return Err(OpError::Memory {
                shape: dims.copied().collect(),
            });
        }
        if let Storage::Resident(resident) = &mut self.storage {
            resident.forget_forms();
        }
        self.shape[0] = rows;
        Ok(())
    }

    /// The bytes of all rows, in memory that the processor reaches.
    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        match &self.storage {
            Storage::Owned(buffer) => Some(bytemuck::cast_slice(
                &buffer.as_slice()[..self.n_rows() * self.row_len()],
            )),
            Storage::View { owner, range } => Some(&(**owner).as_ref()[range.clone()]),
            Storage::Resident(_) | Storage::Weight(_) => None,
        }
    }

    /// Activations in a GPU's memory.
    pub(crate) fn resident(&self) -> Option<&hip::Activations> {
        match &self.storage {
            Storage::Resident(rows) => Some(rows),
            _ => None,
        }
    }

    /// Activations in a GPU's memory, to write.
    pub(crate) fn resident_mut(&mut self) -> Option<&mut hip::Activations> {
        match &mut self.storage {
            Storage::Resident(rows) => Some(rows),
            _ => None,
        }
    }

    /// Where the elements begin in a GPU's memory, be they activations or a weight.
    pub(crate) fn device_view(&self) -> Option<&hip::View> {
        match &self.storage {
            Storage::Resident(rows) => Some(rows.numbers()),
            Storage::Weight(weight) => Some(weight.view()),
            _ => None,
        }
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let storage = match &self.storage {
            Storage::Owned(_) => "owned",
            Storage::View { .. } => "view",
            Storage::Resident(_) => "owned",
            Storage::Weight(_) => "weight",
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
