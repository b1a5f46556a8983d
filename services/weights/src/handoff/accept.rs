//! The client's end: from a token to a [`Weights`].

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::book::Refusal;
use super::endpoint::{Endpoint, ReceiveError};
use super::frame::{FileEntry, Frame, FrameError, TOKEN_BYTES_MAX};
use super::lease::LeaseHolder;
use crate::error::OpenError;
use crate::identity::FileIdentity;
use crate::open::{Candidate, FILES_MAX, open_candidates};
use crate::weights::Weights;

/// How a lease is held.
pub struct AcceptOptions {
    /// How long a fetch, and each step of the hand-shake, waits for the daemon.
    pub fetch_timeout: Duration,
    /// Called on a thread of ours when the daemon is lost, once for each lease, not when the [`Weights`] is dropped. Must not block.
    pub on_lost: Option<Box<dyn Fn() + Send + Sync>>,
}

impl fmt::Debug for AcceptOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcceptOptions")
            .field("fetch_timeout", &self.fetch_timeout)
            .finish_non_exhaustive()
    }
}

/// Why a lease could not be taken up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// Nobody answers at the socket.
    #[error("connecting to {}: {source}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The connection failed during the hand-shake; `TimedOut` and `UnexpectedEof` are among the kinds.
    #[error("hand-off: {0}")]
    Io(#[from] io::Error),
    /// The daemon speaks another version of the protocol.
    #[error("the daemon speaks hand-off protocol {theirs}, this program speaks {ours}")]
    Version {
        /// Ours.
        ours: u16,
        /// The daemon's.
        theirs: u16,
    },
    /// The daemon said no.
    #[error("the daemon refused: {0}")]
    Refused(Refusal),
    /// The daemon sent something that the protocol does not allow; every descriptor was closed.
    #[error("protocol violation by the daemon: {what}")]
    Protocol {
        /// What it was.
        what: String,
    },
    /// A descriptor is not what was promised; every one was closed.
    #[error("descriptor {index} {problem}")]
    Descriptor {
        /// Which one, from 0.
        index: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The files behind the descriptors cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The files, or their headers, differ from what the daemon listed, or from what was attached before.
    #[error("the model's {what} differ from the ones expected")]
    Mismatch {
        /// What differs.
        what: &'static str,
    },
    /// No token has this length.
    #[error("a token has 1 to {TOKEN_BYTES_MAX} bytes, not {len}")]
    TokenLength {
        /// The length.
        len: usize,
    },
    /// These weights were opened by path and have no lease to replace.
    #[error("these weights were opened by path and hold no lease")]
    NoLease,
}

impl From<ReceiveError> for AcceptError {
    fn from(error: ReceiveError) -> AcceptError {
        match error {
            ReceiveError::Closed => AcceptError::Io(io::ErrorKind::UnexpectedEof.into()),
            ReceiveError::Io(error) if error.kind() == io::ErrorKind::WouldBlock => {
                AcceptError::Io(io::ErrorKind::TimedOut.into())
            }
            ReceiveError::Io(error) => AcceptError::Io(error),
            ReceiveError::Frame(FrameError::Version { ours, theirs }) => {
                AcceptError::Version { ours, theirs }
            }
            violation => AcceptError::Protocol {
                what: violation.to_string(),
            },
        }
    }
}

/// Presents `token` at the daemon's hand-off socket and opens the model from the descriptors that come back.
///
/// # Errors
/// [`AcceptError`]; no descriptor stays open then.
pub fn accept(socket: &Path, token: &[u8], options: AcceptOptions) -> Result<Weights, AcceptError> {
    let offer = shake_hands(socket, token, options.fetch_timeout)?;
    let Offer {
        endpoint,
        generation,
        directory_hash,
        files,
    } = offer;
    let expected: Vec<FileIdentity> = files.iter().map(|(entry, _)| entry.identity).collect();
    let candidate = |(index, (entry, file)): (usize, (FileEntry, File))| Candidate {
        file,
        path: format!("descriptor {index}").into(),
        header_bytes: Some(entry.header_bytes),
    };
    let opened = open_candidates(files.into_iter().enumerate().map(candidate).collect())?;
    expect_same(
        &opened.identity,
        &expected,
        opened.directory_hash == directory_hash,
    )?;
    let lease = LeaseHolder::new(endpoint, generation, options)?;
    Ok(Weights::from_opened(opened, Some(lease)))
}

/// What the daemon offered, and the connection that is the lease.
pub(super) struct Offer {
    pub(super) endpoint: Endpoint,
    pub(super) generation: u64,
    pub(super) directory_hash: [u8; 32],
    pub(super) files: Vec<(FileEntry, File)>,
}

/// Presents a token and receives the whole offer, each descriptor a regular file open for reading alone and in the state that the daemon says.
pub(super) fn shake_hands(
    socket: &Path,
    token: &[u8],
    timeout: Duration,
) -> Result<Offer, AcceptError> {
    if !(1..=TOKEN_BYTES_MAX).contains(&token.len()) {
        return Err(AcceptError::TokenLength { len: token.len() });
    }
    let endpoint = Endpoint::connect(socket, timeout).map_err(|source| AcceptError::Connect {
        path: socket.to_owned(),
        source,
    })?;
    // A daemon that refuses at once may have closed its end by now; its answer is there all the same.
    let sent = endpoint.send(
        &Frame::Hello {
            token: token.to_vec(),
        },
        &[],
    );
    let (generation, directory_hash, file_count) = match endpoint.receive() {
        Ok(Frame::Offer {
            generation,
            directory_hash,
            file_count,
        }) => (generation, directory_hash, file_count),
        Ok(Frame::Refused(refusal)) => return Err(AcceptError::Refused(refusal)),
        Ok(_) => return Err(unexpected_frame()),
        Err(error) => return Err(sent.err().map_or_else(|| error.into(), AcceptError::Io)),
    };
    if !(1..=FILES_MAX).contains(&file_count) {
        return Err(OpenError::TooManyFiles {
            count: u32::from(file_count),
            limit: u32::from(FILES_MAX),
        }
        .into());
    }
    let mut files = Vec::with_capacity(usize::from(file_count));
    while files.len() < usize::from(file_count) {
        let (Frame::Files(entries), descriptors) = endpoint.receive_with_descriptors()? else {
            return Err(unexpected_frame());
        };
        for (entry, descriptor) in entries.into_iter().zip(descriptors) {
            let file = check_descriptor(files.len(), &entry, descriptor)?;
            files.push((entry, file));
        }
    }
    if files.len() > usize::from(file_count) {
        return Err(AcceptError::Protocol {
            what: format!("{} files where {file_count} were offered", files.len()),
        });
    }
    Ok(Offer {
        endpoint,
        generation,
        directory_hash,
        files,
    })
}

/// Demands that files and headers are the ones expected.
pub(super) fn expect_same(
    found: &[FileIdentity],
    expected: &[FileIdentity],
    same_headers: bool,
) -> Result<(), AcceptError> {
    if found != expected {
        return Err(AcceptError::Mismatch { what: "files" });
    }
    if same_headers {
        Ok(())
    } else {
        Err(AcceptError::Mismatch { what: "headers" })
    }
}

fn unexpected_frame() -> AcceptError {
    AcceptError::Protocol {
        what: "a frame that does not belong in the hand-shake".to_owned(),
    }
}

fn check_descriptor(
    index: usize,
    entry: &FileEntry,
    descriptor: OwnedFd,
) -> Result<File, AcceptError> {
    let wrong = |problem| AcceptError::Descriptor { index, problem };
    let flags =
        OFlag::from_bits_retain(fcntl(&descriptor, FcntlArg::F_GETFL).map_err(io::Error::from)?);
    if flags.contains(OFlag::O_PATH) || flags & OFlag::O_ACCMODE != OFlag::O_RDONLY {
        return Err(wrong("is not open for reading alone"));
    }
    if flags.contains(OFlag::O_DIRECT) {
        return Err(wrong("bypasses the page cache"));
    }
    let file = File::from(descriptor);
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(wrong("is not a regular file"));
    }
    if FileIdentity::from_metadata(&metadata) != entry.identity {
        return Err(wrong("is not the file that was offered, or changed since"));
    }
    Ok(file)
}
