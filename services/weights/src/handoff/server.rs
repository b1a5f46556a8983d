//! The daemon's end of the hand-off socket.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, Shutdown, SockFlag, SockType, UnixAddr, bind, connect, listen,
    shutdown, socket,
};

use super::book::LeaseBook;
use super::connection::{ConnectionLimits, refuse, serve};
use super::endpoint::Endpoint;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;
/// Connections beyond the limit that are told so at once; further ones are closed without a word.
const REFUSALS_AT_ONCE: usize = 16;
/// How long to wait for descriptors or memory to come free when none is left to accept with.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// Bounds on what peers can make the server do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandoffLimits {
    /// Connections at once; one more is told [`super::Refusal::Busy`].
    pub max_connections: usize,
    /// Fetches at once on one connection, a thread each, started when needed.
    pub fetches_per_connection: usize,
    /// How long a peer may take to present its token, and to take in an answer.
    pub peer_timeout: Duration,
}

impl HandoffLimits {
    /// Enough for the services of one node.
    pub const NODE: HandoffLimits = HandoffLimits {
        max_connections: 64,
        fetches_per_connection: 16,
        peer_timeout: Duration::from_secs(5),
    };
}

/// A listening hand-off socket: a thread that accepts, and a thread and its fetch threads for each connection.
pub struct HandoffServer {
    path: PathBuf,
    /// Device and inode of the socket file, to tell it from one that a successor put in its place.
    file: (u64, u64),
    listener: Arc<UnixListener>,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl fmt::Debug for HandoffServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandoffServer")
            .field("path", &self.path)
            .field("connections", &self.connection_count())
            .finish_non_exhaustive()
    }
}

impl HandoffServer {
    /// Listens on `path` (mode 0660), in place of a socket file that nobody listens on any more.
    ///
    /// # Errors
    /// `AddrInUse` if a live server is there, `AlreadyExists` if something else is, or what the system gives.
    pub fn bind(
        path: &Path,
        book: Arc<dyn LeaseBook>,
        limits: HandoffLimits,
    ) -> io::Result<HandoffServer> {
        let listener = Arc::new(listen_at(path)?);
        let metadata = fs::symlink_metadata(path)?;
        let shared = Arc::new(Shared {
            book,
            limits,
            connections: Mutex::new(Connections::default()),
        });
        let (accepting, its_listener) = (Arc::clone(&shared), Arc::clone(&listener));
        let acceptor = thread::Builder::new()
            .name("hearth-handoff".to_owned())
            .spawn(move || accept_all(&accepting, &its_listener))?;
        Ok(HandoffServer {
            path: path.to_owned(),
            file: (metadata.dev(), metadata.ino()),
            listener,
            shared,
            acceptor: Some(acceptor),
        })
    }

    /// Connections at this moment.
    pub fn connection_count(&self) -> usize {
        self.shared.connections().open.len()
    }

    /// Ends every connection, waits for its threads and removes the socket file. A `LeaseBook::fetch` that is running is waited for. Dropping the server does the same.
    pub fn shutdown(self) {}
}

impl Drop for HandoffServer {
    fn drop(&mut self) {
        self.shared.stop();
        // Wakes the accepting thread. It cannot fail on a listening socket.
        let _ = shutdown(self.listener.as_raw_fd(), Shutdown::Both);
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.thread().unpark();
            // A panic has been reported by its own thread.
            let _ = acceptor.join();
        }
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.file);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, path = %self.path.display(), "the hand-off socket file stays");
        }
    }
}

struct Shared {
    book: Arc<dyn LeaseBook>,
    limits: HandoffLimits,
    connections: Mutex<Connections>,
}

#[derive(Default)]
struct Connections {
    open: HashMap<u64, Arc<Endpoint>>,
    next_id: u64,
    stopping: bool,
}

/// What becomes of a new connection.
enum Admission {
    Serve(u64),
    Refuse(u64),
    Close,
}

impl Shared {
    fn connections(&self) -> MutexGuard<'_, Connections> {
        // Nothing that can panic runs under this lock.
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self) {
        let mut connections = self.connections();
        connections.stopping = true;
        connections
            .open
            .values()
            .for_each(|endpoint| endpoint.close());
    }

    fn admit(&self, endpoint: &Arc<Endpoint>) -> Admission {
        let mut connections = self.connections();
        let open = connections.open.len();
        if connections.stopping || open >= self.limits.max_connections + REFUSALS_AT_ONCE {
            return Admission::Close;
        }
        let id = connections.next_id;
        connections.next_id += 1;
        connections.open.insert(id, Arc::clone(endpoint));
        if open < self.limits.max_connections {
            Admission::Serve(id)
        } else {
            Admission::Refuse(id)
        }
    }
}

/// Takes a connection off the list when its thread ends, however it ends.
struct Listed<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.shared.connections().open.remove(&self.id);
    }
}

fn accept_all(shared: &Arc<Shared>, listener: &UnixListener) {
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    while !shared.connections().stopping {
        match listener.accept() {
            Ok((stream, _)) => {
                threads.retain(|thread| !thread.is_finished());
                threads.extend(start(shared, Endpoint::from_socket(OwnedFd::from(stream))));
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
                ) => {}
            Err(_) if shared.connections().stopping => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept hand-off connections for the moment");
                thread::park_timeout(EXHAUSTED_PAUSE);
            }
        }
    }
    for thread in threads {
        // A panic has been reported by its own thread.
        let _ = thread.join();
    }
}

/// Starts a connection's thread, if the connection is admitted.
fn start(shared: &Arc<Shared>, endpoint: Endpoint) -> Option<JoinHandle<()>> {
    let endpoint = Arc::new(endpoint);
    let (id, served) = match shared.admit(&endpoint) {
        Admission::Serve(id) => (id, true),
        Admission::Refuse(id) => (id, false),
        Admission::Close => return None,
    };
    let shared_by_thread = Arc::clone(shared);
    let run = move || {
        let shared = shared_by_thread;
        let _listed = Listed {
            shared: &shared,
            id,
        };
        // Put down before the connection is taken off the list.
        let endpoint = endpoint;
        let limits = ConnectionLimits {
            fetch_threads: shared.limits.fetches_per_connection,
            peer_timeout: shared.limits.peer_timeout,
        };
        match endpoint.peer() {
            Ok(peer) if served => serve(&endpoint, peer, shared.book.as_ref(), limits),
            Ok(peer) => refuse(&endpoint, peer, limits),
            Err(error) => tracing::warn!(%error, "a peer without credentials"),
        }
    };
    match thread::Builder::new()
        .name("hearth-lease".to_owned())
        .spawn(run)
    {
        Ok(thread) => Some(thread),
        Err(error) => {
            tracing::warn!(%error, "no thread for a hand-off connection");
            drop(Listed { shared, id });
            None
        }
    }
}

/// A listening socket at `path`. It appears there whole: bound beside it, given its mode, and moved.
fn listen_at(path: &Path) -> io::Result<UnixListener> {
    expect_free(path)?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    bind(socket.as_raw_fd(), &UnixAddr::new(&beside)?)?;
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o660))?;
    listen(&socket.as_fd(), Backlog::new(BACKLOG)?)?;
    fs::rename(&beside, path)?;
    Ok(UnixListener::from(socket))
}

/// Demands that nothing is at `path` but, at most, a socket file that a dead server left.
fn expect_free(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata?,
    };
    if !metadata.file_type().is_socket() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let probe = socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )?;
    match connect(probe.as_raw_fd(), &UnixAddr::new(path)?) {
        Err(Errno::ECONNREFUSED | Errno::ENOENT) => Ok(()),
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}
