//! Handles are numbers: one that was destroyed or made up is refused, not followed.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::status::{Outcome, Status};

/// A handle as CUDA passes it.
pub(crate) type Handle = *mut c_void;

/// Things of one kind by their number.
#[derive(Debug)]
pub(crate) struct Handles<T> {
    known: Mutex<Known<T>>,
}

#[derive(Debug)]
struct Known<T> {
    by_number: BTreeMap<usize, Arc<T>>,
    last: usize,
}

impl<T> Handles<T> {
    /// None yet. Numbers begin above `base`, which no other kind uses and is above the numbers that CUDA gives a meaning.
    pub(crate) const fn new(base: usize) -> Handles<T> {
        Handles {
            known: Mutex::new(Known {
                by_number: BTreeMap::new(),
                last: base,
            }),
        }
    }

    pub(crate) fn add(&self, thing: T) -> Handle {
        let mut known = self.known();
        known.last += 1;
        let number = known.last;
        known.by_number.insert(number, Arc::new(thing));
        number as Handle
    }

    pub(crate) fn get(&self, handle: Handle) -> Result<Arc<T>, Status> {
        let known = self.known();
        let found = known.by_number.get(&handle.addr());
        found.cloned().ok_or(Status::InvalidHandle)
    }

    pub(crate) fn remove(&self, handle: Handle) -> Outcome {
        let removed = self.known().by_number.remove(&handle.addr());
        removed.map(|_| ()).ok_or(Status::InvalidHandle)
    }

    pub(crate) fn all(&self) -> Vec<Arc<T>> {
        self.known().by_number.values().cloned().collect()
    }

    fn known(&self) -> MutexGuard<'_, Known<T>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
