//! From what the daemon knows to the messages of the contract.

use gguf::{Array, Directory, TensorInfo, Value};
use proto::loader::v1;
use weights::Weights;

use crate::{
    node::Node,
    registry::{Content, Model},
};

/// Array items that are sent; the rest of a vocabulary is of no use to a person.
const ARRAY_ITEMS_MAX: usize = 64;

/// A model as published, with what holds right now.
pub(crate) fn model(node: &Node, model: &Model) -> v1::Model {
    let leases =
        crate::id::ModelId::parse(&model.id).map_or(0, |id| node.leases().table.count(&id));
    let base = v1::Model {
        id: model.id.clone(),
        file_count: count(model.files.len()),
        file_bytes: model.file_bytes(),
        generation: model.generation,
        lease_count: count(leases),
        pinned: node.registry.is_pinned(&model.id),
        ..v1::Model::default()
    };
    match &model.content {
        Content::Available(weights) => available(base, weights),
        Content::Invalid { reason, .. } => v1::Model {
            status: v1::ModelStatus::Invalid.into(),
            reason: reason.clone(),
            ..base
        },
    }
}

fn available(base: v1::Model, weights: &Weights) -> v1::Model {
    let directory = weights.directory();
    let architecture = directory
        .metadata()
        .get_str("general.architecture")
        .ok()
        .flatten()
        .unwrap_or_default();
    v1::Model {
        status: v1::ModelStatus::Available.into(),
        architecture: architecture.to_owned(),
        tensor_count: count(directory.tensors().len()),
        tensor_bytes: directory.tensor_bytes(),
        directory_hash: hex(&weights.directory_hash()),
        ..base
    }
}

/// A tensor directory.
pub(crate) fn directory(
    directory: &Directory,
    generation: u64,
    omit_metadata: bool,
) -> v1::GetDirectoryResponse {
    let metadata = if omit_metadata {
        Vec::new()
    } else {
        directory
            .metadata()
            .iter()
            .map(|(key, value)| entry(key, value))
            .collect()
    };
    v1::GetDirectoryResponse {
        tensors: directory.tensors().iter().map(tensor).collect(),
        metadata,
        generation,
    }
}

fn tensor(tensor: &TensorInfo) -> v1::Tensor {
    v1::Tensor {
        name: tensor.name.clone(),
        shape: tensor.shape.dims().to_vec(),
        tensor_type: tensor.tensor_type.name().to_owned(),
        split_index: tensor.split_index.into(),
        offset_bytes: tensor.offset_bytes,
        length_bytes: tensor.len_bytes,
        extent_count: tensor.extents.end - tensor.extents.start,
    }
}

fn entry(key: &str, value: &Value) -> v1::MetadataEntry {
    let (value_type, value_json, array_length) = match value {
        Value::Array(array) => (
            format!("array<{}>", array.element_type()),
            array_json(array),
            array.len() as u64,
        ),
        scalar => (scalar.kind().to_string(), scalar_json(scalar), 0),
    };
    v1::MetadataEntry {
        key: key.to_owned(),
        value_type,
        value_json,
        array_length,
    }
}

fn scalar_json(value: &Value) -> String {
    match value {
        Value::U8(v) => v.to_string(),
        Value::I8(v) => v.to_string(),
        Value::U16(v) => v.to_string(),
        Value::I16(v) => v.to_string(),
        Value::U32(v) => v.to_string(),
        Value::I32(v) => v.to_string(),
        Value::U64(v) => v.to_string(),
        Value::I64(v) => v.to_string(),
        Value::F32(v) => float(v.is_finite(), v),
        Value::F64(v) => float(v.is_finite(), v),
        Value::Bool(v) => v.to_string(),
        Value::String(v) => text(v.as_bytes()),
        Value::Array(array) => array_json(array),
    }
}

fn array_json(array: &Array) -> String {
    match array {
        Array::U8(v) => list(v, ToString::to_string),
        Array::I8(v) => list(v, ToString::to_string),
        Array::U16(v) => list(v, ToString::to_string),
        Array::I16(v) => list(v, ToString::to_string),
        Array::U32(v) => list(v, ToString::to_string),
        Array::I32(v) => list(v, ToString::to_string),
        Array::U64(v) => list(v, ToString::to_string),
        Array::I64(v) => list(v, ToString::to_string),
        Array::F32(v) => list(v, |v| float(v.is_finite(), v)),
        Array::F64(v) => list(v, |v| float(v.is_finite(), v)),
        Array::Bool(v) => list(v, ToString::to_string),
        Array::String(v) => join(v.iter().take(ARRAY_ITEMS_MAX).map(text)),
    }
}

fn list<T>(items: &[T], json: impl Fn(&T) -> String) -> String {
    join(items.iter().take(ARRAY_ITEMS_MAX).map(json))
}

fn join(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(","))
}

/// The shortest text that reads back as the same number; JSON has no word for what is not finite.
fn float(is_finite: bool, value: &dyn std::fmt::Debug) -> String {
    if is_finite {
        format!("{value:?}")
    } else {
        "null".to_owned()
    }
}

/// A JSON string; what is not UTF-8 becomes U+FFFD.
fn text(bytes: &[u8]) -> String {
    serde_json::Value::from(String::from_utf8_lossy(bytes)).to_string()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use gguf::StringArray;

    use super::*;

    fn check(value: impl Into<Value>, value_type: &str, json: &str, array_length: u64) {
        let entry = entry("k", &value.into());
        assert_eq!(
            (
                entry.value_type.as_str(),
                entry.value_json.as_str(),
                entry.array_length
            ),
            (value_type, json, array_length)
        );
        assert!(
            serde_json::from_str::<serde_json::Value>(&entry.value_json).is_ok(),
            "{}",
            entry.value_json
        );
    }

    #[test]
    fn values_as_json() {
        check(7_u8, "u8", "7", 0);
        check(u64::MAX, "u64", "18446744073709551615", 0);
        check(-3_i32, "i32", "-3", 0);
        check(1e-5_f32, "f32", "1e-5", 0);
        check(0.1_f64, "f64", "0.1", 0);
        check(f32::NAN, "f32", "null", 0);
        check(true, "bool", "true", 0);
        check("a\"\n\u{7}é", "string", "\"a\\\"\\n\\u0007é\"", 0);
        check(
            gguf::ByteString::from(&b"\xff"[..]),
            "string",
            "\"\u{fffd}\"",
            0,
        );
        check(vec![1.5_f32, f32::INFINITY], "array<f32>", "[1.5,null]", 2);
        check(vec![true, false], "array<bool>", "[true,false]", 2);
        check(
            ["a", "b\\"].iter().collect::<StringArray>(),
            "array<string>",
            "[\"a\",\"b\\\\\"]",
            2,
        );
        check(Vec::<u32>::new(), "array<u32>", "[]", 0);
    }

    #[test]
    fn long_arrays_are_cut_and_say_so() {
        let entry = entry("k", &Value::from(vec![0_u8; 1000]));
        assert_eq!(entry.value_json.matches('0').count(), ARRAY_ITEMS_MAX);
        assert_eq!(entry.array_length, 1000);
    }

    #[test]
    fn hashes_are_hexadecimal() {
        assert_eq!(hex(&[0, 0xab, 0x0f]), "00ab0f");
    }
}
