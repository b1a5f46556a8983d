//! GGUF header bytes in, a validated [`Directory`] out.
//!
//! A GGUF file is a header (metadata, then one record per tensor) and an aligned data section. This crate reads the header alone: it never opens a file, never maps one and never sees a weight.
//! What it hands out has been proven against the length of the file: every [`Extent`] lies inside the data section and overlaps no other, so whoever holds the bytes may slice without checking again.
//!
//! # Why a prefix is enough
//! Headers are a few megabytes in front of files of many gigabytes. [`Directory::parse`] takes any prefix and answers [`ParseError::Incomplete`] with the number of bytes that it is sure to need, so
//! that a caller reads the header and hardly anything behind it.
//!
//! # Why everything is bounded
//! The file is hostile until proven otherwise. A count is compared with the bytes that could hold so many entries before it is believed, memory grows with the bytes that were really read, and
//! [`limits`] caps what a header may hold at all.
#![forbid(unsafe_code)]

mod array;
mod cursor;
mod directory;
mod error;
pub mod limits;
mod metadata;
mod metadata_error;
mod nearest;
mod parse;
mod place;
mod shape;
mod split;
mod tensor;
mod tensor_type;
mod value;
pub mod write;

pub use array::{Array, StringArray};
pub use directory::Directory;
pub use error::{Field, MetadataFault, ParseError, SplitFault, TensorFault};
pub use metadata::Metadata;
pub use metadata_error::MetadataError;
pub use nearest::MissingTensor;
pub use shape::{MAX_DIMS, Shape};
pub use split::Split;
pub use tensor::{Extent, ExtentId, TensorInfo};
pub use tensor_type::TensorType;
pub use value::{ByteString, Kind, Value, ValueType};

/// The four bytes that every GGUF file begins with.
pub const MAGIC: [u8; 4] = *b"GGUF";

/// Alignment of the data section and of every tensor in it, in bytes, where `general.alignment` does not say otherwise.
pub const DEFAULT_ALIGNMENT: u32 = 32;
