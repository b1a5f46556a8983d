//! The lazy plan: a model's layers in execution order, made of views over extents whose shapes and types have been validated.
//!
//! Building it looks at the directory alone. Its cost depends on the number of tensors and not on their size, and no byte of a tensor is read.

mod build;
mod layer;
mod take;
mod walk;

use std::ops::Range;
use std::sync::Arc;

use gguf::{Directory, ExtentId, MissingTensor, TensorType};

pub use layer::{
    Attention, Block, Embedding, Experts, FeedForward, Layer, Linear, Network, Norm, Output,
    Router, Shared,
};

use crate::config::ModelConfig;

/// A tensor that need not be on the device yet: where it lies and what it is. One expert's share of a tensor is one of these, and so are the rows of a fused tensor that belong to one projection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LazyTensor {
    /// Name of the tensor in the file, for messages.
    pub name: Arc<str>,
    /// The layout of its elements.
    pub tensor_type: TensorType,
    /// Rows first: `[n_out, n_in]`, or `[n]`.
    pub shape: Arc<[usize]>,
    /// The extent that holds it.
    pub extent: ExtentId,
    /// Where in the extent it lies: whole rows.
    pub bytes: Range<usize>,
}

/// A model's layers in execution order: the embedding, the blocks, the output.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The layers.
    pub layers: Vec<Layer<LazyTensor>>,
    /// The extents of each layer, each once, in the order of the file. Of [`Layer::Experts`] a step uses only some: those that [`Plan::chosen_extents`] names.
    pub extents: Vec<Vec<ExtentId>>,
}

/// Why the tensors do not make up the model.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// A tensor is missing.
    #[error(transparent)]
    Missing(#[from] MissingTensor),
    /// A tensor has another shape than the metadata asks for.
    #[error("tensor '{name}' has shape {found:?}, expected {expected:?} (fastest dimension first)")]
    Shape {
        /// Its name.
        name: String,
        /// Its dimensions, the fastest first.
        found: Vec<u64>,
        /// What they must be.
        expected: Vec<u64>,
    },
    /// The device has no kernel for a tensor's type.
    #[error("tensor '{name}' has type {tensor_type}, which is not supported here")]
    TensorType {
        /// Its name.
        name: String,
        /// Its type.
        tensor_type: TensorType,
    },
    /// The file has a tensor that the forward pass would not use: the model is not what its metadata says.
    #[error("tensor '{name}' is not supported: no layer of architecture '{architecture}' uses it")]
    Unused {
        /// Its name.
        name: String,
        /// `general.architecture`.
        architecture: String,
    },
}

impl Plan {
    /// Lays out the model that `config` describes. `supports` says which tensor types the device takes for matrices.
    /// # Errors
    /// [`PlanError`] names the tensor.
    pub fn build(
        config: &ModelConfig,
        directory: &Directory,
        supports: impl Fn(TensorType) -> bool,
    ) -> Result<Plan, PlanError> {
        build::build(config, directory, &supports)
    }

    /// Whether a step uses only those extents of a layer that its rows were routed to.
    pub fn is_routed(&self, layer: usize) -> bool {
        matches!(self.layers[layer], Layer::Experts(_))
    }

    /// The block whose experts a layer is, if it is one of experts.
    pub(crate) fn routed_block(&self, layer: usize) -> Option<usize> {
        match &self.layers[layer] {
            Layer::Experts(experts) => Some(experts.index),
            _ => None,
        }
    }

    /// The extents that a step needs at a layer of experts: those of the chosen ones and what all of them share, in the order of the file. Empty for other layers.
    pub fn chosen_extents(&self, layer: usize, chosen: &[u32]) -> Vec<ExtentId> {
        let Layer::Experts(experts) = &self.layers[layer] else {
            return Vec::new();
        };
        let mut needed = std::collections::BTreeSet::new();
        let mut need = |tensor: &LazyTensor| {
            needed.insert(tensor.extent);
            Ok::<(), std::convert::Infallible>(())
        };
        for &expert in chosen {
            let Ok(_) = experts.networks[expert as usize].try_map(&mut need);
        }
        if let Some(norm) = &experts.post_norm {
            let Ok(_) = norm.try_map(&mut need);
        }
        let in_order = self.extents[layer].iter();
        in_order.copied().filter(|id| needed.contains(id)).collect()
    }

    /// How many extents the layers use, each counted once.
    pub fn n_extents(&self) -> usize {
        self.distinct().len()
    }

    /// Bytes of the extents that the layers use, each counted once.
    pub fn tensor_bytes(&self, directory: &Directory) -> u64 {
        let extents = self.distinct();
        extents
            .iter()
            .map(|&id| directory.extent(id).len_bytes)
            .sum()
    }

    fn distinct(&self) -> std::collections::BTreeSet<ExtentId> {
        self.extents.iter().flatten().copied().collect()
    }
}
