//! Messages of the hand-off socket, as either end reads them from a peer that it does not trust.

use gguf::ExtentId;
use weights::FileIdentity;
use weights::handoff::frame::{FILES_PER_FRAME, FRAME_BYTES_MAX, FileEntry, Frame};
use weights::handoff::{FetchFailure, Refusal};

/// A message is refused or is exactly what encoding its frame gives.
///
/// # Panics
/// If that does not hold of the message `bytes`.
pub fn check(bytes: &[u8]) {
    if let Ok(frame) = Frame::decode(bytes) {
        assert!(bytes.len() <= FRAME_BYTES_MAX, "{frame:?} is too long");
        assert_eq!(frame.encode(), bytes, "{frame:?}");
    }
}

/// One message of every kind, and the longest.
pub fn seeds() -> Vec<Vec<u8>> {
    let (request, extent) = (1 << 40, ExtentId(7));
    let identity = FileIdentity {
        dev: 1,
        ino: 2,
        size: 3 << 32,
        mtime_ns: -4,
        ctime_ns: 5,
    };
    let file = FileEntry {
        identity,
        header_bytes: 4096,
    };
    let frames = [
        Frame::Hello {
            token: b"token".to_vec(),
        },
        Frame::Fetch { request, extent },
        Frame::Dropped { extent },
        Frame::Offer {
            generation: 3,
            directory_hash: [0xa5; 32],
            file_count: 40,
        },
        Frame::Files(vec![file]),
        Frame::Files(vec![file; FILES_PER_FRAME]),
        Frame::Refused(Refusal::Busy),
        Frame::Fetched {
            request,
            cold_bytes: 4096,
            warm_bytes: 0,
            unknown_bytes: 512,
        },
        Frame::Failed {
            request,
            failure: FetchFailure::Truncated,
        },
    ];
    frames.iter().map(Frame::encode).collect()
}
