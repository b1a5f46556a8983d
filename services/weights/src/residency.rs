//! How much of a model is in the page cache.
//!
//! Tried on Linux 6.18: to a process that neither owns a file nor may write it, `cachestat` gives `EPERM` and `mincore` says that every page is there; on overlayfs `cachestat` looks at an
//! inode that has no pages, while `mincore` is right. Hence who asks whom, below.
#![expect(unsafe_code, reason = "the system call cachestat has no wrapper")]

use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

use gguf::Directory;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat, geteuid};

use crate::error::ResidencyError;
use crate::open::ModelFile;
use crate::pages::{all_extents, page_bytes, pages_around, ranges_of};

/// Pages that hold tensor bytes and no header bytes; opening a model reads its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Residency {
    /// Bytes of such pages that are in the page cache.
    pub resident_bytes: u64,
    /// Bytes of such pages.
    pub total_bytes: u64,
    /// Who said so.
    pub source: ResidencySource,
}

/// Where residency figures come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResidencySource {
    /// The system call `cachestat`.
    Cachestat,
    /// The system call `mincore` on our mapping.
    Mincore,
}

impl ResidencySource {
    /// Name of the system call.
    pub fn name(self) -> &'static str {
        match self {
            ResidencySource::Cachestat => "cachestat",
            ResidencySource::Mincore => "mincore",
        }
    }
}

/// Asks the kernel about all tensor pages of a model.
pub(crate) fn residency(
    directory: &Directory,
    files: &[ModelFile],
) -> Result<Residency, ResidencyError> {
    if let Some(file) = files.iter().find(|file| !file.kind.mincore_is_true()) {
        return Err(ResidencyError::Filesystem { kind: file.kind });
    }
    let pages = tensor_pages(directory);
    let answer = match count(files, &pages, ResidencySource::Cachestat) {
        Err(Errno::ENOSYS | Errno::EPERM | Errno::EOPNOTSUPP) => {
            for file in files {
                may_ask(&file.file)?;
            }
            count(files, &pages, ResidencySource::Mincore)
        }
        answer => answer,
    };
    answer.map_err(|errno| ResidencyError::Io(errno.into()))
}

/// How many pages of `range`, which is not empty, the page cache holds. Pages that are being read are among them.
pub(crate) fn cached_pages(file: &File, range: &Range<u64>) -> nix::Result<u64> {
    /// Number of the system call, the same on every architecture that Rust's std supports with 64 bits. Source: scripts/syscall.tbl.
    const SYS_CACHESTAT: libc::c_long = 451;
    // Layouts of `struct cachestat_range { off, len }` and `struct cachestat { nr_cache, nr_dirty, nr_writeback, nr_evicted, nr_recently_evicted }`. Source: linux/mman.h.
    let asked = [range.start, range.end - range.start];
    let mut answer = [0_u64; 5];
    // SAFETY: the kernel reads two and writes five 64-bit numbers, which is what the arrays hold; the descriptor is open.
    let result = unsafe {
        libc::syscall(
            SYS_CACHESTAT,
            file.as_raw_fd(),
            asked.as_ptr(),
            answer.as_mut_ptr(),
            0,
        )
    };
    Errno::result(result)?;
    Ok(answer[0])
}

/// The ranges of whole pages to ask about, each with the index of its file.
fn tensor_pages(directory: &Directory) -> Vec<(u16, Range<u64>)> {
    let extents = all_extents(directory);
    let mut pages = Vec::new();
    for split in 0..directory.split_count() {
        let header_end = directory.header_len(split).next_multiple_of(page_bytes());
        let ranges = ranges_of(directory, &extents, split);
        let clipped = ranges
            .iter()
            .map(pages_around)
            .map(|range| range.start.max(header_end)..range.end);
        pages.extend(
            clipped
                .filter(|range| !range.is_empty())
                .map(|range| (split, range)),
        );
    }
    pages
}

fn count(
    files: &[ModelFile],
    pages: &[(u16, Range<u64>)],
    source: ResidencySource,
) -> nix::Result<Residency> {
    let (mut resident_pages, mut total_bytes) = (0, 0);
    for (split, range) in pages {
        let file = &files[usize::from(*split)];
        resident_pages += match source {
            ResidencySource::Cachestat if !file.kind.cachestat_is_true() => {
                return Err(Errno::EOPNOTSUPP);
            }
            ResidencySource::Cachestat => cached_pages(&file.file, range)?,
            ResidencySource::Mincore => file.mapping.resident_pages(range)?,
        };
        total_bytes += range.end - range.start;
    }
    Ok(Residency {
        resident_bytes: resident_pages * page_bytes(),
        total_bytes,
        source,
    })
}

/// Whether `mincore` tells this process the truth: to the owner, and to who may write. Root counts through the second.
fn may_ask(file: &File) -> Result<(), ResidencyError> {
    if file.metadata()?.uid() == geteuid().as_raw() {
        return Ok(());
    }
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    faccessat(
        AT_FDCWD,
        path.as_str(),
        AccessFlags::W_OK,
        AtFlags::AT_EACCESS,
    )
    .map_err(|_| ResidencyError::NotPermitted)
}
