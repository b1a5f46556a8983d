//! Keys and values in device memory.

use std::sync::Arc;

use super::{Hip, HipError, View};
use crate::KvShape;

/// The blocks of all layers.
#[derive(Debug)]
pub(crate) struct KvMemory {
    layers: Vec<KvViews>,
}

/// One layer's blocks: `[n_blocks, n_kv_heads, block_len, head_dim padded to a multiple of 32]` of the store's type each.
#[derive(Debug)]
pub(crate) struct KvViews {
    pub(crate) keys: View,
    pub(crate) values: View,
}

impl KvMemory {
    /// `None` if the size does not fit into an address.
    pub(crate) fn zeros(hip: &Arc<Hip>, shape: &KvShape) -> Result<Option<KvMemory>, HipError> {
        let bytes = |head_dim| {
            shape
                .layer_block_len(head_dim)?
                .checked_mul(shape.n_blocks)?
                .checked_mul(shape.kv_type.number_bytes())
        };
        let (Some(key_bytes), Some(value_bytes)) =
            (bytes(shape.head_dim_k), bytes(shape.head_dim_v))
        else {
            return Ok(None);
        };
        let layer = |_| {
            Ok(KvViews {
                keys: hip.zeros(key_bytes)?,
                values: hip.zeros(value_bytes)?,
            })
        };
        let layers = (0..shape.n_layers).map(layer).collect::<Result<_, _>>()?;
        Ok(Some(KvMemory { layers }))
    }

    pub(crate) fn layer(&self, layer: usize) -> &KvViews {
        &self.layers[layer]
    }
}
