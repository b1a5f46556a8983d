//! Weights in device memory.

use std::sync::Arc;

use gguf::TensorType;

use super::launch::repack::repack;
use super::{Hip, HipError, View};

/// A weight as the kernels read it.
#[derive(Debug)]
pub(crate) struct Weight {
    hip: Arc<Hip>,
    view: View,
}

impl Weight {
    /// A weight that somebody brought there.
    pub(crate) fn placed(hip: &Arc<Hip>, view: View) -> Weight {
        Weight {
            hip: hip.clone(),
            view,
        }
    }

    /// A copy of a file's bytes, in memory of its own.
    pub(crate) fn copied(
        hip: &Arc<Hip>,
        tensor_type: TensorType,
        bytes: &[u8],
    ) -> Result<Weight, HipError> {
        let view = hip.copied(bytes)?;
        let blocks = bytes.len() / tensor_type.block_bytes();
        let n_elements = blocks * tensor_type.block_len();
        repack(hip.stream(), hip.kernels(), tensor_type, n_elements, &view)?;
        Ok(Weight::placed(hip, view))
    }

    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    /// The first numbers of an F32 weight.
    pub(crate) fn get(&self, len: usize) -> Result<Vec<f32>, HipError> {
        numbers(&self.hip, &self.view, len)
    }
}

/// The first `len` f32 numbers of a view, once all that is enqueued is done.
pub(super) fn numbers(hip: &Hip, view: &View, len: usize) -> Result<Vec<f32>, HipError> {
    let bytes = hip.download(&view.slice(0..len * size_of::<f32>())?)?;
    Ok(bytemuck::cast_slice(bytes.bytes()).to_vec())
}
