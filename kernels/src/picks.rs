//! The tokens that a device chose.

use crate::hip::PickMemory;
use crate::{Device, OpError};

/// The most likely token of each row of logits, where [`ops::argmax`](crate::ops::argmax) puts it: four bytes of a row to bring back, instead of all of its logits.
#[derive(Debug)]
pub struct Picks {
    device: Device,
    max_rows: usize,
    picked: Vec<u32>,
    /// Where a GPU writes them.
    memory: Option<PickMemory>,
}

impl Picks {
    /// Room for the tokens of `max_rows` rows; none was chosen yet.
    ///
    /// # Errors
    /// [`OpError::Hip`] if the device has no memory for them.
    pub fn new(device: &Device, max_rows: usize) -> Result<Picks, OpError> {
        let memory = match device {
            Device::Reference | Device::Cpu(_) => None,
            Device::Hip(hip) => Some(PickMemory::new(hip, max_rows)?),
        };
        Ok(Picks {
            device: device.clone(),
            max_rows,
            picked: Vec::with_capacity(max_rows),
            memory,
        })
    }

    /// The device that chooses.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Rows that there is room for.
    #[must_use]
    pub fn max_rows(&self) -> usize {
        self.max_rows
    }

    /// The tokens of the first `rows` rows that were chosen last. Waits until the device has chosen them; nothing else waits for that.
    ///
    /// # Errors
    /// [`OpError::Count`] for more rows than there is room for, [`OpError::Hip`] if the device failed.
    pub fn read(&mut self, rows: usize) -> Result<&[u32], OpError> {
        if rows > self.max_rows {
            return Err(OpError::Count {
                op: "picks",
                operand: "rows",
                expected: self.max_rows,
                found: rows,
            });
        }
        match &mut self.memory {
            Some(memory) => memory.read(rows, &mut self.picked)?,
            // Rows of which none was chosen are 0, as in a device's fresh memory.
            None => self.picked.resize(rows.max(self.picked.len()), 0),
        }
        Ok(&self.picked[..rows])
    }

    /// Takes what was chosen at once.
    pub(crate) fn set(&mut self, picked: impl Iterator<Item = u32>) {
        self.picked.clear();
        self.picked.extend(picked);
    }

    /// Where a GPU writes them.
    pub(crate) fn memory(&self) -> Option<&PickMemory> {
        self.memory.as_ref()
    }
}
