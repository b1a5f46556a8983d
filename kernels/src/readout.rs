//! Numbers that come back to the host.

use std::ops::Range;

use crate::hip::RowReader;
use crate::{Device, OpError, Tensor};

/// Brings rows of tensors to where the processor reads them; on the processor they are there already.
#[derive(Debug)]
pub struct Readout {
    reader: Option<RowReader>,
}

impl Readout {
    /// For tensors of a device.
    #[must_use]
    pub fn new(device: &Device) -> Readout {
        Readout {
            reader: match device {
                Device::Reference | Device::Cpu(_) => None,
                Device::Hip(hip) => Some(RowReader::new(hip)),
            },
        }
    }

    /// Some rows of a tensor of activations, `[rows.len(), row_len]`. Waits until the device has computed them.
    ///
    /// # Errors
    /// [`OpError::OutOfRange`] for rows that the tensor does not have, [`OpError::NotOwned`] for one that is not of activations on this device, [`OpError::Hip`] if the device failed.
    pub fn rows<'a>(
        &'a mut self,
        tensor: &'a Tensor,
        rows: Range<usize>,
    ) -> Result<&'a [f32], OpError> {
        if rows.start > rows.end || rows.end > tensor.n_rows() {
            return Err(OpError::OutOfRange {
                op: "readout",
                what: "row",
                entry: 0,
                index: rows.end as u64,
                limit: tensor.n_rows() as u64,
            });
        }
        let not_owned = OpError::NotOwned {
            op: "readout",
            operand: "tensor",
        };
        let numbers = rows.start * tensor.row_len()..rows.end * tensor.row_len();
        match &mut self.reader {
            None => Ok(&tensor.owned_f32().ok_or(not_owned)?[numbers]),
            Some(reader) => {
                let view = tensor.resident().ok_or(not_owned)?.numbers();
                Ok(reader.read(view, numbers)?)
            }
        }
    }
}
