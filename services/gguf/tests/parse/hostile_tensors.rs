//! Broken tensor records: every refusal with its error.

use gguf::{Directory, Field, ParseError, TensorFault, TensorType, limits};

use crate::hostile::check;
use crate::raw::Raw;

fn tensor_fault(name: &str, fault: TensorFault) -> ParseError {
    ParseError::Tensor {
        name: name.to_owned(),
        fault,
    }
}

/// A file whose only content is one tensor called `w`, with `data_len` bytes of data.
fn one_tensor(dims: &[u64], type_id: u32, data_offset: u64, data_len: usize) -> Raw {
    Raw::preamble(3, 1, 0)
        .record("w", dims, type_id, data_offset)
        .data(32, data_len)
}

const F32: u32 = 0;
const I8: u32 = 24;

#[test]
fn tensor_names() {
    let named = |name: &[u8]| {
        Raw::preamble(3, 1, 0)
            .string(name)
            .u32(1)
            .u64(1)
            .u32(F32)
            .u64(0)
            .data(32, 4)
    };
    check(
        named(b"a\xff"),
        tensor_fault("a\u{fffd}", TensorFault::NameNotUtf8),
        "UTF-8",
    );
    let long = Raw::preamble(3, 1, 0).u64(1 << 62).bytes(&[0; 64]);
    check(
        long,
        ParseError::OverLimit {
            field: Field::TensorName,
            value: 1 << 62,
            limit: limits::NAME_BYTES,
        },
        "tensor name",
    );
    let cut = Raw::preamble(3, 1, 0).u64(100).bytes(&[b'x'; 64]);
    check(
        cut,
        ParseError::Truncated {
            field: Field::TensorName,
            need_bytes: 132,
            file_len: 96,
        },
        "tensor name",
    );
    let twice = Raw::preamble(3, 2, 0)
        .record("w", &[8], F32, 0)
        .record("w", &[8], F32, 32)
        .data(32, 64);
    check(
        twice,
        tensor_fault("w", TensorFault::Duplicate),
        "duplicate",
    );
}

#[test]
fn tensor_shapes_and_types() {
    let check_fault =
        |file: Raw, fault: TensorFault, word: &str| check(file, tensor_fault("w", fault), word);
    check_fault(
        one_tensor(&[], F32, 0, 64),
        TensorFault::DimCount { n_dims: 0 },
        "dimensions",
    );
    check_fault(
        one_tensor(&[1; 5], F32, 0, 64),
        TensorFault::DimCount { n_dims: 5 },
        "dimensions",
    );
    let many = Raw::preamble(3, 1, 0)
        .string(b"w")
        .u32(u32::MAX)
        .bytes(&[0; 64]);
    check_fault(
        many,
        TensorFault::DimCount { n_dims: u32::MAX },
        "dimensions",
    );
    check_fault(
        one_tensor(&[8, 0], F32, 0, 64),
        TensorFault::ZeroDim { dim_index: 1 },
        "zero",
    );
    check_fault(
        one_tensor(&[1 << 33, 1 << 33], F32, 0, 64),
        TensorFault::TooLarge,
        "overflow",
    );
    check_fault(
        one_tensor(&[1 << 62], F32, 0, 64),
        TensorFault::TooLarge,
        "overflow",
    );
    check_fault(
        one_tensor(&[8], 999, 0, 64),
        TensorFault::UnknownType { type_id: 999 },
        "type 999",
    );
    check_fault(
        one_tensor(&[8], 4, 0, 64),
        TensorFault::RemovedType {
            type_id: 4,
            type_name: "Q4_2",
        },
        "Q4_2",
    );
    check_fault(
        one_tensor(&[32, 8], 12, 0, 4096),
        TensorFault::PartialBlock {
            row_len: 32,
            tensor_type: TensorType::Q4_K,
        },
        "block",
    );
}

#[test]
fn tensor_places() {
    let data_start = 64;
    assert_eq!(one_tensor(&[8], F32, 0, 0).0.len(), data_start);
    let file_len = data_start as u64 + 32;
    let outside = |start, end| {
        tensor_fault(
            "w",
            TensorFault::OutOfFile {
                start,
                end,
                file_len,
            },
        )
    };
    check(
        one_tensor(&[8], F32, 4, 64),
        tensor_fault(
            "w",
            TensorFault::Misaligned {
                offset_bytes: 4,
                alignment: 32,
            },
        ),
        "alignment",
    );
    check(
        one_tensor(&[9], F32, 0, 32),
        outside(64, 100),
        "exceeds the file",
    );
    check(
        one_tensor(&[8], F32, 32, 32),
        outside(96, 128),
        "exceeds the file",
    );
    check(
        one_tensor(&[8], F32, u64::MAX - 31, 32),
        outside(u64::MAX, u64::MAX),
        "exceeds the file",
    );
    check(
        one_tensor(&[8], F32, u64::MAX - 127, 32),
        outside(u64::MAX - 63, u64::MAX - 31),
        "exceeds the file",
    );
    check(
        one_tensor(&[u64::MAX / 4], F32, 0, 32),
        outside(64, u64::MAX),
        "exceeds the file",
    );
}

#[test]
fn tensor_overlaps() {
    let two = |first: u64, second: u64| {
        Raw::preamble(3, 2, 0)
            .record("a", &[16], F32, first)
            .record("b", &[8], F32, second)
            .data(32, 256)
    };
    let overlap = |name: &str, other: &str, offset_bytes| {
        tensor_fault(
            name,
            TensorFault::Overlap {
                other: other.to_owned(),
                offset_bytes,
            },
        )
    };
    check(two(0, 0), overlap("b", "a", 96), "overlaps");
    check(two(0, 32), overlap("b", "a", 128), "'a'");
    check(two(32, 32), overlap("b", "a", 128), "overlaps");
    let by_a_byte = Raw::preamble(3, 2, 0)
        .record("a", &[33], I8, 0)
        .record("b", &[8], F32, 32)
        .data(32, 256);
    check(by_a_byte, overlap("b", "a", 128), "byte 128");
    let gap = two(96, 0);
    assert!(
        Directory::parse(&gap.0, gap.0.len() as u64).is_ok(),
        "gaps and any order are fine"
    );
}

#[test]
fn experts() {
    let n_experts = limits::EXPERT_COUNT + 1;
    let file = Raw::preamble(3, 1, 0)
        .record("blk.0.ffn_up_exps.bias", &[1, n_experts], F32, 0)
        .data(32, usize::try_from(4 * n_experts).expect("small"));
    check(
        file,
        ParseError::OverLimit {
            field: Field::ExpertCount,
            value: n_experts,
            limit: limits::EXPERT_COUNT,
        },
        "expert",
    );

    let per_tensor = limits::EXPERT_COUNT;
    let n_tensors = limits::EXTENT_COUNT / per_tensor + 1;
    let full = (0..n_tensors).fold(Raw::preamble(3, n_tensors, 0), |raw, index| {
        raw.record(
            &format!("blk.{index}.ffn_up_exps.bias"),
            &[1, per_tensor],
            24,
            index * per_tensor,
        )
    });
    let value = limits::EXTENT_COUNT + per_tensor;
    let error = Directory::parse(&full.0, u64::MAX).expect_err("too many extents");
    assert_eq!(
        error,
        ParseError::OverLimit {
            field: Field::ExtentCount,
            value,
            limit: limits::EXTENT_COUNT
        }
    );
}
