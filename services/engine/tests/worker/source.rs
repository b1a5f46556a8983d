//! Weights in memory behind a gate.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use engine::{Bytes, SourceError, WeightSource};
use gguf::{Directory, ExtentId};
use weights::Fetched;

use crate::model::File;

/// What the next fetches of an extent come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Fails,
    Lost,
    Panics,
}

/// A source whose fetches can be held up, failed and counted. All are cold.
#[derive(Debug)]
pub(crate) struct Memory {
    directory: Arc<Directory>,
    bytes: Arc<Vec<u8>>,
    gate: Gate,
    faults: Mutex<BTreeMap<ExtentId, Fault>>,
    fetched: Mutex<Vec<ExtentId>>,
    evicted: Mutex<Vec<ExtentId>>,
    poisoned: AtomicBool,
}

impl Memory {
    pub(crate) fn new(file: &File) -> Arc<Memory> {
        Arc::new(Memory {
            directory: Arc::clone(&file.directory),
            bytes: Arc::clone(&file.bytes),
            gate: Gate::default(),
            faults: Mutex::default(),
            fetched: Mutex::default(),
            evicted: Mutex::default(),
            poisoned: AtomicBool::new(false),
        })
    }

    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// From now on fetches of the extent meet this fault; `None` mends it.
    pub(crate) fn set_fault(&self, extent: ExtentId, fault: Option<Fault>) {
        let mut faults = self
            .faults
            .lock()
            .expect("nothing panics while it holds this");
        match fault {
            Some(fault) => faults.insert(extent, fault),
            None => faults.remove(&extent),
        };
    }

    pub(crate) fn poison(&self) {
        self.poisoned.store(true, Ordering::SeqCst);
    }

    /// The extents that were fetched, in order.
    pub(crate) fn fetched(&self) -> Vec<ExtentId> {
        self.fetched
            .lock()
            .expect("nothing panics while it holds this")
            .clone()
    }

    /// The extents that were let go, in order.
    pub(crate) fn evicted(&self) -> Vec<ExtentId> {
        self.evicted
            .lock()
            .expect("nothing panics while it holds this")
            .clone()
    }

    /// The extent of the tensor called `name`.
    pub(crate) fn extent_of(&self, name: &str) -> ExtentId {
        let info = self
            .directory
            .require(name)
            .expect("the test names what is there");
        info.extent_ids()
            .next()
            .expect("the test names what is there")
    }

    pub(crate) fn total_bytes(&self) -> u64 {
        self.directory.tensor_bytes()
    }
}

impl WeightSource for Memory {
    fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    fn fetch(&self, extent: ExtentId) -> Result<Fetched, SourceError> {
        self.gate.pass();
        let fault = self
            .faults
            .lock()
            .expect("nothing panics while it holds this")
            .get(&extent)
            .copied();
        match fault {
            None => {}
            Some(Fault::Fails) => {
                return Err(SourceError::Failed(Arc::new(std::io::Error::other(
                    "planted",
                ))));
            }
            Some(Fault::Lost) => {
                return Err(SourceError::DataLoss(Arc::new(std::io::Error::other(
                    "planted",
                ))));
            }
            Some(Fault::Panics) => panic!("planted"),
        }
        self.fetched
            .lock()
            .expect("nothing panics while it holds this")
            .push(extent);
        Ok(Fetched {
            cold_bytes: self.directory.extent(extent).len_bytes,
            warm_bytes: 0,
            unknown_bytes: 0,
            self_read: false,
        })
    }

    fn view(self: Arc<Self>, extent: ExtentId) -> Bytes {
        let extent = self.directory.extent(extent);
        let index = |offset: u64| usize::try_from(offset).expect("the test names what is there");
        let range = index(extent.range().start)..index(extent.range().end);
        Arc::new(View {
            bytes: Arc::clone(&self.bytes),
            range,
        })
    }

    fn evict(&self, extent: ExtentId) {
        self.evicted
            .lock()
            .expect("nothing panics while it holds this")
            .push(extent);
    }

    fn poisoned(&self) -> bool {
        self.poisoned.load(Ordering::SeqCst)
    }
}

struct View {
    bytes: Arc<Vec<u8>>,
    range: Range<usize>,
}

impl AsRef<[u8]> for View {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[self.range.clone()]
    }
}

/// Lets fetches pass, or only so many of them.
#[derive(Debug)]
pub(crate) struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Debug)]
struct GateState {
    /// How many may still pass; `None`: all.
    passes: Option<usize>,
    waiting: usize,
}

impl Default for Gate {
    fn default() -> Gate {
        Gate {
            state: Mutex::new(GateState {
                passes: None,
                waiting: 0,
            }),
            changed: Condvar::new(),
        }
    }
}

impl Gate {
    pub(crate) fn close(&self) {
        self.set(Some(0));
    }

    pub(crate) fn open(&self) {
        self.set(None);
    }

    /// Lets `n` more fetches pass.
    pub(crate) fn let_pass(&self, n: usize) {
        let mut state = self
            .state
            .lock()
            .expect("nothing panics while it holds this");
        state.passes = Some(state.passes.unwrap_or(0) + n);
        self.changed.notify_all();
    }

    /// Waits until a fetch stands at the gate.
    pub(crate) fn wait_for_somebody(&self) {
        let state = self
            .state
            .lock()
            .expect("nothing panics while it holds this");
        drop(
            self.changed
                .wait_while(state, |state| state.waiting == 0)
                .expect("nothing panics while it holds this"),
        );
    }

    fn set(&self, passes: Option<usize>) {
        self.state
            .lock()
            .expect("nothing panics while it holds this")
            .passes = passes;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut state = self
            .state
            .lock()
            .expect("nothing panics while it holds this");
        state.waiting += 1;
        self.changed.notify_all();
        state = self
            .changed
            .wait_while(state, |state| state.passes == Some(0))
            .expect("the test names what is there");
        state.waiting -= 1;
        state.passes = state.passes.map(|passes| passes - 1);
    }
}
