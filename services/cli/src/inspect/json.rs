//! A directory for programs.

use gguf::{Array, Kind, TensorInfo, Value};
use serde::{Serialize, Serializer};

use crate::inspect::{Inspected, text::Sections};

/// A model.
#[derive(Serialize)]
pub(super) struct File<'a> {
    files: Vec<Part>,
    version: u32,
    alignment: u32,
    tensor_bytes: u64,
    extent_count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Vec<Entry<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tensors: Option<Vec<Tensor<'a>>>,
}

/// One file of it.
#[derive(Serialize)]
struct Part {
    path: String,
    file_bytes: u64,
    header_bytes: u64,
}

/// One metadata entry.
#[derive(Serialize)]
struct Entry<'a> {
    key: &'a str,
    #[serde(rename = "type")]
    type_name: String,
    value: Plain<'a>,
}

/// One tensor.
#[derive(Serialize)]
struct Tensor<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    type_name: &'static str,
    shape: &'a [u64],
    split_index: u16,
    offset_bytes: u64,
    length_bytes: u64,
    extent_count: usize,
}

impl<'a> File<'a> {
    /// The sections that were asked for.
    pub(super) fn new(inspected: &'a Inspected, sections: &Sections) -> File<'a> {
        let directory = &inspected.directory;
        let files = inspected
            .files
            .iter()
            .zip(0..)
            .map(|(part, split_index)| Part {
                path: part.path.display().to_string(),
                file_bytes: part.file_bytes,
                header_bytes: directory.header_len(split_index),
            });
        File {
            files: files.collect(),
            version: directory.version(),
            alignment: directory.alignment(),
            tensor_bytes: directory.tensor_bytes(),
            extent_count: directory.extents().len(),
            metadata: sections
                .metadata
                .then(|| directory.metadata().iter().map(Entry::from).collect()),
            tensors: sections
                .tensors
                .then(|| directory.tensors().iter().map(Tensor::from).collect()),
        }
    }
}

impl<'a> From<(&'a str, &'a Value)> for Entry<'a> {
    fn from((key, value): (&'a str, &'a Value)) -> Entry<'a> {
        let type_name = match value.kind() {
            Kind::Many(element) => format!("array<{element}>"),
            kind => kind.to_string(),
        };
        Entry {
            key,
            type_name,
            value: Plain(value),
        }
    }
}

impl<'a> From<&'a TensorInfo> for Tensor<'a> {
    fn from(tensor: &'a TensorInfo) -> Tensor<'a> {
        Tensor {
            name: &tensor.name,
            type_name: tensor.tensor_type.name(),
            shape: tensor.shape.dims(),
            split_index: tensor.split_index,
            offset_bytes: tensor.offset_bytes,
            length_bytes: tensor.len_bytes,
            extent_count: tensor.extents.len(),
        }
    }
}

/// A value as JSON has it: what is not UTF-8 becomes U+FFFD, and numbers that JSON does not have become null.
struct Plain<'a>(&'a Value);

impl Serialize for Plain<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::U8(v) => v.serialize(serializer),
            Value::I8(v) => v.serialize(serializer),
            Value::U16(v) => v.serialize(serializer),
            Value::I16(v) => v.serialize(serializer),
            Value::U32(v) => v.serialize(serializer),
            Value::I32(v) => v.serialize(serializer),
            Value::U64(v) => v.serialize(serializer),
            Value::I64(v) => v.serialize(serializer),
            Value::F32(v) => v.serialize(serializer),
            Value::F64(v) => v.serialize(serializer),
            Value::Bool(v) => v.serialize(serializer),
            Value::String(v) => String::from_utf8_lossy(v.as_bytes()).serialize(serializer),
            Value::Array(array) => serialize_array(array, serializer),
        }
    }
}

fn serialize_array<S: Serializer>(array: &Array, serializer: S) -> Result<S::Ok, S::Error> {
    match array {
        Array::U8(v) => v.serialize(serializer),
        Array::I8(v) => v.serialize(serializer),
        Array::U16(v) => v.serialize(serializer),
        Array::I16(v) => v.serialize(serializer),
        Array::U32(v) => v.serialize(serializer),
        Array::I32(v) => v.serialize(serializer),
        Array::U64(v) => v.serialize(serializer),
        Array::I64(v) => v.serialize(serializer),
        Array::F32(v) => v.serialize(serializer),
        Array::F64(v) => v.serialize(serializer),
        Array::Bool(v) => v.serialize(serializer),
        Array::String(v) => serializer.collect_seq(v.iter().map(String::from_utf8_lossy)),
    }
}
