//! A lease as its holder sees it: a connection on which several threads ask and one thread listens.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use gguf::ExtentId;

use super::accept::{AcceptError, AcceptOptions, expect_same, shake_hands};
use super::book::FetchFailure;
use super::endpoint::{Endpoint, ReceiveError};
use super::frame::Frame;
use crate::fetched::Fetched;
use crate::identity::FileIdentity;

type OnLost = Option<Arc<dyn Fn() + Send + Sync>>;

/// The place of the lease in a [`crate::Weights`]: a lost one is replaced by the next.
pub(crate) struct LeaseHolder {
    current: Mutex<Arc<Lease>>,
    fetch_timeout: Duration,
    on_lost: OnLost,
}

impl fmt::Debug for LeaseHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaseHolder")
            .field("held", &self.held())
            .field("generation", &self.generation())
            .finish_non_exhaustive()
    }
}

impl LeaseHolder {
    pub(super) fn new(
        endpoint: Endpoint,
        generation: u64,
        options: AcceptOptions,
    ) -> io::Result<LeaseHolder> {
        let on_lost: OnLost = options.on_lost.map(Arc::from);
        let lease = Lease::start(endpoint, generation, on_lost.clone())?;
        Ok(LeaseHolder {
            current: Mutex::new(Arc::new(lease)),
            fetch_timeout: options.fetch_timeout,
            on_lost,
        })
    }

    /// Asks the daemon for an extent of `len_bytes`. `None`: it did not bring it in, for whatever reason.
    pub(crate) fn ask(&self, extent: ExtentId, len_bytes: u64) -> Option<Fetched> {
        self.current().ask(extent, len_bytes, self.fetch_timeout)
    }

    /// Tells the daemon that an extent was evicted. If that cannot be said without waiting, it is not said.
    pub(crate) fn tell_dropped(&self, extent: ExtentId) {
        // A lost daemon has nothing to drop; a busy one only keeps more than it need.
        let _ = self.current().endpoint.send_now(&Frame::Dropped { extent });
    }

    pub(crate) fn held(&self) -> bool {
        !lock(&self.current().calls).lost
    }

    pub(crate) fn generation(&self) -> u64 {
        self.current().generation
    }

    /// Takes up a new lease on the same files.
    pub(crate) fn renew(
        &self,
        socket: &Path,
        token: &[u8],
        identity: &[FileIdentity],
        directory_hash: &[u8; 32],
    ) -> Result<(), AcceptError> {
        let offer = shake_hands(socket, token, self.fetch_timeout)?;
        let offered: Vec<FileIdentity> = offer
            .files
            .iter()
            .map(|(entry, _)| entry.identity)
            .collect();
        expect_same(&offered, identity, offer.directory_hash == *directory_hash)?;
        let lease = Arc::new(Lease::start(
            offer.endpoint,
            offer.generation,
            self.on_lost.clone(),
        )?);
        let old = std::mem::replace(&mut *lock(&self.current), lease);
        drop(old);
        Ok(())
    }

    fn current(&self) -> Arc<Lease> {
        Arc::clone(&lock(&self.current))
    }
}

/// One connection with the thread that listens on it.
struct Lease {
    endpoint: Arc<Endpoint>,
    calls: Arc<Mutex<Calls>>,
    generation: u64,
    listener: Option<JoinHandle<()>>,
}

/// Requests on their way.
#[derive(Default)]
struct Calls {
    pending: HashMap<u64, Call>,
    next_request: u64,
    /// The connection has ended; nothing is asked any more.
    lost: bool,
    /// We ended it.
    closing: bool,
    /// A request went unanswered, and nothing has been heard since: asking again would only wait again.
    silent: bool,
}

struct Call {
    len_bytes: u64,
    answer: SyncSender<Result<Fetched, FetchFailure>>,
}

impl Lease {
    fn start(endpoint: Endpoint, generation: u64, on_lost: OnLost) -> io::Result<Lease> {
        endpoint.set_receive_timeout(None)?;
        let endpoint = Arc::new(endpoint);
        let calls = Arc::new(Mutex::new(Calls::default()));
        let (heard, answered) = (Arc::clone(&endpoint), Arc::clone(&calls));
        let listen = move || listen(&heard, &answered, on_lost.as_deref());
        let listener = thread::Builder::new()
            .name("hearth-lease".to_owned())
            .spawn(listen)?;
        Ok(Lease {
            endpoint,
            calls,
            generation,
            listener: Some(listener),
        })
    }

    fn ask(&self, extent: ExtentId, len_bytes: u64, timeout: Duration) -> Option<Fetched> {
        let (request, answer) = self.enter(len_bytes)?;
        if let Err(error) = self.endpoint.send_now(&Frame::Fetch { request, extent }) {
            tracing::debug!(%error, extent = extent.0, "the daemon cannot be asked");
            lock(&self.calls).pending.remove(&request);
            return None;
        }
        match answer.recv_timeout(timeout) {
            Ok(Ok(fetched)) => Some(fetched),
            Ok(Err(failure)) => {
                tracing::debug!(%failure, extent = extent.0, "the daemon did not fetch");
                None
            }
            Err(RecvTimeoutError::Timeout) => {
                let mut calls = lock(&self.calls);
                calls.silent |= calls.pending.remove(&request).is_some();
                tracing::warn!(
                    extent = extent.0,
                    ?timeout,
                    "the daemon did not answer in time"
                );
                None
            }
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    /// Enters a request, unless nobody would answer it.
    fn enter(&self, len_bytes: u64) -> Option<(u64, Receiver<Result<Fetched, FetchFailure>>)> {
        let mut calls = lock(&self.calls);
        if calls.lost || calls.silent {
            return None;
        }
        let request = calls.next_request;
        calls.next_request += 1;
        let (answer, receiver) = sync_channel(1);
        calls.pending.insert(request, Call { len_bytes, answer });
        Some((request, receiver))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        lock(&self.calls).closing = true;
        self.endpoint.close();
        let Some(listener) = self.listener.take() else {
            return;
        };
        // `on_lost` may have held the last reference, and then this is the listener itself.
        if listener.thread().id() != thread::current().id() {
            // A panic in `on_lost` has been reported by its own thread.
            let _ = listener.join();
        }
    }
}

/// Hands answers to those who wait, until the connection ends or the daemon breaks the protocol.
fn listen(endpoint: &Endpoint, calls: &Mutex<Calls>, on_lost: Option<&(dyn Fn() + Send + Sync)>) {
    let reason = loop {
        let outcome = endpoint.receive().and_then(|frame| deliver(frame, calls));
        if let Err(reason) = outcome {
            break reason;
        }
    };
    endpoint.close();
    let closing = {
        let mut calls = lock(calls);
        calls.lost = true;
        // Those who wait see their channel end.
        calls.pending.clear();
        calls.closing
    };
    if !closing {
        tracing::warn!(%reason, "the daemon is lost");
        if let Some(on_lost) = on_lost {
            on_lost();
        }
    }
}

fn deliver(frame: Frame, calls: &Mutex<Calls>) -> Result<(), ReceiveError> {
    let (request, answer) = match frame {
        Frame::Fetched {
            request,
            cold_bytes,
            warm_bytes,
            unknown_bytes,
        } => (
            request,
            Ok(Fetched {
                cold_bytes,
                warm_bytes,
                unknown_bytes,
                self_read: false,
            }),
        ),
        Frame::Failed { request, failure } => (request, Err(failure)),
        _ => return Err(violation("a frame that is no answer")),
    };
    let mut calls = lock(calls);
    calls.silent = false;
    let Some(call) = calls.pending.remove(&request) else {
        // Too late is no offence; an answer to what was never asked is.
        return if request < calls.next_request {
            Ok(())
        } else {
            Err(violation("an answer to no request"))
        };
    };
    if answer.is_ok_and(|fetched| fetched.total_bytes() != call.len_bytes) {
        return Err(violation("bytes that do not sum to the extent"));
    }
    // The asker may have given up meanwhile.
    let _ = call.answer.try_send(answer);
    Ok(())
}

fn violation(what: &'static str) -> ReceiveError {
    ReceiveError::Io(io::Error::new(io::ErrorKind::InvalidData, what))
}

/// No panic happens while these locks are held, and what they guard is whole at any time.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
