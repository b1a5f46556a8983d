//! The lazy plan: a model's layers in execution order, made of views over extents whose shapes and types have been validated.
//!
//! Building it looks at the directory alone. Its cost depends on the number of tensors and not on their size, and no byte of a tensor is read.

mod build;
mod layer;

use gguf::{Directory, ExtentId, MissingTensor, TensorType};

pub use layer::{Block, Embedding, Layer, Linear, Output};

use crate::config::ModelConfig;

/// A tensor that need not be on the device yet: where it lies and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LazyTensor {
    /// Its name, for messages.
    pub name: String,
    /// The layout of its elements.
    pub tensor_type: TensorType,
    /// Rows first: `[n_out, n_in]`, or `[n]`.
    pub shape: Vec<usize>,
    /// The extent that holds it, whole.
    pub extent: ExtentId,
}

/// A model's layers in execution order: the embedding, the blocks, the output.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The layers.
    pub layers: Vec<Layer<LazyTensor>>,
    /// The extents of each layer, each once, in the order of the file.
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
