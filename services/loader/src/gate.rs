//! Which calls are let in, and when the last one has left.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use crate::error::Error;

/// Admission to the daemon. Cheap to clone; clones are the same gate.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    inside: TaskTracker,
    draining: CancellationToken,
}

/// Leave to work on a call; the drain waits until it is dropped.
#[derive(Debug)]
pub(crate) struct Pass {
    _inside: TaskTrackerToken,
}

/// A limited number of things of one kind.
#[derive(Clone, Debug)]
pub(crate) struct Slots {
    what: &'static str,
    limit: usize,
    free: Arc<Semaphore>,
}

// === impl Gate ===

impl Gate {
    pub(crate) fn new() -> Gate {
        Gate {
            inside: TaskTracker::new(),
            draining: CancellationToken::new(),
        }
    }

    /// Lets a call in unless the daemon is draining.
    pub(crate) fn enter(&self) -> Result<Pass, Error> {
        // The token is taken first: a drain that starts in between waits for it.
        let pass = Pass {
            _inside: self.inside.token(),
        };
        if self.draining.is_cancelled() {
            Err(Error::ShuttingDown)
        } else {
            Ok(pass)
        }
    }

    /// Lets nobody in any more.
    pub(crate) fn drain(&self) {
        self.draining.cancel();
        self.inside.close();
    }

    /// Resolves when [`Gate::drain`] was called: for calls that have no end of their own.
    pub(crate) fn draining(&self) -> CancellationToken {
        self.draining.clone()
    }

    /// Resolves when the last call has left; only after [`Gate::drain`].
    pub(crate) async fn empty(&self) {
        self.inside.wait().await;
    }
}

// === impl Slots ===

impl Slots {
    pub(crate) fn new(what: &'static str, limit: usize) -> Slots {
        Slots {
            what,
            limit,
            free: Arc::new(Semaphore::new(limit)),
        }
    }

    /// Takes one, or fails at once: whoever waits for it would hold a stream open for nothing.
    pub(crate) fn take(&self) -> Result<OwnedSemaphorePermit, Error> {
        Arc::clone(&self.free)
            .try_acquire_owned()
            .map_err(|_| Error::TooMany {
                what: self.what,
                limit: self.limit,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_gate_is_empty_when_the_last_pass_is_dropped() {
        let gate = Gate::new();
        let pass = gate.enter().unwrap();
        gate.drain();
        assert!(matches!(gate.enter(), Err(Error::ShuttingDown)));
        let empty = tokio::spawn({
            let gate = gate.clone();
            async move { gate.empty().await }
        });
        tokio::task::yield_now().await;
        assert!(!empty.is_finished());
        drop(pass);
        empty.await.unwrap();
    }

    #[test]
    fn slots_run_out_and_come_back() {
        let slots = Slots::new("watchers", 1);
        let slot = slots.take().unwrap();
        assert!(matches!(
            slots.take(),
            Err(Error::TooMany {
                what: "watchers",
                limit: 1
            })
        ));
        drop(slot);
        assert!(slots.take().is_ok());
    }
}
