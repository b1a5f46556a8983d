//! One client's connection, on the daemon's side.

use std::os::fd::AsFd;
use std::thread::{self, Scope};
use std::time::Duration;

use gguf::ExtentId;

use super::book::{Grant, LeaseBook, PeerCredentials, Refusal};
use super::endpoint::{Endpoint, ReceiveError};
use super::frame::{FILES_PER_FRAME, FileEntry, Frame};
use super::workers::{WorkerLimits, Workers};
use crate::identity::FileIdentity;
use crate::open::reopen;

/// Fetches that may wait for a thread. A client with more on their way than that is not one of ours.
const QUEUED_FETCHES_MAX: usize = 1024;

/// What a connection may use.
#[derive(Clone, Copy)]
pub(super) struct ConnectionLimits {
    pub(super) fetch_threads: usize,
    pub(super) peer_timeout: Duration,
}

/// Serves a connection to its end. Whatever happens, `released` is called once for a lease that was granted.
pub(super) fn serve(
    endpoint: &Endpoint,
    peer: PeerCredentials,
    book: &dyn LeaseBook,
    limits: ConnectionLimits,
) {
    let outcome = shake_hands(endpoint, peer, book, limits.peer_timeout);
    match outcome {
        Ok(lease) => {
            let reason = follow(endpoint, &lease, limits.fetch_threads);
            tracing::debug!(lease = lease.grant.lease_id, pid = peer.pid, %reason, "lease ended");
        }
        Err(reason) => tracing::warn!(pid = peer.pid, uid = peer.uid, %reason, "hand-off refused"),
    }
    endpoint.close();
}

/// Tells a peer beyond the limit so. Its token is read first: a socket that is closed with unread data takes what was sent along.
pub(super) fn refuse(endpoint: &Endpoint, peer: PeerCredentials, limits: ConnectionLimits) {
    let told = endpoint
        .set_receive_timeout(Some(limits.peer_timeout))
        .is_ok()
        && endpoint.receive().is_ok()
        && endpoint.send_now(&Frame::Refused(Refusal::Busy)).is_ok();
    tracing::warn!(
        pid = peer.pid,
        uid = peer.uid,
        told,
        "too many hand-off connections"
    );
}

/// A grant whose end the book hears of.
struct Lease<'a> {
    grant: Grant,
    book: &'a dyn LeaseBook,
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        self.book.released(self.grant.lease_id);
    }
}

/// Why there is no lease.
#[derive(Debug, thiserror::Error)]
enum HandshakeError {
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    #[error("the first frame is no token")]
    NotHello,
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("file {0} is not as it was opened")]
    Changed(usize),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl HandshakeError {
    /// What the peer is told, as far as it can be told.
    fn refusal(&self) -> Option<Refusal> {
        match self {
            HandshakeError::Receive(ReceiveError::Closed | ReceiveError::Io(_)) => None,
            HandshakeError::Receive(_) | HandshakeError::NotHello => Some(Refusal::Protocol),
            HandshakeError::Refused(refusal) => Some(*refusal),
            HandshakeError::Changed(_) => Some(Refusal::Changed),
            HandshakeError::Io(_) => Some(Refusal::Internal),
        }
    }
}

fn shake_hands<'a>(
    endpoint: &Endpoint,
    peer: PeerCredentials,
    book: &'a dyn LeaseBook,
    timeout: Duration,
) -> Result<Lease<'a>, HandshakeError> {
    let offer = || {
        endpoint.set_receive_timeout(Some(timeout))?;
        endpoint.set_send_timeout(timeout)?;
        let Frame::Hello { token } = endpoint.receive()? else {
            return Err(HandshakeError::NotHello);
        };
        let lease = Lease {
            grant: book.redeem(&token, peer)?,
            book,
        };
        send_offer(endpoint, &lease.grant)?;
        endpoint.set_receive_timeout(None)?;
        Ok(lease)
    };
    let result: Result<Lease<'a>, HandshakeError> = offer();
    if let Some(refusal) = result.as_ref().err().and_then(HandshakeError::refusal) {
        // To a peer of another version this frame is its way to learn ours. One that has gone need not know.
        let _ = endpoint.send(&Frame::Refused(refusal), &[]);
    }
    result
}

/// Sends the directory's hash and the files, each through an open file description that nobody else uses.
fn send_offer(endpoint: &Endpoint, grant: &Grant) -> Result<(), HandshakeError> {
    let weights = &grant.weights;
    let directory = weights.directory();
    let mut files = Vec::new();
    for (split, (file, &identity)) in weights.files().iter().zip(weights.identity()).enumerate() {
        let again = reopen(&file.file)?;
        if FileIdentity::of(&again)? != identity {
            return Err(HandshakeError::Changed(split));
        }
        files.push((identity, again));
    }
    let header_bytes = (0..directory.split_count()).map(|split| directory.header_len(split));
    let entries: Vec<FileEntry> = files
        .iter()
        .zip(header_bytes)
        .map(|(&(identity, _), header_bytes)| FileEntry {
            identity,
            header_bytes,
        })
        .collect();
    let (generation, directory_hash) = (grant.generation, weights.directory_hash());
    endpoint.send(
        &Frame::Offer {
            generation,
            directory_hash,
            file_count: directory.split_count(),
        },
        &[],
    )?;
    for (entries, files) in entries
        .chunks(FILES_PER_FRAME)
        .zip(files.chunks(FILES_PER_FRAME))
    {
        let descriptors: Vec<_> = files.iter().map(|(_, file)| file.as_fd()).collect();
        endpoint.send(&Frame::Files(entries.to_vec()), &descriptors)?;
    }
    Ok(())
}

/// Answers fetches until the connection ends, and waits for those that are running then.
fn follow(endpoint: &Endpoint, lease: &Lease<'_>, fetch_threads: usize) -> ReceiveError {
    let workers = Workers::new(WorkerLimits {
        threads: fetch_threads.max(1),
        queued: QUEUED_FETCHES_MAX,
    });
    let answer = |(request, extent)| {
        let ended = EndsOnPanic(endpoint);
        fetch(endpoint, lease, request, extent);
        std::mem::forget(ended);
    };
    thread::scope(|scope| {
        let reason = loop {
            if let Err(reason) = follow_frame(endpoint, lease, &workers, scope, &answer) {
                break reason;
            }
        };
        workers.close();
        lease.book.disconnected(lease.grant.lease_id);
        reason
    })
}

fn follow_frame<'scope>(
    endpoint: &Endpoint,
    lease: &Lease<'_>,
    workers: &'scope Workers<(u64, ExtentId)>,
    scope: &'scope Scope<'scope, '_>,
    answer: &'scope (dyn Fn((u64, ExtentId)) + Sync),
) -> Result<(), ReceiveError> {
    let in_range = |extent| lease.grant.weights.directory().get_extent(extent).is_some();
    let violation =
        |what| ReceiveError::Io(std::io::Error::new(std::io::ErrorKind::InvalidData, what));
    match endpoint.receive()? {
        Frame::Fetch { extent, .. } | Frame::Dropped { extent } if !in_range(extent) => {
            Err(violation("an extent that the directory does not have"))
        }
        Frame::Fetch { request, extent } => workers
            .submit(scope, (request, extent), answer)
            .map_err(|_| violation("too many fetches at once")),
        Frame::Dropped { extent } => {
            lease.book.dropped(lease.grant.lease_id, extent);
            Ok(())
        }
        _ => Err(violation("a frame that is no request")),
    }
}

fn fetch(endpoint: &Endpoint, lease: &Lease<'_>, request: u64, extent: ExtentId) {
    let answer = match lease.book.fetch(lease.grant.lease_id, extent) {
        Ok(fetched) => Frame::Fetched {
            request,
            cold_bytes: fetched.cold_bytes,
            warm_bytes: fetched.warm_bytes,
            unknown_bytes: fetched.unknown_bytes,
        },
        Err(failure) => Frame::Failed { request, failure },
    };
    if endpoint.send(&answer, &[]).is_err() {
        // A peer that does not take its answers for so long gets no more of them.
        endpoint.close();
    }
}

/// Ends the connection when a fetch panics: the client would wait for an answer that nobody gives.
struct EndsOnPanic<'a>(&'a Endpoint);

impl Drop for EndsOnPanic<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}
