//! A lease book that notes what it is told.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use gguf::ExtentId;
use tempfile::TempDir;
use weights::handoff::{
    AcceptOptions, FetchFailure, Grant, HandoffLimits, HandoffServer, LeaseBook, PeerCredentials,
    Refusal, accept,
};
use weights::{Fetched, Weights};

/// Long enough never to pass in a test that works.
pub const LONG: Duration = Duration::from_secs(20);

type FetchHook = Box<dyn Fn(&Weights, ExtentId) -> Result<Fetched, FetchFailure> + Send + Sync>;

/// What happened, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    Redeemed(PeerCredentials),
    Fetched(u64, ExtentId),
    Dropped(u64, ExtentId),
    Disconnected(u64),
    Released(u64),
}

/// Grants a model once per token; lease ids count from 1.
pub struct Book {
    state: Mutex<State>,
    changed: Condvar,
    fetch: FetchHook,
}

struct State {
    tokens: HashMap<Vec<u8>, Arc<Weights>>,
    held: HashMap<u64, Arc<Weights>>,
    granted: u64,
    notes: Vec<Note>,
}

impl Book {
    pub fn new(
        fetch: impl Fn(&Weights, ExtentId) -> Result<Fetched, FetchFailure> + Send + Sync + 'static,
    ) -> Arc<Book> {
        let state = State {
            tokens: HashMap::new(),
            held: HashMap::new(),
            granted: 0,
            notes: Vec::new(),
        };
        Arc::new(Book {
            state: Mutex::new(state),
            changed: Condvar::new(),
            fetch: Box::new(fetch),
        })
    }

    /// A book that fetches by reading, as the daemon does.
    pub fn reading() -> Arc<Book> {
        Book::new(|weights, extent| {
            weights
                .read_extent(extent, &mut |_| ControlFlow::Continue(()))
                .map_err(|error| FetchFailure::from(&error))
        })
    }

    pub fn issue(&self, token: &[u8], weights: &Arc<Weights>) {
        self.state
            .lock()
            .unwrap()
            .tokens
            .insert(token.to_vec(), Arc::clone(weights));
    }

    pub fn notes(&self) -> Vec<Note> {
        self.state.lock().unwrap().notes.clone()
    }

    /// Waits until something has been noted.
    pub fn wait_for(&self, note: &Note) {
        let state = self.state.lock().unwrap();
        let (state, timeout) = self
            .changed
            .wait_timeout_while(state, LONG, |state| !state.notes.contains(note))
            .unwrap();
        assert!(
            !timeout.timed_out(),
            "{note:?} is not among {:?}",
            state.notes
        );
    }

    fn note(&self, note: Note) {
        self.state.lock().unwrap().notes.push(note);
        self.changed.notify_all();
    }
}

impl LeaseBook for Book {
    fn redeem(&self, token: &[u8], peer: PeerCredentials) -> Result<Grant, Refusal> {
        let mut state = self.state.lock().unwrap();
        let weights = state.tokens.remove(token).ok_or(Refusal::UnknownToken)?;
        state.granted += 1;
        let lease_id = state.granted;
        state.held.insert(lease_id, Arc::clone(&weights));
        state.notes.push(Note::Redeemed(peer));
        Ok(Grant {
            weights,
            generation: 40 + lease_id,
            lease_id,
        })
    }

    fn fetch(&self, lease_id: u64, extent: ExtentId) -> Result<Fetched, FetchFailure> {
        let weights = Arc::clone(
            self.state
                .lock()
                .unwrap()
                .held
                .get(&lease_id)
                .ok_or(FetchFailure::LeaseEnded)?,
        );
        self.note(Note::Fetched(lease_id, extent));
        (self.fetch)(&weights, extent)
    }

    fn dropped(&self, lease_id: u64, extent: ExtentId) {
        self.note(Note::Dropped(lease_id, extent));
    }

    fn disconnected(&self, lease_id: u64) {
        self.note(Note::Disconnected(lease_id));
    }

    fn released(&self, lease_id: u64) {
        self.state.lock().unwrap().held.remove(&lease_id).unwrap();
        self.note(Note::Released(lease_id));
    }
}

/// A daemon with one cold model and its book.
pub struct Daemon {
    pub dir: TempDir,
    pub model: PathBuf,
    pub weights: Arc<Weights>,
    pub book: Arc<Book>,
    pub server: HandoffServer,
}

impl Daemon {
    pub fn start(book: Arc<Book>) -> Daemon {
        Daemon::start_with(
            book,
            HandoffLimits {
                max_connections: 8,
                fetches_per_connection: 8,
                peer_timeout: LONG,
            },
        )
    }

    pub fn start_with(book: Arc<Book>, limits: HandoffLimits) -> Daemon {
        let (dir, model) = super::model();
        let weights = super::open_cold(&model);
        let server = HandoffServer::bind(
            &dir.path().join("handoff"),
            Arc::clone(&book) as Arc<dyn LeaseBook>,
            limits,
        )
        .unwrap();
        Daemon {
            dir,
            model,
            weights,
            book,
            server,
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("handoff")
    }

    /// Issues a token and takes it up.
    pub fn accept(&self) -> Arc<Weights> {
        self.book.issue(b"token", &self.weights);
        Arc::new(accept(&self.socket(), b"token", patient()).unwrap())
    }
}

pub fn patient() -> AcceptOptions {
    AcceptOptions {
        fetch_timeout: LONG,
        on_lost: None,
    }
}
