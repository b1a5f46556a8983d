//! What the kernel says of a process and of a file's pages.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

/// Memory figures of the mappings of one file in one process, in bytes, as `/proc/PID/smaps` gives them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MappedMemory {
    figures: BTreeMap<String, u64>,
}

impl MappedMemory {
    /// Adds up the mappings of `file` in process `pid`.
    ///
    /// # Errors
    /// If the process is gone or not ours.
    pub fn of(pid: u32, file: &Path) -> io::Result<MappedMemory> {
        let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps"))?;
        let path = file.canonicalize()?;
        let path = path.to_str().ok_or(io::ErrorKind::InvalidFilename)?;
        let mut memory = MappedMemory::default();
        let mut ours = false;
        for line in smaps.lines() {
            let is_header = line
                .split_once(' ')
                .is_some_and(|(range, _)| range.contains('-'));
            if is_header {
                ours = line.ends_with(path);
            } else if ours && let Some((name, value)) = line.split_once(':') {
                let kib: Option<u64> = value
                    .trim()
                    .strip_suffix(" kB")
                    .and_then(|kib| kib.parse().ok());
                *memory.figures.entry(name.to_owned()).or_default() += kib.unwrap_or(0) << 10;
            }
        }
        Ok(memory)
    }

    /// One figure, such as `Rss`, `Pss` or `Anonymous`; 0 where nothing is mapped.
    #[must_use]
    pub fn bytes(&self, figure: &str) -> u64 {
        self.figures.get(figure).copied().unwrap_or(0)
    }
}

/// Drops a file's clean pages from the page cache. Pages that a process maps stay.
///
/// # Errors
/// If the file cannot be opened or written back.
pub fn drop_page_cache(file: &Path) -> io::Result<()> {
    drop_page_cache_range(file, 0, 0)
}

/// The same for `len` bytes from `offset`; a length of 0 goes to the end.
///
/// # Errors
/// If the file cannot be opened or written back.
pub fn drop_page_cache_range(file: &Path, offset: u64, len: u64) -> io::Result<()> {
    let file = File::open(file)?;
    file.sync_all()?;
    let (offset, len) = (
        offset.try_into().map_err(io::Error::other)?,
        len.try_into().map_err(io::Error::other)?,
    );
    posix_fadvise(
        file.as_fd(),
        offset,
        len,
        PosixFadviseAdvice::POSIX_FADV_DONTNEED,
    )
    .map_err(io::Error::from)
}
