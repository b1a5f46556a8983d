//! What kind of file system a descriptor lies on.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::sys::statfs::{self, FsType, fstatfs};

use crate::accounting::{StorageRead, measure};

/// File systems, by what their page cache and their accounting can be trusted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilesystemKind {
    /// ext2/3/4, XFS, F2FS, btrfs: reads go through the page cache and are charged to the thread that reads.
    Block,
    /// tmpfs, ramfs: the pages are the storage.
    Memory,
    /// overlayfs: the pages belong to a file of another file system, and `cachestat` looks at the wrong one.
    Overlay,
    /// Anything else: FUSE, network file systems, ZFS.
    Other {
        /// `f_type` of `statfs`.
        magic: i64,
    },
}

/// `f_type` of F2FS. Source: linux/magic.h.
const F2FS_MAGIC: i64 = 0xf2f5_2010;
/// `f_type` of ramfs. Source: linux/magic.h.
const RAMFS_MAGIC: i64 = 0x8584_58f6;

impl FilesystemKind {
    pub(crate) fn of(file: &File) -> io::Result<FilesystemKind> {
        let FsType(magic) = fstatfs(file)?.filesystem_type();
        Ok(FilesystemKind::from_magic(magic))
    }

    fn from_magic(magic: i64) -> FilesystemKind {
        let is = |kind: FsType| kind.0 == magic;
        if [
            statfs::EXT4_SUPER_MAGIC,
            statfs::XFS_SUPER_MAGIC,
            statfs::BTRFS_SUPER_MAGIC,
        ]
        .into_iter()
        .any(is)
            || magic == F2FS_MAGIC
        {
            FilesystemKind::Block
        } else if is(statfs::TMPFS_MAGIC) || magic == RAMFS_MAGIC {
            FilesystemKind::Memory
        } else if is(statfs::OVERLAYFS_SUPER_MAGIC) {
            FilesystemKind::Overlay
        } else {
            FilesystemKind::Other { magic }
        }
    }

    /// Whether what a thread reads from `file`'s storage shows in that thread's own count.
    ///
    /// Where the kind alone does not tell, the first page is dropped and read again: the count either moves or it does not. If the page cannot be dropped the answer is no, and bytes stay
    /// unknown that may have been known.
    pub(crate) fn accounts(self, file: &File) -> bool {
        match self {
            FilesystemKind::Block | FilesystemKind::Memory => true,
            FilesystemKind::Overlay | FilesystemKind::Other { .. } => {
                moves_the_count(file).unwrap_or(false)
            }
        }
    }

    /// Whether the page cache of `file`'s own inode is where its pages are.
    pub(crate) fn cachestat_is_true(self) -> bool {
        matches!(self, FilesystemKind::Block | FilesystemKind::Memory)
    }

    /// Whether `mincore` on a mapping tells where its pages are (to those who may ask).
    pub(crate) fn mincore_is_true(self) -> bool {
        !matches!(self, FilesystemKind::Other { .. })
    }
}

fn moves_the_count(file: &File) -> io::Result<bool> {
    const PAGE: i64 = 4096;
    posix_fadvise(file, 0, PAGE, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    let (read, storage) = measure(|| file.read_at(&mut [0], 0));
    Ok(read? == 1 && matches!(storage, StorageRead::Bytes(1..)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_by_magic() {
        let check = |magic, kind| assert_eq!(FilesystemKind::from_magic(magic), kind, "{magic:#x}");
        check(0xef53, FilesystemKind::Block);
        check(0x5846_5342, FilesystemKind::Block);
        check(0x0102_1994, FilesystemKind::Memory);
        check(0x794c_7630, FilesystemKind::Overlay);
        check(0x6573_5546, FilesystemKind::Other { magic: 0x6573_5546 });
        check(0x6969, FilesystemKind::Other { magic: 0x6969 });
    }
}
