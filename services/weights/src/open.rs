//! From a path, or from descriptors, to files that have been looked at.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use gguf::{Directory, ParseError};
use nix::fcntl::{OFlag, OpenHow, PosixFadviseAdvice, ResolveFlag, openat2, posix_fadvise};

use crate::error::OpenError;
use crate::filesystem::FilesystemKind;
use crate::header::{HeaderError, read_header};
use crate::identity::FileIdentity;
use crate::mapping::{MapError, Mapping};

/// Files that one model may have.
pub(crate) const FILES_MAX: u16 = 1024;

/// One open file of a model, mapped.
#[derive(Debug)]
pub(crate) struct ModelFile {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
    pub(crate) kind: FilesystemKind,
    /// Whether reads from it show in the reading thread's count.
    pub(crate) accounts: bool,
    pub(crate) mapping: Mapping,
}

/// All files of a model.
pub(crate) struct Opened {
    pub(crate) directory: Directory,
    pub(crate) directory_hash: [u8; 32],
    pub(crate) identity: Vec<FileIdentity>,
    pub(crate) files: Vec<ModelFile>,
}

/// A descriptor, what to call it in messages, and how long its header is if somebody said.
pub(crate) struct Candidate {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
    pub(crate) header_bytes: Option<u64>,
}

/// A file whose header has been read.
struct Inspected {
    candidate: Candidate,
    identity: FileIdentity,
    kind: FilesystemKind,
    directory: Directory,
    header: Vec<u8>,
}

/// Opens the model whose first file `open` finds at `path`, and the siblings that it says it has.
pub(crate) fn open_with_siblings(
    path: &Path,
    open: &dyn Fn(&Path) -> io::Result<File>,
) -> Result<Opened, OpenError> {
    let candidate = |path: &Path| {
        let file = open(path).map_err(|source| {
            let path = path.to_owned();
            // What the kernel says of a path that leaves the folder.
            if source.raw_os_error() == Some(libc::EXDEV) {
                OpenError::Outside { path }
            } else {
                OpenError::Io { path, source }
            }
        })?;
        Ok(Candidate {
            file,
            path: path.to_owned(),
            header_bytes: None,
        })
    };
    let first = inspect(candidate(path)?)?;
    let mut files = Vec::new();
    let siblings = match first.directory.split() {
        Some(split) => siblings(path, split)?,
        None => Vec::new(),
    };
    files.push(first);
    for sibling in siblings {
        files.push(inspect(candidate(&sibling)?)?);
    }
    assemble(files)
}

/// Opens a model from descriptors, in the order of its files.
pub(crate) fn open_candidates(candidates: Vec<Candidate>) -> Result<Opened, OpenError> {
    assemble(
        candidates
            .into_iter()
            .map(inspect)
            .collect::<Result<_, _>>()?,
    )
}

/// Opens a path as it is, without waiting for a FIFO's other end or becoming a terminal's owner.
pub(crate) fn open_path(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC)
        .open(path)
}

/// Opens a path below `dir`: links are followed as long as they stay there, those of `/proc` never.
pub(crate) fn open_path_beneath(dir: BorrowedFd<'_>, relative: &Path) -> io::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let how = OpenHow::new()
        .flags(flags)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    Ok(File::from(openat2(dir, relative, how)?))
}

/// Opens the file behind a descriptor once more.
///
/// Whoever receives a descriptor shares its open file description: flags such as `O_DIRECT` and read advice that one side sets hold for the other. A description of its own for each
/// receiver keeps them apart.
pub(crate) fn reopen(file: &File) -> io::Result<File> {
    let again = open_path(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())))?;
    advise_random(&again)?;
    Ok(again)
}

fn advise_random(file: &File) -> io::Result<()> {
    Ok(posix_fadvise(
        file,
        0,
        0,
        PosixFadviseAdvice::POSIX_FADV_RANDOM,
    )?)
}

/// Paths of the files after the first: `NAME-00001-of-00003.gguf` has two.
fn siblings(first: &Path, split: gguf::Split) -> Result<Vec<PathBuf>, OpenError> {
    let (number, count) = (u32::from(split.number) + 1, u32::from(split.count));
    if number != 1 {
        return Err(OpenError::NotFirstSplit {
            path: first.to_owned(),
            number,
            count,
        });
    }
    if split.count > FILES_MAX {
        return Err(OpenError::TooManyFiles {
            count,
            limit: u32::from(FILES_MAX),
        });
    }
    let misnamed = || OpenError::Misnamed {
        path: first.to_owned(),
        count,
    };
    let name = first
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(misnamed)?;
    let stem = name
        .strip_suffix(&format!("-00001-of-{count:05}.gguf"))
        .ok_or_else(misnamed)?;
    Ok((2..=count)
        .map(|number| first.with_file_name(format!("{stem}-{number:05}-of-{count:05}.gguf")))
        .collect())
}

fn inspect(candidate: Candidate) -> Result<Inspected, OpenError> {
    let failed = |source| OpenError::Io {
        path: candidate.path.clone(),
        source,
    };
    let metadata = candidate.file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(OpenError::NotRegular {
            path: candidate.path,
        });
    }
    let identity = FileIdentity::from_metadata(&metadata);
    let kind = FilesystemKind::of(&candidate.file).map_err(failed)?;
    advise_random(&candidate.file).map_err(failed)?;
    match read_header(&candidate.file, identity.size, candidate.header_bytes) {
        Ok(header) => Ok(Inspected {
            candidate,
            identity,
            kind,
            directory: header.directory,
            header: header.bytes,
        }),
        Err(HeaderError::Io(source)) => Err(OpenError::Io {
            path: candidate.path,
            source,
        }),
        Err(HeaderError::Parse(source)) => Err(OpenError::Parse {
            path: candidate.path,
            source,
        }),
    }
}

fn assemble(inspected: Vec<Inspected>) -> Result<Opened, OpenError> {
    let mut hasher = blake3::Hasher::new();
    let mut directories = Vec::with_capacity(inspected.len());
    let mut identity = Vec::with_capacity(inspected.len());
    let mut files = Vec::with_capacity(inspected.len());
    for file in inspected {
        hasher.update(&crate::pages::to_bytes(file.header.len()).to_le_bytes());
        hasher.update(&file.header);
        directories.push(file.directory);
        identity.push(file.identity);
        files.push(map(file.candidate, file.identity, file.kind)?);
    }
    let directory = Directory::join(directories).map_err(|source: ParseError| {
        let path = files
            .first()
            .map(|file| file.path.clone())
            .unwrap_or_default();
        OpenError::Parse { path, source }
    })?;
    Ok(Opened {
        directory,
        directory_hash: hasher.finalize().into(),
        identity,
        files,
    })
}

fn map(
    candidate: Candidate,
    identity: FileIdentity,
    kind: FilesystemKind,
) -> Result<ModelFile, OpenError> {
    let Candidate { file, path, .. } = candidate;
    let mapping = match Mapping::new(&file, identity.size) {
        Ok(mapping) => mapping,
        Err(MapError::Io(source)) => return Err(OpenError::Io { path, source }),
        Err(MapError::TableFull) => {
            return Err(OpenError::TooManyMappings {
                limit: crate::sigbus::SLOT_COUNT,
            });
        }
    };
    match FileIdentity::of(&file) {
        Ok(now) if now == identity => {}
        Ok(_) => return Err(OpenError::Changed { path }),
        Err(source) => return Err(OpenError::Io { path, source }),
    }
    let accounts = kind.accounts(&file);
    Ok(ModelFile {
        file,
        path,
        kind,
        accounts,
        mapping,
    })
}
