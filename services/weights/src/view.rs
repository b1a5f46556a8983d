//! Bytes of one extent.

use std::sync::Arc;

use gguf::ExtentId;

use crate::Weights;

/// The bytes of one extent in the mapping; keeps its [`Weights`] alive.
///
/// After [`Weights::evict`] it is still valid: touching it faults the pages in again, one by one.
#[derive(Clone, Debug)]
pub struct ExtentView {
    weights: Arc<Weights>,
    extent: ExtentId,
}

impl ExtentView {
    pub(crate) fn new(weights: Arc<Weights>, extent: ExtentId) -> ExtentView {
        ExtentView { weights, extent }
    }

    /// Which extent.
    pub fn extent(&self) -> ExtentId {
        self.extent
    }

    /// The model that it belongs to.
    pub fn weights(&self) -> &Arc<Weights> {
        &self.weights
    }
}

impl AsRef<[u8]> for ExtentView {
    fn as_ref(&self) -> &[u8] {
        self.weights.bytes(self.extent)
    }
}
