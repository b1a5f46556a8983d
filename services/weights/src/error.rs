//! What can go wrong with model files.

use std::io;
use std::path::PathBuf;

use gguf::ParseError;

use crate::filesystem::FilesystemKind;

/// Why a model's files could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A system call on a file failed; not found and permission denied are among the kinds.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The path, or a link on it, leads out of the folder below which files are opened.
    #[error("{} leads out of the folder of models: start the daemon with the folder that holds the file itself, or bring it here without a link", path.display())]
    Outside {
        /// The path.
        path: PathBuf,
    },
    /// A directory, a device, a socket: anything but a regular file.
    #[error("{} is not a regular file", path.display())]
    NotRegular {
        /// The file.
        path: PathBuf,
    },
    /// The header is malformed.
    #[error("{}: {source}", path.display())]
    Parse {
        /// The file; the first one if the splits do not fit together.
        path: PathBuf,
        /// The cause.
        source: ParseError,
    },
    /// A split other than the first was named.
    #[error("{} is split {number} of {count}; name the first", path.display())]
    NotFirstSplit {
        /// The file.
        path: PathBuf,
        /// Its number, from 1.
        number: u32,
        /// How many there are.
        count: u32,
    },
    /// The first of several splits has a name from which those of the others do not follow.
    #[error("{} says that it is the first of {count} splits, but is not named NAME-00001-of-{count:05}.gguf", path.display())]
    Misnamed {
        /// The file.
        path: PathBuf,
        /// How many there are.
        count: u32,
    },
    /// More files than a model may have.
    #[error("a model of {count} files; at most {limit} are allowed")]
    TooManyFiles {
        /// How many the name, or the daemon, promises.
        count: u32,
        /// The most.
        limit: u32,
    },
    /// The file changed while it was being opened.
    #[error("{} changed while it was being opened", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// Every slot of the table behind [`crate::sigbus`] is taken.
    #[error("more than {limit} files are mapped")]
    TooManyMappings {
        /// The most.
        limit: usize,
    },
}

/// Why an extent could not be brought in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The file is shorter than the extent's end.
    #[error(
        "file {split} was truncated: bytes up to {need_bytes} are needed, {file_bytes} are left"
    )]
    Truncated {
        /// Which file of the model, from 0.
        split: u16,
        /// End of the extent in that file.
        need_bytes: u64,
        /// Its length now.
        file_bytes: u64,
    },
    /// The file was written to since it was opened: its size or modification time differs.
    #[error("file {split} was modified since it was opened")]
    Changed {
        /// Which file of the model, from 0.
        split: u16,
    },
    /// A page of the mapping was lost earlier; see [`crate::sigbus`].
    #[error("the mapping of file {split} lost pages under a reader")]
    Poisoned {
        /// Which file of the model, from 0.
        split: u16,
    },
    /// Reading failed.
    #[error("reading file {split}: {source}")]
    Io {
        /// Which file of the model, from 0.
        split: u16,
        /// The cause.
        source: io::Error,
    },
    /// The caller's callback asked to stop.
    #[error("stopped by the caller")]
    Stopped,
    /// The directory has no such extent.
    #[error("extent {index} is out of range: the directory has {count}")]
    NoSuchExtent {
        /// The number that was asked for.
        index: u32,
        /// How many there are.
        count: usize,
    },
}

/// Why it cannot be said how much of a model is in the page cache.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResidencyError {
    /// This process neither owns the file nor may write it, so the kernel refuses or invents an answer.
    #[error(
        "the kernel tells page cache residency only to the file's owner or to who may write it"
    )]
    NotPermitted,
    /// The page cache says nothing about this kind of file system.
    #[error("page cache residency means nothing on a file system of kind {kind:?}")]
    Filesystem {
        /// The kind.
        kind: FilesystemKind,
    },
    /// A system call failed.
    #[error("asking for residency: {0}")]
    Io(#[from] io::Error),
}
