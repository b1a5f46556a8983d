//! Storage bytes that the calling thread itself read.
//!
//! The kernel counts, per thread, the bytes of every read that the thread hands to a block device (`read_bytes` in `/proc/thread-self/io`). That is the only figure which is true for
//! readers of every user id and does not mix up threads, so each thread measures its own reads. Tried on ext4 (Linux 6.18): the count of a cold read equals its pages, that of a warm one is 0.

use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::os::unix::fs::FileExt;

/// What was read from storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageRead {
    /// That many bytes.
    Bytes(u64),
    /// The kernel does not say: no accounting in it, or `/proc` withheld (a process that changed its user id without `exec` may not even read its own).
    Unknown,
}

impl StorageRead {
    /// The bytes that are known to have been read.
    pub fn known_bytes(self) -> u64 {
        match self {
            StorageRead::Bytes(bytes) => bytes,
            StorageRead::Unknown => 0,
        }
    }
}

/// Counts what the thread that made it reads from storage. It cannot leave that thread.
#[derive(Debug)]
pub struct Meter {
    io: Option<File>,
    last: Option<u64>,
    this_thread: PhantomData<*const ()>,
}

impl Meter {
    /// Begins to count.
    pub fn start() -> Meter {
        let io = File::open("/proc/thread-self/io").ok();
        let last = io.as_ref().and_then(|io| count(io).ok());
        Meter {
            io,
            last,
            this_thread: PhantomData,
        }
    }

    /// What was read since the last lap, or since the start.
    pub fn lap(&mut self) -> StorageRead {
        let now = self.io.as_ref().and_then(|io| count(io).ok());
        let before = std::mem::replace(&mut self.last, now);
        match (before, now) {
            (Some(before), Some(now)) => StorageRead::Bytes(now.saturating_sub(before)),
            _ => StorageRead::Unknown,
        }
    }
}

/// Runs `work` and says how many bytes the calling thread read from storage meanwhile.
pub fn measure<T>(work: impl FnOnce() -> T) -> (T, StorageRead) {
    let mut meter = Meter::start();
    let result = work();
    (result, meter.lap())
}

fn count(io: &File) -> io::Result<u64> {
    let mut text = [0; 512];
    let len = io.read_at(&mut text, 0)?;
    parse(&text[..len]).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

fn parse(text: &[u8]) -> Option<u64> {
    let line = text
        .split(|&byte| byte == b'\n')
        .find_map(|line| line.strip_prefix(b"read_bytes: "))?;
    std::str::from_utf8(line).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_bytes_is_found_among_its_neighbours() {
        let check = |text: &str, expected| assert_eq!(parse(text.as_bytes()), expected, "{text:?}");
        check(
            "rchar: 1\nwchar: 2\nread_bytes: 4096\nwrite_bytes: 7\n",
            Some(4096),
        );
        check("write_bytes: 7\ncancelled_write_bytes: 1\n", None);
        check("read_bytes: x\n", None);
        check("", None);
    }

    #[test]
    fn a_thread_that_reads_nothing_counts_nothing() {
        assert_eq!(measure(|| 5), (5, StorageRead::Bytes(0)));
    }
}
