//! From a file's blocks to the layout in which weights lie on the device: `kernels/hip/planes.h` says what that is.

use bytemuck::{Pod, Zeroable};
use gguf::TensorType;

use super::Kernels;
use super::operands::{Operands, grid, narrow, require};
use crate::hip::{HipError, Stream, View};

/// Numbers of a chunk.
const CHUNK_LEN: usize = 32;
/// Chunks of a panel, and threads of a block.
const PANEL_CHUNKS: usize = 64;
/// More blocks than any GPU runs at once; each takes panels until none is left.
const BLOCKS_MAX: usize = 1 << 14;

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Repack {
    weights: u64,
    chunks: u32,
    tensor_type: u32,
    blocks: u32,
    _rest: u32,
}

/// Whether kernels take this type at all.
#[must_use]
pub fn is_supported(tensor_type: TensorType) -> bool {
    is_repacked(tensor_type)
        || matches!(
            tensor_type,
            TensorType::F32 | TensorType::F16 | TensorType::BF16
        )
}

/// Whether an extent of this type must be repacked after its bytes have come and before a kernel reads it. Others stay as they are in the file.
#[must_use]
pub fn is_repacked(tensor_type: TensorType) -> bool {
    use TensorType::{
        IQ4_NL, IQ4_XS, MXFP4, Q2_K, Q3_K, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0,
    };
    matches!(
        tensor_type,
        Q4_0 | Q4_1
            | Q5_0
            | Q5_1
            | Q8_0
            | Q2_K
            | Q3_K
            | Q4_K
            | Q5_K
            | Q6_K
            | IQ4_NL
            | IQ4_XS
            | MXFP4
    )
}

/// Repacks one tensor (or one expert of one, or one of several that share one in the file) in place, so that kernels can read it; nothing for types that stay as they are. It keeps its length.
/// Enqueue it once, behind the copy that brought all of it.
///
/// `weights`: `n_elements` numbers of `tensor_type`, whole blocks as in the file; the view begins at a multiple of 16 bytes.
///
/// # Errors
/// [`HipError::Range`] if the view has another length or alignment; the call that failed.
pub fn repack(
    stream: &Stream,
    kernels: &Kernels,
    tensor_type: TensorType,
    n_elements: usize,
    weights: &View,
) -> Result<(), HipError> {
    if !is_repacked(tensor_type) {
        return Ok(());
    }
    let bytes = n_elements / tensor_type.block_len() * tensor_type.block_bytes();
    require(
        "elements of whole blocks",
        n_elements.is_multiple_of(tensor_type.block_len()),
        n_elements,
    )?;
    require(
        "address of weights",
        weights.address().is_multiple_of(16),
        weights.address(),
    )?;
    let mut operands = Operands::default();
    let chunks = n_elements / CHUNK_LEN;
    let blocks = narrow("blocks", chunks.div_ceil(PANEL_CHUNKS).min(BLOCKS_MAX))?;
    let args = Repack {
        weights: operands.address("weights", weights, bytes)?,
        chunks: narrow("chunks of an extent", chunks)?,
        tensor_type: tensor_type.id(),
        blocks,
        _rest: 0,
    };
    // SAFETY: `Repack` is the kernel's structure; it reads and writes the `bytes` bytes of the extent.
    unsafe { operands.launch(stream, &kernels.repack, grid([blocks, 1, 1], 64), args) }
}
