//! Which calls are let in, how many at a time, and when the last one has left.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use crate::error::Error;

/// Admission to the service. Cheap to clone; clones are the same gate.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    inside: TaskTracker,
    /// Nobody is let in any more.
    draining: CancellationToken,
    /// Those inside have to leave.
    closed: CancellationToken,
    requests: Arc<Semaphore>,
    limit: usize,
}

/// Leave to work on a call; the drain waits until it is dropped.
#[derive(Debug)]
pub(crate) struct Pass {
    _inside: TaskTrackerToken,
    closed: CancellationToken,
}

/// Leave to work on a request that holds a prompt in memory; there are only so many.
#[derive(Debug)]
pub(crate) struct RequestPass {
    pass: Pass,
    _slot: OwnedSemaphorePermit,
}

// === impl Gate ===

impl Gate {
    /// A gate that lets in `limit` requests at a time, and any number of other calls.
    pub(crate) fn new(limit: usize) -> Gate {
        Gate {
            inside: TaskTracker::new(),
            draining: CancellationToken::new(),
            closed: CancellationToken::new(),
            requests: Arc::new(Semaphore::new(limit)),
            limit,
        }
    }

    /// Lets a call in unless the service is draining.
    ///
    /// # Errors
    /// [`Error::Draining`].
    pub(crate) fn enter(&self) -> Result<Pass, Error> {
        // The token is taken first, so that a drain which begins in between waits for it.
        let pass = Pass {
            _inside: self.inside.token(),
            closed: self.closed.clone(),
        };
        if self.draining.is_cancelled() {
            return Err(Error::Draining);
        }
        Ok(pass)
    }

    /// Lets a request in if there is room. Nobody waits here: the queue is the engine's.
    ///
    /// # Errors
    /// [`Error::Draining`] and [`Error::TooMany`].
    pub(crate) fn enter_request(&self) -> Result<RequestPass, Error> {
        let pass = self.enter()?;
        let slot = Arc::clone(&self.requests).try_acquire_owned();
        let _slot = slot.map_err(|_| Error::TooMany { limit: self.limit })?;
        Ok(RequestPass { pass, _slot })
    }

    /// Lets nobody in any more.
    pub(crate) fn drain(&self) {
        self.draining.cancel();
        self.inside.close();
    }

    /// Ends those that are still inside and waiting for something.
    pub(crate) fn close(&self) {
        self.drain();
        self.closed.cancel();
    }

    /// Resolves when the last call has left; only after [`Gate::drain`].
    pub(crate) async fn empty(&self) {
        self.inside.wait().await;
    }

    /// How many calls are inside.
    pub(crate) fn inside(&self) -> usize {
        self.inside.len()
    }
}

// === impl Pass ===

impl Pass {
    /// Runs `work` unless the gate closes first.
    ///
    /// # Errors
    /// [`Error::Draining`], or those of `work`.
    pub(crate) async fn bound<T>(
        &self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        tokio::select! {
            outcome = work => outcome,
            () = self.closed.cancelled() => Err(Error::Draining),
        }
    }
}

// === impl RequestPass ===

impl RequestPass {
    /// The same as [`Pass::bound`].
    ///
    /// # Errors
    /// [`Error::Draining`], or those of `work`.
    pub(crate) async fn bound<T>(
        &self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        self.pass.bound(work).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_gate_is_empty_when_the_last_pass_is_dropped() {
        let gate = Gate::new(1);
        let pass = gate.enter().unwrap();
        gate.drain();
        assert!(matches!(gate.enter(), Err(Error::Draining)));
        assert_eq!(gate.inside(), 1, "whoever was refused is not inside");
        let waiting = tokio::spawn({
            let gate = gate.clone();
            async move { gate.empty().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(pass);
        waiting.await.unwrap();
    }

    #[test]
    fn requests_are_counted_and_other_calls_are_not() {
        let gate = Gate::new(1);
        let first = gate.enter_request().unwrap();
        assert!(matches!(
            gate.enter_request(),
            Err(Error::TooMany { limit: 1 })
        ));
        gate.enter().unwrap();
        drop(first);
        gate.enter_request().unwrap();
    }

    #[tokio::test]
    async fn closing_ends_those_who_wait() {
        let gate = Gate::new(1);
        let pass = gate.enter_request().unwrap();
        gate.close();
        let endless = std::future::pending::<Result<(), Error>>();
        assert!(matches!(pass.bound(endless).await, Err(Error::Draining)));
    }
}
