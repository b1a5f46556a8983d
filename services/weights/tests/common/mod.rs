//! Model files on a real file system, and what the kernel says of them.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its own part"
)]
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "clippy takes only `#[test]` functions for tests"
)]

pub mod book;
pub mod raw;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gguf::write::Writer;
use gguf::{ExtentId, TensorType};
use tempfile::TempDir;
use weights::{Fetched, Weights};

/// Tensors of the model that most tests use: lengths that end in the middle of a page, one below and one above a piece.
pub const TENSOR_BYTES: [u64; 4] = [4 << 20, 100_000, (1 << 20) + 36, 3 << 20];

/// What the system may take from the page cache between two looks at it: some reclaim pages that have not been touched for a second.
const RECLAIMED_BYTES_MAX: u64 = 256 << 10;

/// Whether these bytes of the page cache are the expected ones, but for what was reclaimed.
pub fn nearly(bytes: u64, expected: u64) -> bool {
    bytes <= expected && at_least(bytes, expected)
}

/// Whether the expected bytes are among these, but for what was reclaimed.
pub fn at_least(bytes: u64, expected: u64) -> bool {
    bytes + RECLAIMED_BYTES_MAX >= expected
}

/// Whether every tensor page is in the page cache.
pub fn is_warm(weights: &Weights) -> bool {
    let residency = weights.residency().unwrap();
    nearly(residency.resident_bytes, residency.total_bytes)
}

/// Whether a fetch of `len_bytes` found them in the page cache.
pub fn was_warm(fetched: Fetched, len_bytes: u64) -> bool {
    fetched.total_bytes() == len_bytes
        && fetched.unknown_bytes == 0
        && nearly(fetched.warm_bytes, len_bytes)
}

/// Whether a fetch of `len_bytes` had to read them, but for what neighbours or the header had brought in of the pages at its ends.
pub fn was_cold(fetched: Fetched, len_bytes: u64) -> bool {
    fetched.total_bytes() == len_bytes
        && fetched.unknown_bytes == 0
        && fetched.warm_bytes <= 2 * 4096
}

/// A directory on the disk that the build is on: a page cache without a disk behind it has no cold bytes.
pub fn directory() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Byte `index` of every file here; a wrong offset gives a wrong byte.
pub fn pattern(index: u64) -> u8 {
    (index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// The header of a model with tensors of these lengths.
pub fn writer(tensor_bytes: &[u64]) -> Writer {
    tensor_bytes.iter().enumerate().fold(
        Writer::new().metadata("general.architecture", "llama"),
        |writer, (index, len)| {
            writer.tensor(format!("tensor.{index}"), &[len / 4], TensorType::F32)
        },
    )
}

/// Writes a model whose tensors hold [`pattern`], and forces it to disk.
pub fn write(path: &Path, writer: Writer) -> PathBuf {
    let header = writer.finish().unwrap();
    let start = header.bytes.len() as u64;
    let mut bytes = header.bytes;
    bytes.extend((start..header.file_len).map(pattern));
    let mut file = File::create(path).unwrap();
    file.write_all(&bytes).unwrap();
    file.sync_all().unwrap();
    path.to_owned()
}

/// The usual model in a directory of its own.
pub fn model() -> (TempDir, PathBuf) {
    let dir = directory();
    let path = write(&dir.path().join("model.gguf"), writer(&TENSOR_BYTES));
    (dir, path)
}

/// Drops the file from the page cache: all of it, the header too.
pub fn make_cold(path: &Path) {
    let file = File::open(path).unwrap();
    file.sync_all().unwrap();
    nix::fcntl::posix_fadvise(
        &file,
        0,
        0,
        nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED,
    )
    .unwrap();
}

/// Opens a model none of whose tensor pages is in the page cache.
pub fn open_cold(path: &Path) -> Arc<Weights> {
    make_cold(path);
    let weights = Weights::open(path).unwrap();
    assert_eq!(
        weights.residency().unwrap().resident_bytes,
        0,
        "these tests need a file system with a disk behind it"
    );
    Arc::new(weights)
}

pub fn extents(weights: &Weights) -> Vec<ExtentId> {
    (0..weights.directory().extents().len() as u32)
        .map(ExtentId)
        .collect()
}

pub fn len_bytes(weights: &Weights, extent: ExtentId) -> u64 {
    weights.directory().extent(extent).len_bytes
}

/// Whether a view shows what the file holds.
pub fn assert_bytes(weights: &Arc<Weights>, extent: ExtentId) {
    let start = weights.directory().extent(extent).offset_bytes;
    let view = weights.view(extent);
    let wrong = (start..)
        .zip(view.as_ref())
        .find(|&(index, &byte)| byte != pattern(index));
    assert_eq!(
        (view.as_ref().len() as u64, wrong),
        (len_bytes(weights, extent), None)
    );
}

/// Bytes of the mapping of file `split` in our page tables (`Rss` of `/proc/self/smaps`).
pub fn mapped_rss(weights: &Weights, split: u16) -> u64 {
    let (address, len) = weights.mapped_range(split);
    let end = address + len.next_multiple_of(4096);
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
    let mut inside = false;
    let mut bytes = 0;
    for line in smaps.lines() {
        let range = line
            .split_once(' ')
            .and_then(|(range, _)| range.split_once('-'));
        if let Some((Ok(start), Ok(_))) =
            range.map(|(a, b)| (usize::from_str_radix(a, 16), usize::from_str_radix(b, 16)))
        {
            inside = (address..end).contains(&start);
        } else if let Some(kib) = line.strip_prefix("Rss:").filter(|_| inside) {
            bytes += kib.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024;
        }
    }
    bytes
}

/// Descriptors that this process holds.
pub fn descriptor_count() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count() - 1
}
