//! Broken preambles and metadata: every refusal with its error, and the words of its message.

use gguf::{
    Directory, Field, Kind, MetadataError, MetadataFault, ParseError, SplitFault, ValueType, limits,
};

use crate::raw::{Raw, id};

/// Refuses `file` with `expected`, whose message contains `word`.
pub(crate) fn check(file: Raw, expected: ParseError, word: &str) {
    let error =
        Directory::parse(&file.0, file.0.len() as u64).expect_err("a broken file was accepted");
    assert_eq!(error, expected);
    let message = error.to_string();
    assert!(message.contains(word), "{message:?} lacks {word:?}");
    assert!(
        !message.ends_with('.') && message.len() < 300,
        "{message:?}"
    );
}

fn metadata_fault(key: &str, fault: MetadataFault) -> ParseError {
    ParseError::Metadata {
        key: key.to_owned(),
        fault,
    }
}

#[test]
fn preamble() {
    let truncated = |need_bytes, file_len| ParseError::Truncated {
        field: Field::Header,
        need_bytes,
        file_len,
    };
    check(Raw::default(), truncated(4, 0), "truncated");
    check(Raw::default().bytes(b"GGUF"), truncated(8, 4), "header");
    check(
        Raw::default().bytes(b"GGUF").u32(3).u32(1),
        truncated(16, 12),
        "12",
    );
    check(
        Raw::default().bytes(b"gguf").u32(3),
        ParseError::Magic { found: *b"gguf" },
        "'gguf'",
    );
    check(
        Raw::default().bytes(b"\x7fELF\x02"),
        ParseError::Magic { found: *b"\x7fELF" },
        "magic",
    );
    for version in [0, 1, 4, u32::MAX] {
        check(
            Raw::preamble(version, 0, 0),
            ParseError::Version { version },
            "version",
        );
    }
    for version in [1, 2, 3] {
        check(
            Raw::preamble(u32::swap_bytes(version), 0, 0),
            ParseError::BigEndian { version },
            "big-endian",
        );
    }
}

#[test]
fn counts() {
    let over = |field, value, limit| ParseError::OverLimit {
        field,
        value,
        limit,
    };
    for count in [limits::TENSOR_COUNT + 1, 1_000_000_000, 1 << 63, u64::MAX] {
        check(
            Raw::preamble(3, count, 0),
            over(Field::TensorCount, count, limits::TENSOR_COUNT),
            "tensor count",
        );
        check(
            Raw::preamble(3, 0, count),
            over(Field::MetadataCount, count, limits::METADATA_COUNT),
            "metadata count",
        );
    }
    // Counts within the limits that the file has no room for.
    check(
        Raw::preamble(3, 3, 0),
        ParseError::Truncated {
            field: Field::Header,
            need_bytes: 24 + 3 * 32,
            file_len: 24,
        },
        "truncated",
    );
    check(
        Raw::preamble(3, 0, 2),
        ParseError::Truncated {
            field: Field::Header,
            need_bytes: 24 + 2 * 13,
            file_len: 24,
        },
        "truncated",
    );
    // Room for the least that the counts stand for, taken up by metadata that is longer.
    let crowded = Raw::preamble(3, 2, 1)
        .key("k", id::STRING)
        .string(&[b'x'; 70]);
    let end = crowded.0.len() as u64;
    check(
        crowded,
        ParseError::Truncated {
            field: Field::TensorRecord,
            need_bytes: end + 2 * 32,
            file_len: end,
        },
        "tensor record",
    );
}

#[test]
fn metadata_keys() {
    let entry = |key: &[u8]| Raw::preamble(3, 0, 1).string(key).u32(id::U8).bytes(&[1]);
    check(
        entry(b"a\xffb"),
        metadata_fault("a\u{fffd}b", MetadataFault::KeyNotUtf8),
        "UTF-8",
    );
    check(
        entry(&[b'k'; 70_000]),
        ParseError::OverLimit {
            field: Field::Key,
            value: 70_000,
            limit: limits::KEY_BYTES,
        },
        "key",
    );
    let long = Raw::preamble(3, 0, 1).u64(1 << 62).bytes(&[0; 64]);
    check(
        long,
        ParseError::OverLimit {
            field: Field::Key,
            value: 1 << 62,
            limit: limits::KEY_BYTES,
        },
        "exceeds",
    );
    let twice = Raw::preamble(3, 0, 2)
        .key("general.name", id::U8)
        .bytes(&[1])
        .key("general.name", id::U32)
        .u32(1);
    check(
        twice,
        metadata_fault("general.name", MetadataFault::Duplicate),
        "duplicate",
    );
}

#[test]
fn metadata_values() {
    let entry = |type_id| Raw::preamble(3, 0, 1).key("k", type_id);
    let array = |type_id, len| entry(id::ARRAY).u32(type_id).u64(len);
    check(
        entry(13).bytes(&[0; 64]),
        metadata_fault("k", MetadataFault::UnknownType { type_id: 13 }),
        "type 13",
    );
    check(
        entry(u32::MAX).bytes(&[0; 64]),
        metadata_fault("k", MetadataFault::UnknownType { type_id: u32::MAX }),
        "type",
    );
    check(
        entry(id::BOOL).bytes(&[2]),
        metadata_fault("k", MetadataFault::NotBool { byte: 2 }),
        "bool",
    );
    check(
        array(id::BOOL, 2).bytes(&[1, 9]),
        metadata_fault("k", MetadataFault::NotBool { byte: 9 }),
        "bool",
    );
    check(
        array(99, 1).bytes(&[0; 64]),
        metadata_fault("k", MetadataFault::UnknownElementType { type_id: 99 }),
        "type 99",
    );
    check(
        array(id::ARRAY, 1).bytes(&[0; 64]),
        metadata_fault("k", MetadataFault::NestedArray),
        "nested",
    );

    // Bytes up to where the value begins.
    let before = entry(id::ARRAY).0.len() as u64;
    let truncated = |field, need_bytes, file_len| ParseError::Truncated {
        field,
        need_bytes,
        file_len,
    };
    let file_len = before + 12 + 64;
    check(
        array(id::U8, 1 << 62).bytes(&[0; 64]),
        truncated(Field::Array, before + 12 + (1 << 62), file_len),
        "array",
    );
    check(
        array(id::U32, 1 << 62).bytes(&[0; 64]),
        truncated(Field::Array, u64::MAX, file_len),
        "array",
    );
    check(
        array(id::STRING, 1 << 61).bytes(&[0; 64]),
        truncated(Field::Array, u64::MAX, file_len),
        "array",
    );
    check(
        array(id::STRING, 2).u64(u64::MAX).u64(0),
        truncated(Field::String, u64::MAX, before + 12 + 16),
        "string",
    );
    check(
        entry(id::STRING).u64(u64::MAX),
        truncated(Field::String, u64::MAX, before + 8),
        "string",
    );
    check(
        entry(id::U32).bytes(&[1, 2]),
        truncated(Field::Value, before + 4, before + 2),
        "value",
    );
}

#[test]
fn alignment() {
    let aligned = |alignment| {
        Raw::preamble(3, 0, 1)
            .key("general.alignment", id::U32)
            .u32(alignment)
    };
    for alignment in [0, 3, 48, limits::ALIGNMENT * 2, 1 << 31, u32::MAX] {
        check(
            aligned(alignment),
            metadata_fault("general.alignment", MetadataFault::Alignment { alignment }),
            "alignment",
        );
    }
    let text = Raw::preamble(3, 0, 1)
        .key("general.alignment", id::STRING)
        .string(b"32");
    let wrong = MetadataError::Kind {
        key: "general.alignment".to_owned(),
        expected: Kind::One(ValueType::U32),
        found: Kind::One(ValueType::String),
    };
    check(text, ParseError::Value(wrong), "type string");
    let wide = Raw::preamble(3, 0, 1).key("general.alignment", 10).u64(32);
    let wrong = MetadataError::Kind {
        key: "general.alignment".to_owned(),
        expected: Kind::One(ValueType::U32),
        found: Kind::One(ValueType::U64),
    };
    check(wide, ParseError::Value(wrong), "expected u32");
    for alignment in [1, 8, 64, limits::ALIGNMENT] {
        let file = aligned(alignment);
        assert_eq!(
            Directory::parse(&file.0, file.0.len() as u64)
                .expect("valid")
                .alignment(),
            alignment
        );
    }
}

#[test]
fn split_keys() {
    let split = |number: u32, count: u32| {
        Raw::preamble(3, 0, 2)
            .key("split.no", id::U32)
            .u32(number)
            .key("split.count", id::U32)
            .u32(count)
    };
    check(
        split(2, 2),
        SplitFault::Number {
            number: 2,
            count: 2,
        }
        .into(),
        "split.no",
    );
    check(split(70_000, 3), range("split.no", 70_000), "split.no");
    check(
        split(0, 70_000),
        range("split.count", 70_000),
        "split.count",
    );
    let lonely = Raw::preamble(3, 0, 1).key("split.count", id::U32).u32(2);
    check(
        lonely,
        ParseError::Value(MetadataError::Missing {
            key: "split.no".to_owned(),
        }),
        "split.no",
    );
}

fn range(key: &str, value: i128) -> ParseError {
    ParseError::Value(MetadataError::Range {
        key: key.to_owned(),
        expected: ValueType::U16,
        value,
    })
}
