//! What was written is what is read, for every metadata type, tensor type, shape, alignment and version.

use std::collections::BTreeMap;

use gguf::{Array, ByteString, Directory, StringArray, TensorType, Value, write::Writer};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::raw::{Raw, id};

/// A tensor to write.
#[derive(Clone, Debug)]
struct Tensor {
    dims: Vec<u64>,
    tensor_type: TensorType,
}

/// A file to write. Maps keep keys and names unique.
#[derive(Clone, Debug)]
struct Model {
    version: u32,
    alignment: Option<u32>,
    metadata: BTreeMap<String, Value>,
    tensors: BTreeMap<String, Tensor>,
}

fn any_string() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        any::<String>().prop_map(String::into_bytes),
        vec(any::<u8>(), 0..24)
    ]
}

fn any_scalar() -> impl Strategy<Value = Value> {
    // Floats come from their bits, so that each kind of NaN is among them.
    prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i8>().prop_map(Value::I8),
        any::<u16>().prop_map(Value::U16),
        any::<i16>().prop_map(Value::I16),
        any::<u32>().prop_map(Value::U32),
        any::<i32>().prop_map(Value::I32),
        any::<u64>().prop_map(Value::U64),
        any::<i64>().prop_map(Value::I64),
        any::<u32>().prop_map(|bits| Value::F32(f32::from_bits(bits))),
        any::<u64>().prop_map(|bits| Value::F64(f64::from_bits(bits))),
        any::<bool>().prop_map(Value::Bool),
        any_string().prop_map(|bytes| Value::String(ByteString::from(bytes))),
    ]
}

fn any_array() -> impl Strategy<Value = Array> {
    prop_oneof![
        vec(any::<u8>(), 0..9).prop_map(Array::U8),
        vec(any::<i8>(), 0..9).prop_map(Array::I8),
        vec(any::<u16>(), 0..9).prop_map(Array::U16),
        vec(any::<i16>(), 0..9).prop_map(Array::I16),
        vec(any::<u32>(), 0..9).prop_map(Array::U32),
        vec(any::<i32>(), 0..9).prop_map(Array::I32),
        vec(any::<u64>(), 0..9).prop_map(Array::U64),
        vec(any::<i64>(), 0..9).prop_map(Array::I64),
        vec(any::<u32>().prop_map(f32::from_bits), 0..9).prop_map(Array::F32),
        vec(any::<u64>().prop_map(f64::from_bits), 0..9).prop_map(Array::F64),
        vec(any::<bool>(), 0..9).prop_map(Array::Bool),
        vec(any_string(), 0..9).prop_map(|strings| Array::String(StringArray::from_iter(strings))),
    ]
}

fn any_metadata() -> impl Strategy<Value = BTreeMap<String, Value>> {
    let value = prop_oneof![any_scalar(), any_array().prop_map(Value::Array)];
    prop::collection::btree_map("[a-z]{1,8}\\.[a-zé_]{0,8}", value, 0..12)
}

fn any_tensor() -> impl Strategy<Value = Tensor> {
    let tensor_type = prop::sample::select(TensorType::ALL);
    (tensor_type, 1u64..4, vec(1u64..5, 0..4)).prop_map(|(tensor_type, row_blocks, rest)| {
        let mut dims = vec![row_blocks * tensor_type.block_len() as u64];
        dims.extend(rest);
        Tensor { dims, tensor_type }
    })
}

fn any_model() -> impl Strategy<Value = Model> {
    let name = prop_oneof![
        4 => "[a-z]{1,6}\\.[0-9]{1,2}\\.[a-z_ü]{0,9}",
        1 => "blk\\.[0-9]{1,2}\\.ffn_(gate|up|down|gate_up)_exps\\.(weight|bias)",
    ];
    let tensors = prop::collection::btree_map(name, any_tensor(), 0..10);
    let alignment = prop::option::of((0u32..=20).prop_map(|log2| 1 << log2));
    (2u32..=3, alignment, any_metadata(), tensors).prop_map(
        |(version, alignment, metadata, tensors)| Model {
            version,
            alignment,
            metadata,
            tensors,
        },
    )
}

fn writer(model: &Model) -> Writer {
    let mut writer = Writer::new().version(model.version);
    if let Some(alignment) = model.alignment {
        writer = writer.alignment(alignment);
    }
    for (key, value) in &model.metadata {
        writer = writer.metadata(key, value.clone());
    }
    for (name, tensor) in &model.tensors {
        writer = writer.tensor(name, &tensor.dims, tensor.tensor_type);
    }
    writer
}

/// A writer for what was read.
fn rewriter(directory: &Directory) -> Writer {
    let mut writer = Writer::new().version(directory.version());
    for (key, value) in directory.metadata().iter() {
        writer = writer.metadata(key, value.clone());
    }
    for tensor in directory.tensors() {
        writer = writer.tensor(&tensor.name, tensor.shape.dims(), tensor.tensor_type);
    }
    writer
}

fn check_tensors(model: &Model, directory: &Directory, file_len: u64) {
    let alignment = u64::from(directory.alignment());
    let mut end_of_previous = directory.header_len(0);
    assert_eq!(directory.tensors().len(), model.tensors.len());
    for (info, (name, tensor)) in directory.tensors().iter().zip(&model.tensors) {
        assert_eq!(
            (
                &info.name,
                info.shape.dims(),
                info.tensor_type,
                info.split_index
            ),
            (name, &*tensor.dims, tensor.tensor_type, 0)
        );
        let n_blocks = tensor.dims.iter().product::<u64>() / tensor.tensor_type.block_len() as u64;
        assert_eq!(
            info.len_bytes,
            n_blocks * tensor.tensor_type.block_bytes() as u64
        );
        assert!(
            info.offset_bytes.is_multiple_of(alignment) && info.offset_bytes >= end_of_previous
        );
        end_of_previous = info.offset_bytes + info.len_bytes;
        check_extents(name, tensor, directory);
    }
    assert!(end_of_previous <= file_len);
}

fn check_extents(name: &str, tensor: &Tensor, directory: &Directory) {
    let info = directory.require(name).expect("it was written");
    let expert_dims = if name.ends_with(".bias") { 2 } else { 3 };
    let has_experts = name.contains("_exps.") && tensor.dims.len() == expert_dims;
    let expected = if has_experts {
        *tensor.dims.last().expect("at least one dimension")
    } else {
        1
    };
    assert_eq!(info.extents.len() as u64, expected, "{name} {tensor:?}");
    let mut next = info.offset_bytes;
    for id in info.extent_ids() {
        let extent = directory.extent(id);
        assert_eq!(
            (extent.offset_bytes, extent.len_bytes),
            (next, info.len_bytes / expected)
        );
        next += extent.len_bytes;
    }
    assert_eq!(next, info.offset_bytes + info.len_bytes);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn written_is_read(model in any_model()) {
        let header = writer(&model).finish().expect("valid");
        let directory = Directory::parse(&header.bytes, header.file_len).expect("valid");
        prop_assert_eq!(directory.version(), model.version);
        prop_assert_eq!(directory.alignment(), model.alignment.unwrap_or(gguf::DEFAULT_ALIGNMENT));
        prop_assert_eq!(directory.header_len(0), header.bytes.len() as u64);
        prop_assert_eq!(directory.split_count(), 1);
        let keys: Vec<&str> = directory.metadata().iter().map(|(key, _)| key).filter(|&key| key != "general.alignment").collect();
        prop_assert_eq!(keys, model.metadata.keys().collect::<Vec<_>>());
        // NaN is not equal to itself, so values are compared as their types and, below, as bytes.
        for (key, value) in &model.metadata {
            prop_assert_eq!(directory.metadata().get(key).map(Value::kind), Some(value.kind()));
        }
        check_tensors(&model, &directory, header.file_len);
        prop_assert_eq!(rewriter(&directory).finish().expect("valid").bytes, header.bytes);
    }

    #[test]
    fn values_come_back_equal(metadata in any_metadata()) {
        let is_nan = |value: &Value| match value {
            Value::F32(v) => v.is_nan(),
            Value::F64(v) => v.is_nan(),
            Value::Array(Array::F32(v)) => v.iter().any(|v| v.is_nan()),
            Value::Array(Array::F64(v)) => v.iter().any(|v| v.is_nan()),
            _ => false,
        };
        let model = Model { version: 3, alignment: None, metadata, tensors: BTreeMap::new() };
        let header = writer(&model).finish().expect("valid");
        for (key, value) in model.metadata.iter().filter(|(_, value)| !is_nan(value)) {
            prop_assert_eq!(header.directory.metadata().get(key), Some(value));
        }
    }
}

#[test]
fn bytes_are_those_of_the_format() {
    let header = Writer::new()
        .version(2)
        .metadata("a", 7u32)
        .metadata("b", StringArray::from_iter(["x", ""]))
        .metadata("general.alignment", 64u32)
        .tensor("w", &[32, 2], TensorType::Q8_0)
        .tensor("v", &[3], TensorType::F32)
        .finish()
        .expect("valid");
    let expected = Raw::preamble(2, 2, 3)
        .key("a", id::U32)
        .u32(7)
        .key("b", id::ARRAY)
        .u32(id::STRING)
        .u64(2)
        .string(b"x")
        .string(b"")
        .key("general.alignment", id::U32)
        .u32(64)
        .record("w", &[32, 2], 8, 0)
        .record("v", &[3], 0, 128)
        .data(64, 0);
    assert_eq!(header.bytes, expected.0);
    assert_eq!(header.file_len, expected.0.len() as u64 + 192);
}

#[test]
fn the_writer_refuses_what_a_reader_would() {
    let check = |writer: Writer, word: &str| {
        let message = writer.finish().expect_err("must be refused").to_string();
        assert!(message.contains(word), "{message}");
    };
    check(Writer::new().version(1), "version 1");
    check(Writer::new().alignment(48), "alignment");
    check(Writer::new().alignment(1 << 31), "alignment");
    check(
        Writer::new().metadata("k", 1u8).metadata("k", 2u8),
        "duplicate",
    );
    check(
        Writer::new()
            .tensor("w", &[1], TensorType::F32)
            .tensor("w", &[1], TensorType::F32),
        "duplicate",
    );
    check(Writer::new().tensor("w", &[31], TensorType::Q8_0), "block");
    check(
        Writer::new().tensor("w", &[], TensorType::F32),
        "dimensions",
    );
    check(
        Writer::new()
            .tensor("w", &[u64::MAX / 4], TensorType::F32)
            .tensor("v", &[8], TensorType::F32),
        "overflow",
    );
}

#[test]
fn a_missing_tensor_is_named_with_its_neighbours() {
    let header = Writer::new()
        .tensor("blk.0.attn_k.weight", &[8], TensorType::F32)
        .tensor("output.weight", &[8], TensorType::F32)
        .finish()
        .expect("valid");
    let missing = header
        .directory
        .require("blk.0.attn_q.weight")
        .expect_err("it was not written");
    assert_eq!(
        missing.to_string(),
        "tensor 'blk.0.attn_q.weight' not found; the directory has 2 tensors, nearest: 'blk.0.attn_k.weight'"
    );
}
