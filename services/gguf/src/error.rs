use std::fmt;

use crate::{MAX_DIMS, MetadataError, TensorType, limits};

/// Why bytes did not become a [`Directory`](crate::Directory).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The prefix is too short to tell; the file may well be valid. Parse again with at least `need_bytes` bytes: more than were given, at most the length of the file.
    #[error("incomplete header: at least {need_bytes} bytes are needed")]
    Incomplete {
        /// A lower bound.
        need_bytes: u64,
    },
    /// The file ends inside its header.
    #[error("file truncated in {field}: at least {need_bytes} bytes are needed, it has {file_len}")]
    Truncated {
        /// What was being read.
        field: Field,
        /// Length that the file would need; `u64::MAX` also stands for more than that.
        need_bytes: u64,
        /// Length that it has.
        file_len: u64,
    },
    /// The file does not begin with [`MAGIC`](crate::MAGIC).
    #[error("not a GGUF file: the magic bytes are '{}'", found.escape_ascii())]
    Magic {
        /// What it begins with.
        found: [u8; 4],
    },
    /// A version other than 2 and 3.
    #[error("GGUF version {version} is not supported, only 2 and 3 are")]
    Version {
        /// The version that the file claims.
        version: u32,
    },
    /// A file written for big-endian machines.
    #[error("big-endian GGUF file (version {version}): only little-endian files are supported")]
    BigEndian {
        /// The version, read the other way round.
        version: u32,
    },
    /// A count or a length beyond [`limits`].
    #[error("{field} of {value} exceeds the limit of {limit}")]
    OverLimit {
        /// What is too large.
        field: Field,
        /// How large it is.
        value: u64,
        /// How large it may be.
        limit: u64,
    },
    /// A metadata entry that cannot be read.
    #[error("metadata key '{key}': {fault}")]
    Metadata {
        /// The key, as far as a message can show it.
        key: String,
        /// What is wrong.
        fault: MetadataFault,
    },
    /// A metadata entry on which the layout of the file depends has the wrong type or is missing.
    #[error(transparent)]
    Value(#[from] MetadataError),
    /// A tensor that cannot be read or placed.
    #[error("tensor '{name}': {fault}")]
    Tensor {
        /// The name, as far as a message can show it.
        name: String,
        /// What is wrong.
        fault: TensorFault,
    },
    /// Files that do not belong together.
    #[error("split files: {0}")]
    Split(#[from] SplitFault),
}

/// What was being read when a limit or the end of the file was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Magic, version and counts, or the header as a whole.
    Header,
    /// The number of metadata entries.
    MetadataCount,
    /// The number of tensors.
    TensorCount,
    /// The number of extents.
    ExtentCount,
    /// The number of experts that share a tensor.
    ExpertCount,
    /// A metadata key.
    Key,
    /// A metadata value that is neither string nor array.
    Value,
    /// A metadata string.
    String,
    /// A metadata array.
    Array,
    /// The name of a tensor.
    TensorName,
    /// The dimensions, type and offset of a tensor.
    TensorRecord,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Field::Header => "header",
            Field::MetadataCount => "metadata count",
            Field::TensorCount => "tensor count",
            Field::ExtentCount => "extent count",
            Field::ExpertCount => "expert count of a tensor",
            Field::Key => "metadata key length",
            Field::Value => "metadata value",
            Field::String => "metadata string",
            Field::Array => "metadata array",
            Field::TensorName => "tensor name length",
            Field::TensorRecord => "tensor record",
        })
    }
}

/// What is wrong with a metadata entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataFault {
    /// The key is not UTF-8.
    #[error("the key is not UTF-8")]
    KeyNotUtf8,
    /// The key was there before.
    #[error("duplicate key")]
    Duplicate,
    /// A value type that the format does not have.
    #[error("unknown value type {type_id}")]
    UnknownType {
        /// The id in the file.
        type_id: u32,
    },
    /// An element type that the format does not have.
    #[error("array of unknown type {type_id}")]
    UnknownElementType {
        /// The id in the file.
        type_id: u32,
    },
    /// An array of arrays.
    #[error("array of arrays: nested arrays are not supported")]
    NestedArray,
    /// A boolean that is neither 0 nor 1.
    #[error("{byte} is no bool value")]
    NotBool {
        /// The byte in the file.
        byte: u8,
    },
    /// An alignment that is no power of two, or too large.
    #[error(
        "alignment {alignment} is not a power of two up to {}",
        limits::ALIGNMENT
    )]
    Alignment {
        /// The value in the file.
        alignment: u32,
    },
}

/// What is wrong with a tensor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TensorFault {
    /// The name is not UTF-8.
    #[error("the name is not UTF-8")]
    NameNotUtf8,
    /// The name was there before.
    #[error("duplicate name")]
    Duplicate,
    /// No dimension, or too many.
    #[error("{n_dims} dimensions, expected 1 to {MAX_DIMS}")]
    DimCount {
        /// How many the file claims.
        n_dims: u32,
    },
    /// An empty dimension.
    #[error("dimension {dim_index} is zero")]
    ZeroDim {
        /// Which one, the fastest is 0.
        dim_index: usize,
    },
    /// The number of elements or bytes leaves 64 bits.
    #[error("the dimensions overflow 64 bits")]
    TooLarge,
    /// A tensor type that is not known.
    #[error("unknown tensor type {type_id}")]
    UnknownType {
        /// The id in the file.
        type_id: u32,
    },
    /// A tensor type that ggml took out of the format.
    #[error("tensor type {type_name} (id {type_id}) was removed from the format")]
    RemovedType {
        /// The id in the file.
        type_id: u32,
        /// What it was called.
        type_name: &'static str,
    },
    /// Rows that are not a whole number of blocks.
    #[error("rows of {row_len} elements are not a multiple of the {tensor_type} block size ({})", tensor_type.block_len())]
    PartialBlock {
        /// Elements of a row.
        row_len: u64,
        /// The type that has larger blocks.
        tensor_type: TensorType,
    },
    /// An offset between two aligned ones.
    #[error("offset {offset_bytes} is not a multiple of the alignment ({alignment} bytes)")]
    Misaligned {
        /// From the start of the data section.
        offset_bytes: u64,
        /// Alignment of the file.
        alignment: u32,
    },
    /// Data beyond the end of the file.
    #[error("data of bytes {start}..{end} exceeds the file ({file_len} bytes)")]
    OutOfFile {
        /// First byte, from the start of the file.
        start: u64,
        /// One past the last byte; `u64::MAX` also stands for more than that.
        end: u64,
        /// Length of the file.
        file_len: u64,
    },
    /// Data that another tensor has too.
    #[error("data overlaps that of tensor '{other}' at byte {offset_bytes}")]
    Overlap {
        /// The tensor that begins before it, as far as a message can show it.
        other: String,
        /// First byte of this tensor, from the start of the file.
        offset_bytes: u64,
    },
}

/// Why files are not the splits of one model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SplitFault {
    /// Nothing to join.
    #[error("there is no file to join")]
    NoParts,
    /// `split.no` is not below `split.count`.
    #[error("split.no is {number}, split.count is {count}")]
    Number {
        /// `split.no`.
        number: u16,
        /// `split.count`.
        count: u16,
    },
    /// One of several files does not say which split it is.
    #[error("file {part} has no split.count of its own")]
    NotASplit {
        /// Position among the files given, from 0.
        part: usize,
    },
    /// More or fewer files than the splits say.
    #[error("file {part} belongs to {declared} splits, {given} are given")]
    Count {
        /// Position among the files given, from 0.
        part: usize,
        /// `split.count` of that file.
        declared: u16,
        /// How many files are given.
        given: usize,
    },
    /// A file in the place of another.
    #[error("file {part} is split {number}")]
    Order {
        /// Position among the files given, from 0.
        part: usize,
        /// `split.no` of that file.
        number: u16,
    },
    /// The splits together do not have the tensors that one of them announces.
    #[error("{declared} tensors are announced (split.tensors.count), the files have {found}")]
    TensorCount {
        /// `split.tensors.count`.
        declared: u64,
        /// How many there are.
        found: u64,
    },
}

/// Names come from the file and go to logs and status messages: a long one is cut and control characters are escaped.
pub(crate) fn shown(name: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 128;
    let mut shown: String = name.escape_debug().take(SHOWN_CHARS_MAX + 1).collect();
    if let Some((cut, _)) = shown.char_indices().nth(SHOWN_CHARS_MAX) {
        shown.truncate(cut);
        shown.push('…');
    }
    shown
}

impl ParseError {
    pub(crate) fn metadata(key: &str, fault: MetadataFault) -> ParseError {
        ParseError::Metadata {
            key: shown(key),
            fault,
        }
    }

    pub(crate) fn tensor(name: &str, fault: TensorFault) -> ParseError {
        ParseError::Tensor {
            name: shown(name),
            fault,
        }
    }

    pub(crate) fn over_limit(field: Field, value: u64, limit: u64) -> Result<(), ParseError> {
        if value > limit {
            Err(ParseError::OverLimit {
                field,
                value,
                limit,
            })
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_are_made_fit_for_messages() {
        let check = |name: &str, expected: &str| assert_eq!(shown(name), expected);
        check("blk.0.attn_q.weight", "blk.0.attn_q.weight");
        check("a\nb\u{1b}[31m", "a\\nb\\u{1b}[31m");
        check(&"x".repeat(128), &"x".repeat(128));
        check(&"x".repeat(129), &("x".repeat(128) + "…"));
        check(&"é".repeat(70_000), &("é".repeat(128) + "…"));
    }
}
