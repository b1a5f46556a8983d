//! Reading the header of one file, and hardly anything behind it.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use gguf::{Directory, ParseError};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use crate::accounting::{StorageRead, measure};
use crate::pages::{pages_inside, to_bytes, to_index};

/// The first read of a file whose header length nobody told.
const FIRST_BYTES: u64 = 64 << 10;
/// The most that one more read adds beyond what the parser is sure to need.
const STEP_BYTES: u64 = 4 << 20;

/// A parsed header and the bytes that it was parsed from.
pub(crate) struct Header {
    pub(crate) directory: Directory,
    /// As many bytes as come before the data section, or the whole file where it ends earlier.
    pub(crate) bytes: Vec<u8>,
}

/// Why a header could not be read.
pub(crate) enum HeaderError {
    Io(io::Error),
    Parse(ParseError),
}

impl From<io::Error> for HeaderError {
    fn from(error: io::Error) -> HeaderError {
        HeaderError::Io(error)
    }
}

/// Reads from the start until the parser has enough.
///
/// `expected_bytes`: the header's length as somebody else found it, at least; it only sets the size of the first read. Where reading went beyond the header, pages that this call brought in
/// are dropped again: a model that is opened and not used leaves nothing of its tensors in the page cache.
pub(crate) fn read_header(
    file: &File,
    file_len: u64,
    expected_bytes: Option<u64>,
) -> Result<Header, HeaderError> {
    let first = expected_bytes
        .map_or(FIRST_BYTES, |bytes| bytes.min(gguf::limits::HEADER_BYTES))
        .max(1);
    let mut bytes = Vec::new();
    let mut cold = Vec::new();
    let mut target = first.min(file_len);
    let directory = loop {
        cold.extend(read_to(file, &mut bytes, target)?);
        match Directory::parse(&bytes, file_len) {
            Ok(directory) => break directory,
            Err(ParseError::Incomplete { need_bytes }) => {
                let read = to_bytes(bytes.len());
                target = need_bytes
                    .max(read + read.clamp(FIRST_BYTES, STEP_BYTES))
                    .min(file_len);
            }
            Err(error) => return Err(HeaderError::Parse(error)),
        }
    };
    let header_len = directory.header_len(0).min(file_len);
    cold.extend(read_to(file, &mut bytes, header_len)?);
    forget_tensor_pages(file, header_len, &cold);
    bytes.truncate(to_index(header_len));
    Ok(Header { directory, bytes })
}

/// Extends `bytes` to `target` bytes of the file, and says which range it had to get from storage, if any.
fn read_to(file: &File, bytes: &mut Vec<u8>, target: u64) -> io::Result<Option<Range<u64>>> {
    let start = to_bytes(bytes.len());
    if target <= start {
        return Ok(None);
    }
    bytes.resize(to_index(target), 0);
    let (result, storage) = measure(|| file.read_exact_at(&mut bytes[to_index(start)..], start));
    result?;
    Ok(matches!(storage, StorageRead::Bytes(1..)).then_some(start..target))
}

fn forget_tensor_pages(file: &File, header_len: u64, cold: &[Range<u64>]) {
    for range in cold {
        let pages = pages_inside(&(range.start.max(header_len)..range.end));
        let (Ok(offset), Ok(len)) = (
            i64::try_from(pages.start),
            i64::try_from(pages.end.saturating_sub(pages.start)),
        ) else {
            continue;
        };
        // A length of 0 would mean the rest of the file.
        if len > 0 {
            // Advice: where it is not taken, some pages stay cached.
            let _ = posix_fadvise(file, offset, len, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        }
    }
}
