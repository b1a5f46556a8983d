//! Headers of model files.

use std::fmt::Debug;

use gguf::{Array, Directory, ParseError, TensorType, write::Writer};

use crate::input::Input;

/// Length of a prefix, and bytes of the file behind those that are here: what an input begins with.
const PREAMBLE_BYTES: usize = 2 + 8;

/// A header is refused, or describes extents that lie inside the file and apart from each other; a reader who begins with any prefix and follows the parser's demands ends at the same answer.
///
/// # Panics
/// If that does not hold of the file that `bytes` describes.
pub fn check(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let prefix_len = usize::from(u16::from_le_bytes(input.array()));
    let beyond = u64::from_le_bytes(input.array());
    let header = input.rest();
    let file_len = (header.len() as u64).saturating_add(beyond);
    let answer = Directory::parse(header, file_len);
    match &answer {
        Ok(directory) => check_directory(directory, file_len),
        Err(error) => check_error(error, header.len(), file_len),
    }
    check_prefixes(header, prefix_len, file_len, &answer);
}

fn check_directory(directory: &Directory, file_len: u64) {
    assert!(directory.header_len(0) <= file_len);
    assert!(directory.alignment().is_power_of_two());
    let mut extent_count = 0;
    for tensor in directory.tensors() {
        assert_eq!(directory.tensor(&tensor.name), Some(tensor));
        assert_eq!(tensor.extents.start, extent_count, "{tensor:?}");
        extent_count = tensor.extents.end;
        let mut end = tensor.offset_bytes;
        for id in tensor.extent_ids() {
            let extent = directory.extent(id);
            assert_eq!(extent.offset_bytes, end, "{tensor:?}");
            end = extent.range().end;
        }
        assert_eq!(end - tensor.offset_bytes, tensor.len_bytes, "{tensor:?}");
    }
    let mut extents = directory.extents().to_vec();
    assert_eq!(extents.len(), extent_count as usize);
    extents.sort_by_key(|extent| extent.offset_bytes);
    let mut free_from = directory.header_len(0);
    for extent in &extents {
        assert!(extent.len_bytes > 0, "{extent:?}");
        assert!(extent.offset_bytes >= free_from, "{extent:?} overlaps");
        free_from = extent.range().end;
    }
    assert!(free_from <= file_len, "{extents:?} leave the file");
    if let Err(missing) = directory.require("token_embd.weight") {
        assert!(missing.to_string().contains("token_embd.weight"));
    }
}

fn check_error(error: &ParseError, given: usize, file_len: u64) {
    assert!(!error.to_string().is_empty());
    if let ParseError::Incomplete { need_bytes } = *error {
        assert!(need_bytes > given as u64, "{error:?} of {given} bytes");
        assert!(
            need_bytes <= file_len,
            "{error:?} of a file of {file_len} bytes"
        );
    }
}

/// Reads as a loader does: from a first guess of `first_len` bytes on, always as many as are demanded.
fn check_prefixes(
    header: &[u8],
    first_len: usize,
    file_len: u64,
    whole: &Result<Directory, ParseError>,
) {
    let mut len = first_len.min(header.len());
    loop {
        let answer = Directory::parse(&header[..len], file_len);
        match answer {
            Err(ParseError::Incomplete { need_bytes }) => {
                check_error(&ParseError::Incomplete { need_bytes }, len, file_len);
                match usize::try_from(need_bytes) {
                    Ok(need) if need <= header.len() => len = need,
                    // The fuzzer has no more to give: whoever has all of it must be told the same, or more.
                    _ => {
                        assert!(
                            matches!(whole, Err(ParseError::Incomplete { need_bytes: more }) if *more >= need_bytes)
                        );
                        return;
                    }
                }
            }
            answer => return assert_same(&answer, whole),
        }
    }
}

/// Equality by what is printed, too: a header may hold floats that equal nothing.
fn assert_same(one: &Result<Directory, ParseError>, other: &Result<Directory, ParseError>) {
    match (one, other) {
        (Ok(one), Ok(other)) => {
            let print = |value: &dyn Debug| format!("{value:?}");
            assert_eq!(print(one.metadata()), print(other.metadata()));
            assert_eq!(one.tensors(), other.tensors());
            assert_eq!(one.extents(), other.extents());
            assert_eq!(one.split(), other.split());
            assert_eq!(one.version(), other.version());
            assert_eq!(one.alignment(), other.alignment());
            assert_eq!(one.header_len(0), other.header_len(0));
        }
        (Err(one), Err(other)) => assert_eq!(one, other),
        (one, other) => panic!("{one:?} and {other:?}"),
    }
}

/// Most bytes of a broken file that an input holds; what lies behind is said to be there.
const BROKEN_BYTES_MAX: usize = 4000;

/// Every type of value, tensors of several types and ranks, experts, a split, version 2, another alignment; and broken files, where they are given.
pub fn seeds() -> Vec<Vec<u8>> {
    let plain = || Writer::new().metadata("general.architecture", "llama");
    let experts = plain()
        .tensor("blk.0.ffn_gate_exps.weight", &[32, 2, 4], TensorType::Q8_0)
        .tensor("blk.0.ffn_up_exps.bias", &[2, 4], TensorType::F32)
        .tensor("output.weight", &[256], TensorType::Q6_K);
    let split = plain()
        .metadata("split.no", 1u16)
        .metadata("split.count", 2u16)
        .metadata("split.tensors.count", 3i32)
        .tensor("a", &[1, 1, 1, 8], TensorType::BF16);
    let writers = [
        Writer::new(),
        every_value(Writer::new()),
        every_array(Writer::new()).version(2),
        experts,
        split,
        plain()
            .alignment(64)
            .tensor("x", &[3], TensorType::I8)
            .tensor("y", &[5], TensorType::F16),
    ];
    writers
        .into_iter()
        .flat_map(|writer| seeds_of(writer, 24))
        .chain(crate::broken_files().iter().map(|file| {
            let (header, beyond) = file.split_at(file.len().min(BROKEN_BYTES_MAX));
            seed(u16::MAX, beyond.len() as u64, header)
        }))
        .collect()
}

fn every_value(writer: Writer) -> Writer {
    writer
        .metadata("u8", 1u8)
        .metadata("i8", -1i8)
        .metadata("u16", 2u16)
        .metadata("i16", -2i16)
        .metadata("u32", 3u32)
        .metadata("i32", -3i32)
        .metadata("u64", 4u64)
        .metadata("i64", -4i64)
        .metadata("f32", 0.5f32)
        .metadata("f64", f64::NAN)
        .metadata("bool", true)
        .metadata("string", "text")
}

fn every_array(writer: Writer) -> Writer {
    writer
        .metadata("u8", vec![1u8, 2])
        .metadata("i16", vec![-2i16])
        .metadata("u32", vec![3u32])
        .metadata("i64", Vec::<i64>::new())
        .metadata("f32", vec![0.5f32, f32::NAN])
        .metadata("bool", vec![true, false])
        .metadata("string", Array::String(["a", "", "bc"].iter().collect()))
}

/// The file that `writer` lays out, read in one go and from a prefix of `prefix_len` bytes on.
fn seeds_of(writer: Writer, prefix_len: u16) -> [Vec<u8>; 2] {
    let header = writer.finish().expect("seeds are valid");
    let beyond = header.file_len - header.bytes.len() as u64;
    [u16::MAX, prefix_len].map(|prefix_len| seed(prefix_len, beyond, &header.bytes))
}

fn seed(prefix_len: u16, beyond: u64, header: &[u8]) -> Vec<u8> {
    let mut seed = Vec::with_capacity(PREAMBLE_BYTES + header.len());
    seed.extend(prefix_len.to_le_bytes());
    seed.extend(beyond.to_le_bytes());
    seed.extend_from_slice(header);
    seed
}
