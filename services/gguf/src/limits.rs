//! What a header may hold at most.
//!
//! Each limit is several times what the largest published models need (a vocabulary of 262,000 tokens with its merges: 16 MiB of header; 61 layers of 384 experts: 70,000 extents) and keeps the
//! memory that a hostile file can claim to a few times the limit on its header.

/// Bytes before the data section.
pub const HEADER_BYTES: u64 = 64 << 20;

/// Metadata entries of one file.
pub const METADATA_COUNT: u64 = 1 << 16;

/// Tensors of one file.
pub const TENSOR_COUNT: u64 = 1 << 16;

/// Experts that share one tensor.
pub const EXPERT_COUNT: u64 = 1 << 12;

/// Extents of one directory.
pub const EXTENT_COUNT: u64 = 1 << 20;

/// Bytes of a metadata key. Source: the GGUF specification.
pub const KEY_BYTES: u64 = (1 << 16) - 1;

/// Bytes of a tensor name. ggml stops at 64; files of other tools exceed it.
pub const NAME_BYTES: u64 = 1 << 16;

/// `general.alignment`, in bytes.
pub const ALIGNMENT: u32 = 1 << 20;
