//! Files that are not all there, and files with flipped bytes: an answer every time, and never a panic.

use gguf::{Directory, Extent, ParseError, StringArray, TensorType, write::Header, write::Writer};
use proptest::prelude::*;

/// A small file with something of everything.
fn sample() -> Header {
    let tokens: StringArray = ["<s>", "", "▁the", "\n"].iter().collect();
    Writer::new()
        .alignment(64)
        .metadata("general.architecture", "llama")
        .metadata("llama.block_count", 1u32)
        .metadata("a.flag", true)
        .metadata("a.byte", -1i8)
        .metadata("a.double", 1e-5f64)
        .metadata("tokenizer.ggml.tokens", tokens)
        .metadata("tokenizer.ggml.scores", vec![0.0f32, -1.0, -2.0, -3.0])
        .metadata("a.flags", vec![true, false])
        .metadata("a.wide", vec![u64::MAX, 1])
        .tensor("token_embd.weight", &[64, 4], TensorType::Q8_0)
        .tensor("blk.0.ffn_gate_exps.weight", &[32, 2, 3], TensorType::F16)
        .tensor("output_norm.weight", &[64], TensorType::F32)
        .finish()
        .expect("valid")
}

/// What holds for every directory that was handed out.
fn check_sound(directory: &Directory, file_len: u64) {
    let mut ranges: Vec<_> = directory.extents().iter().map(Extent::range).collect();
    ranges.sort_by_key(|range| range.start);
    assert!(
        ranges
            .iter()
            .all(|range| range.start < range.end && range.end <= file_len)
    );
    assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start));
    assert!(
        ranges
            .first()
            .is_none_or(|first| first.start >= directory.header_len(0))
    );
    for tensor in directory.tensors() {
        let bytes: u64 = tensor
            .extent_ids()
            .map(|id| directory.extent(id).len_bytes)
            .sum();
        assert_eq!(bytes, tensor.len_bytes);
        assert_eq!(directory.tensor(&tensor.name), Some(tensor));
    }
}

/// The header without its padding: as much as a parse needs.
fn needed_len(header: &Header) -> usize {
    (0..=header.bytes.len())
        .find(|&len| Directory::parse(&header.bytes[..len], header.file_len).is_ok())
        .expect("the whole header is enough")
}

#[test]
fn every_shorter_prefix_is_incomplete_and_asks_for_no_more_than_the_header() {
    let header = sample();
    let needed = needed_len(&header);
    for len in 0..needed {
        match Directory::parse(&header.bytes[..len], header.file_len) {
            Err(ParseError::Incomplete { need_bytes }) => assert!(
                need_bytes > len as u64 && need_bytes <= needed as u64,
                "{need_bytes} at {len}"
            ),
            other => panic!("{other:?} at {len}"),
        }
    }
    for len in needed..=header.bytes.len() {
        assert_eq!(
            Directory::parse(&header.bytes[..len], header.file_len),
            Ok(header.directory.clone())
        );
    }
}

#[test]
fn every_shorter_file_is_truncated() {
    let header = sample();
    let needed = needed_len(&header);
    for len in 0..needed {
        match Directory::parse(&header.bytes[..len], len as u64) {
            Err(ParseError::Truncated {
                need_bytes,
                file_len,
                ..
            }) => assert!(file_len == len as u64 && need_bytes > file_len),
            other => panic!("{other:?} at {len}"),
        }
    }
    let last_byte_of_data = header
        .directory
        .extents()
        .iter()
        .map(|extent| extent.range().end)
        .max()
        .expect("there are tensors");
    for file_len in needed as u64..last_byte_of_data {
        let error = Directory::parse(&header.bytes, file_len)
            .expect_err("data is missing")
            .to_string();
        assert!(error.contains("exceeds the file"), "{error} at {file_len}");
    }
    assert!(
        Directory::parse(&header.bytes, last_byte_of_data).is_ok(),
        "padding behind the last tensor may be missing"
    );
}

#[test]
fn following_need_bytes_reaches_the_directory_in_few_steps() {
    let tokens: StringArray = (0..50_000).map(|i| format!("token{i}")).collect();
    let header = Writer::new()
        .metadata("tokenizer.ggml.tokens", tokens)
        .tensor("w", &[8], TensorType::F32)
        .finish()
        .expect("valid");
    let mut len = 0;
    let mut steps = 0;
    let directory = loop {
        match Directory::parse(&header.bytes[..len], header.file_len) {
            Err(ParseError::Incomplete { need_bytes }) => {
                len = usize::try_from(need_bytes)
                    .expect("in memory")
                    .max(len * 2)
                    .min(header.bytes.len())
            }
            result => break result,
        }
        steps += 1;
    };
    assert_eq!(directory, Ok(header.directory));
    assert!(steps < 16, "{steps} steps");
}

#[test]
fn every_single_bit_flip_is_answered() {
    let header = sample();
    for index in 0..header.bytes.len() {
        for bit in 0..8 {
            let mut bytes = header.bytes.clone();
            bytes[index] ^= 1 << bit;
            if let Ok(directory) = Directory::parse(&bytes, header.file_len) {
                check_sound(&directory, header.file_len);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn flipped_bytes_are_answered(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut in any::<prop::sample::Index>(),
        file_len in prop_oneof![Just(None), any::<u64>().prop_map(Some)],
    ) {
        let header = sample();
        let mut bytes = header.bytes;
        for (index, byte) in flips {
            *index.get_mut(&mut bytes) = byte;
        }
        let file_len = file_len.unwrap_or(header.file_len);
        for prefix in [&bytes[..], &bytes[..cut.index(bytes.len())]] {
            match Directory::parse(prefix, file_len) {
                Ok(directory) => check_sound(&directory, file_len),
                Err(ParseError::Incomplete { need_bytes }) => prop_assert!(need_bytes > prefix.len() as u64 && need_bytes <= file_len),
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
        }
    }

    #[test]
    fn arbitrary_bytes_are_answered(tail in prop::collection::vec(any::<u8>(), 0..512), counts in (0u64..4, 0u64..4)) {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend(counts.0.to_le_bytes());
        bytes.extend(counts.1.to_le_bytes());
        bytes.extend(&tail);
        let file_len = bytes.len() as u64;
        if let Ok(directory) = Directory::parse(&bytes, file_len) {
            check_sound(&directory, file_len);
        }
    }
}
