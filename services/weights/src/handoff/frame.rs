//! Frames of the hand-off protocol: bounded, versioned, little-endian, written and read by hand.
//!
//! A frame is one message of a `SOCK_SEQPACKET` socket, so its length is the message's. It begins with the version (`u16`), a kind (`u8`) and a zero byte; that much stays the same in every
//! version, so that two versions can tell each other apart. The body follows and must be of exactly the length that the kind and its counts demand.
//!
//! | from | kind | body |
//! |---|---|---|
//! | client | `Hello` 1 | token, 1 to 256 bytes |
//! | client | `Fetch` 2 | request `u64`, extent `u32` |
//! | client | `Dropped` 3 | extent `u32` |
//! | daemon | `Offer` 16 | generation `u64`, directory hash 32 bytes, file count `u16` |
//! | daemon | `Files` 17 | 1 to 32 entries of 48 bytes, with as many descriptors: dev, ino, size `u64`, mtime, ctime `i64`, header length `u64` |
//! | daemon | `Refused` 18 | reason `u8` |
//! | daemon | `Fetched` 19 | request, cold, warm, unknown bytes `u64` |
//! | daemon | `Failed` 20 | request `u64`, reason `u8` |
//!
//! After `Hello` comes `Offer` and as many `Files` as make up the file count, or `Refused`. From then on `Fetch` and `Dropped` go one way, `Fetched` and `Failed` the other, in any order.

use gguf::ExtentId;

use super::book::{FetchFailure, Refusal};
use crate::identity::FileIdentity;

/// Version of the frames' layout and meaning.
pub const PROTOCOL_VERSION: u16 = 1;
/// No frame is longer.
pub const FRAME_BYTES_MAX: usize = 2048;
/// No token is longer.
pub const TOKEN_BYTES_MAX: usize = 256;
/// Files, and descriptors, of one `Files` frame.
pub const FILES_PER_FRAME: usize = 32;

const PREFIX_BYTES: usize = 4;
const FILE_BYTES: usize = 48;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Presents a lease token.
    Hello {
        /// Its bytes.
        token: Vec<u8>,
    },
    /// Asks for an extent to be brought into the page cache.
    Fetch {
        /// Chosen by the client, given back in the answer.
        request: u64,
        /// Which extent.
        extent: ExtentId,
    },
    /// Says that the client evicted an extent.
    Dropped {
        /// Which extent.
        extent: ExtentId,
    },
    /// Opens the lease; the files follow.
    Offer {
        /// Number of the model's present content.
        generation: u64,
        /// blake3 of the headers.
        directory_hash: [u8; 32],
        /// How many files follow.
        file_count: u16,
    },
    /// Some of the files, in order, with their descriptors.
    Files(Vec<FileEntry>),
    /// Ends the hand-shake without a lease.
    Refused(Refusal),
    /// The extent is in the page cache.
    Fetched {
        /// Of which request.
        request: u64,
        /// Read from storage.
        cold_bytes: u64,
        /// Was there.
        warm_bytes: u64,
        /// One of the two.
        unknown_bytes: u64,
    },
    /// The extent could not be brought in.
    Failed {
        /// Of which request.
        request: u64,
        /// Why.
        failure: FetchFailure,
    },
}

/// What the daemon says of a file whose descriptor comes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// What `fstat` told the daemon.
    pub identity: FileIdentity,
    /// Bytes before the data section, so that the client need not read beyond.
    pub header_bytes: u64,
}

/// Why a message is no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Another version of the protocol.
    #[error("the peer speaks hand-off protocol {theirs}, this program speaks {ours}")]
    Version {
        /// Ours.
        ours: u16,
        /// The peer's.
        theirs: u16,
    },
    /// A kind that this version does not have, or a non-zero byte after it.
    #[error("unknown frame kind {kind}")]
    Kind {
        /// Kind, and the byte after it in the upper half.
        kind: u16,
    },
    /// Longer or shorter than its kind and counts demand.
    #[error("a frame of {len} bytes has the wrong length")]
    Length {
        /// Its length.
        len: usize,
    },
    /// A reason that this version does not have.
    #[error("unknown reason {code}")]
    Reason {
        /// The byte.
        code: u8,
    },
}

impl Frame {
    /// The frame as one message.
    ///
    /// # Panics
    /// If a token, or a list of files, is longer than a frame may hold.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = PROTOCOL_VERSION.to_le_bytes().to_vec();
        bytes.extend([self.kind(), 0]);
        match self {
            Frame::Hello { token } => bytes.extend_from_slice(token),
            Frame::Fetch { request, extent } => {
                bytes.extend(request.to_le_bytes());
                bytes.extend(extent.0.to_le_bytes());
            }
            Frame::Dropped { extent } => bytes.extend(extent.0.to_le_bytes()),
            Frame::Offer {
                generation,
                directory_hash,
                file_count,
            } => {
                bytes.extend(generation.to_le_bytes());
                bytes.extend(directory_hash);
                bytes.extend(file_count.to_le_bytes());
            }
            Frame::Files(entries) => entries.iter().for_each(|entry| entry.put(&mut bytes)),
            Frame::Refused(refusal) => bytes.push(refusal_code(*refusal)),
            Frame::Fetched {
                request,
                cold_bytes,
                warm_bytes,
                unknown_bytes,
            } => {
                for number in [request, cold_bytes, warm_bytes, unknown_bytes] {
                    bytes.extend(number.to_le_bytes());
                }
            }
            Frame::Failed { request, failure } => {
                bytes.extend(request.to_le_bytes());
                bytes.push(failure_code(*failure));
            }
        }
        assert!(
            bytes.len() <= FRAME_BYTES_MAX,
            "a frame of {} bytes",
            bytes.len()
        );
        bytes
    }

    /// Reads one message.
    ///
    /// # Errors
    /// [`FrameError`]; nothing is allocated beyond the message's own length.
    pub fn decode(message: &[u8]) -> Result<Frame, FrameError> {
        let mut body = Body {
            rest: message,
            len: message.len(),
        };
        let theirs = u16::from_le_bytes(body.take()?);
        if theirs != PROTOCOL_VERSION {
            return Err(FrameError::Version {
                ours: PROTOCOL_VERSION,
                theirs,
            });
        }
        let kind = u16::from_le_bytes(body.take()?);
        let frame = match kind {
            1 => Frame::Hello {
                token: body.token()?,
            },
            2 => Frame::Fetch {
                request: body.u64()?,
                extent: body.extent()?,
            },
            3 => Frame::Dropped {
                extent: body.extent()?,
            },
            16 => Frame::Offer {
                generation: body.u64()?,
                directory_hash: body.take()?,
                file_count: u16::from_le_bytes(body.take()?),
            },
            17 => Frame::Files(body.files()?),
            18 => Frame::Refused(refusal(body.byte()?)?),
            19 => Frame::Fetched {
                request: body.u64()?,
                cold_bytes: body.u64()?,
                warm_bytes: body.u64()?,
                unknown_bytes: body.u64()?,
            },
            20 => Frame::Failed {
                request: body.u64()?,
                failure: failure(body.byte()?)?,
            },
            kind => return Err(FrameError::Kind { kind }),
        };
        body.end()?;
        Ok(frame)
    }

    fn kind(&self) -> u8 {
        match self {
            Frame::Hello { .. } => 1,
            Frame::Fetch { .. } => 2,
            Frame::Dropped { .. } => 3,
            Frame::Offer { .. } => 16,
            Frame::Files(_) => 17,
            Frame::Refused(_) => 18,
            Frame::Fetched { .. } => 19,
            Frame::Failed { .. } => 20,
        }
    }
}

impl FileEntry {
    fn put(&self, bytes: &mut Vec<u8>) {
        let FileIdentity {
            dev,
            ino,
            size,
            mtime_ns,
            ctime_ns,
        } = self.identity;
        for number in [dev, ino, size] {
            bytes.extend(number.to_le_bytes());
        }
        for time in [mtime_ns, ctime_ns] {
            bytes.extend(time.to_le_bytes());
        }
        bytes.extend(self.header_bytes.to_le_bytes());
    }
}

/// What is left of a message.
struct Body<'a> {
    rest: &'a [u8],
    len: usize,
}

impl Body<'_> {
    fn wrong_length(&self) -> FrameError {
        FrameError::Length { len: self.len }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let (head, rest) = self
            .rest
            .split_first_chunk()
            .ok_or_else(|| self.wrong_length())?;
        self.rest = rest;
        Ok(*head)
    }

    fn byte(&mut self) -> Result<u8, FrameError> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u64(&mut self) -> Result<u64, FrameError> {
        self.take().map(u64::from_le_bytes)
    }

    fn i64(&mut self) -> Result<i64, FrameError> {
        self.take().map(i64::from_le_bytes)
    }

    fn extent(&mut self) -> Result<ExtentId, FrameError> {
        self.take().map(u32::from_le_bytes).map(ExtentId)
    }

    fn token(&mut self) -> Result<Vec<u8>, FrameError> {
        let token = std::mem::take(&mut self.rest);
        if (1..=TOKEN_BYTES_MAX).contains(&token.len()) {
            Ok(token.to_vec())
        } else {
            Err(self.wrong_length())
        }
    }

    fn files(&mut self) -> Result<Vec<FileEntry>, FrameError> {
        let count = self.rest.len() / FILE_BYTES;
        if !(1..=FILES_PER_FRAME).contains(&count) {
            return Err(self.wrong_length());
        }
        (0..count).map(|_| self.file()).collect()
    }

    fn file(&mut self) -> Result<FileEntry, FrameError> {
        let identity = FileIdentity {
            dev: self.u64()?,
            ino: self.u64()?,
            size: self.u64()?,
            mtime_ns: self.i64()?,
            ctime_ns: self.i64()?,
        };
        Ok(FileEntry {
            identity,
            header_bytes: self.u64()?,
        })
    }

    fn end(&self) -> Result<(), FrameError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(self.wrong_length())
        }
    }
}

const _: () = assert!(
    PREFIX_BYTES + FILES_PER_FRAME * FILE_BYTES <= FRAME_BYTES_MAX
        && PREFIX_BYTES + TOKEN_BYTES_MAX <= FRAME_BYTES_MAX
);

fn refusal_code(refusal: Refusal) -> u8 {
    match refusal {
        Refusal::UnknownToken => 1,
        Refusal::NotPermitted => 2,
        Refusal::Changed => 3,
        Refusal::Busy => 4,
        Refusal::ShuttingDown => 5,
        Refusal::Protocol => 6,
        Refusal::Internal => 7,
    }
}

fn refusal(code: u8) -> Result<Refusal, FrameError> {
    Ok(match code {
        1 => Refusal::UnknownToken,
        2 => Refusal::NotPermitted,
        3 => Refusal::Changed,
        4 => Refusal::Busy,
        5 => Refusal::ShuttingDown,
        6 => Refusal::Protocol,
        7 => Refusal::Internal,
        code => return Err(FrameError::Reason { code }),
    })
}

fn failure_code(failure: FetchFailure) -> u8 {
    match failure {
        FetchFailure::LeaseEnded => 1,
        FetchFailure::NoSuchExtent => 2,
        FetchFailure::Truncated => 3,
        FetchFailure::Changed => 4,
        FetchFailure::Io => 5,
        FetchFailure::ShuttingDown => 6,
    }
}

fn failure(code: u8) -> Result<FetchFailure, FrameError> {
    Ok(match code {
        1 => FetchFailure::LeaseEnded,
        2 => FetchFailure::NoSuchExtent,
        3 => FetchFailure::Truncated,
        4 => FetchFailure::Changed,
        5 => FetchFailure::Io,
        6 => FetchFailure::ShuttingDown,
        code => return Err(FrameError::Reason { code }),
    })
}

#[cfg(test)]
mod tests;
