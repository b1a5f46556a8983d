//! What the daemon's lease book must do for the hand-off socket.

use std::sync::Arc;

use gguf::ExtentId;

use crate::error::FetchError;
use crate::fetched::Fetched;
use crate::weights::Weights;

/// Who is at the other end, as the kernel says (`SO_PEERCRED`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCredentials {
    /// Process id when it connected; 0 if it lives in a pid namespace that we do not see.
    pub pid: i32,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// What a redeemed token gives.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The model. The connection keeps it alive.
    pub weights: Arc<Weights>,
    /// Number of the model's present content.
    pub generation: u64,
    /// The book's own number for the lease, passed back in every later call.
    pub lease_id: u64,
}

/// Why a token was not redeemed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Never issued, used up, or timed out.
    #[error("the token is unknown, used or expired")]
    UnknownToken,
    /// This peer may not have it.
    #[error("the peer may not hold this lease")]
    NotPermitted,
    /// The files changed since the token was issued.
    #[error("the model's files changed since the token was issued")]
    Changed,
    /// Too many connections or leases.
    #[error("too many leases")]
    Busy,
    /// The daemon is going away.
    #[error("the daemon is shutting down")]
    ShuttingDown,
    /// The peer sent something that the protocol does not allow.
    #[error("protocol violation")]
    Protocol,
    /// The daemon could not prepare the descriptors.
    #[error("the daemon failed to prepare the descriptors")]
    Internal,
}

/// Why the daemon did not read an extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchFailure {
    /// The lease has ended.
    #[error("the lease has ended")]
    LeaseEnded,
    /// The directory has no such extent.
    #[error("no such extent")]
    NoSuchExtent,
    /// The file is too short now.
    #[error("the file was truncated")]
    Truncated,
    /// The file was written to.
    #[error("the file was modified")]
    Changed,
    /// Reading failed.
    #[error("reading failed")]
    Io,
    /// The daemon is going away.
    #[error("the daemon is shutting down")]
    ShuttingDown,
}

impl From<&FetchError> for FetchFailure {
    fn from(error: &FetchError) -> FetchFailure {
        match error {
            FetchError::Truncated { .. } | FetchError::Poisoned { .. } => FetchFailure::Truncated,
            FetchError::Changed { .. } => FetchFailure::Changed,
            FetchError::Io { .. } => FetchFailure::Io,
            FetchError::Stopped => FetchFailure::ShuttingDown,
            FetchError::NoSuchExtent { .. } => FetchFailure::NoSuchExtent,
        }
    }
}

/// The daemon's side of leases. Called on threads of the hand-off server; may block.
pub trait LeaseBook: Send + Sync + 'static {
    /// Turns a one-time token into a lease.
    ///
    /// # Errors
    /// [`Refusal`], which the peer is told.
    fn redeem(&self, token: &[u8], peer: PeerCredentials) -> Result<Grant, Refusal>;

    /// Brings an extent into the page cache. Several calls for one lease run at once ([`super::HandoffLimits::fetches_per_connection`]).
    ///
    /// `extent` is in range.
    /// # Errors
    /// [`FetchFailure`], which the peer is told; it then reads for itself.
    fn fetch(&self, lease_id: u64, extent: ExtentId) -> Result<Fetched, FetchFailure>;

    /// The holder evicted an extent. `extent` is in range.
    fn dropped(&self, lease_id: u64, extent: ExtentId);

    /// The connection has ended; calls of `fetch` for this lease that still run are worth nothing any more. `released` follows when the last of them has returned.
    fn disconnected(&self, lease_id: u64) {
        let _ = lease_id;
    }

    /// The lease has ended with its connection. Called exactly once for each grant, after the last `fetch` has returned.
    fn released(&self, lease_id: u64);
}
