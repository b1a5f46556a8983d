//! Operations that are enqueued once and launched as a whole.

use std::sync::Arc;

use crate::hip::{Graph, Hip};
use crate::{Device, OpError};

/// A sequence of operations on a GPU, recorded to be run again and again on whatever the same tensors, store and [`RowIndex`](crate::RowIndex) then hold.
///
/// It keeps the memory of every operand alive, weights included: whoever wants that memory back lets go of the recording first.
#[derive(Debug)]
pub struct Recording {
    hip: Arc<Hip>,
    graph: Graph,
}

impl Recording {
    /// Enqueues all of it.
    ///
    /// # Errors
    /// [`OpError::Hip`] if the device failed.
    pub fn run(&self) -> Result<(), OpError> {
        Ok(self.graph.launch(self.hip.stream())?)
    }
}

impl Device {
    /// Whether operations can be recorded: not where they run as they are called.
    #[must_use]
    pub fn records(&self) -> bool {
        matches!(self, Device::Hip(_))
    }

    /// Records the operations that `enqueue` calls, instead of running them. All of them must have run before with operands of the same size, so that no memory is left to be allocated, and none may bring
    /// anything back to the host.
    ///
    /// `None`, and nothing is called, on a device that does not record.
    ///
    /// # Errors
    /// What `enqueue` fails with, or [`OpError::Hip`].
    pub fn record(
        &self,
        enqueue: impl FnOnce() -> Result<(), OpError>,
    ) -> Result<Option<Recording>, OpError> {
        let Device::Hip(hip) = self else {
            return Ok(None);
        };
        let graph = hip.stream().capture(|_| enqueue())?;
        Ok(Some(Recording {
            hip: hip.clone(),
            graph,
        }))
    }
}
