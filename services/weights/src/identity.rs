//! Which file, and which content of it.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;

/// What tells one content of one file from any other, as far as `fstat` can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileIdentity {
    /// Device number of the file system.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Length in bytes.
    pub size: u64,
    /// Last change of content, nanoseconds since the epoch.
    pub mtime_ns: i64,
    /// Last change of content or of attributes, nanoseconds since the epoch.
    pub ctime_ns: i64,
}

impl FileIdentity {
    /// What `fstat` says now.
    ///
    /// # Errors
    /// What `fstat` gives.
    pub fn of(file: &File) -> io::Result<FileIdentity> {
        Ok(FileIdentity::from_metadata(&file.metadata()?))
    }

    pub(crate) fn from_metadata(metadata: &Metadata) -> FileIdentity {
        FileIdentity {
            dev: metadata.dev(),
            ino: metadata.ino(),
            size: metadata.size(),
            mtime_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            ctime_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether the content may differ from `earlier`'s.
    ///
    /// The change time is left out: it moves when a file is renamed or unlinked, which is how a model is replaced without touching those who have it open.
    pub(crate) fn content_differs(&self, earlier: &FileIdentity) -> bool {
        (self.size, self.mtime_ns) != (earlier.size, earlier.mtime_ns)
    }
}

/// A file can claim any time at all, so the sum stops at the ends.
fn nanoseconds(seconds: i64, nanoseconds: i64) -> i64 {
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(nanoseconds)
}
