//! Threads that fetch for one connection, started when they are needed.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Scope};

/// A bounded queue and the threads that empty it.
pub(super) struct Workers<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    limits: WorkerLimits,
}

#[derive(Clone, Copy)]
pub(super) struct WorkerLimits {
    pub(super) threads: usize,
    pub(super) queued: usize,
}

struct State<T> {
    queue: VecDeque<T>,
    idle: usize,
    started: usize,
    closed: bool,
}

/// The queue is full, or no thread could be started.
pub(super) struct Overloaded;

impl<T: Send> Workers<T> {
    pub(super) fn new(limits: WorkerLimits) -> Workers<T> {
        Workers {
            state: Mutex::new(State {
                queue: VecDeque::new(),
                idle: 0,
                started: 0,
                closed: false,
            }),
            changed: Condvar::new(),
            limits,
        }
    }

    /// Queues a job for `work`, and starts a thread for it in `scope` if none is idle and one more is allowed.
    pub(super) fn submit<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        job: T,
        work: &'scope (dyn Fn(T) + Sync),
    ) -> Result<(), Overloaded> {
        let mut state = self.lock();
        if state.queue.len() >= self.limits.queued {
            return Err(Overloaded);
        }
        state.queue.push_back(job);
        if state.idle >= state.queue.len() || state.started >= self.limits.threads {
            self.changed.notify_one();
            return Ok(());
        }
        let started = thread::Builder::new()
            .name("hearth-fetch".to_owned())
            .spawn_scoped(scope, move || self.run(work));
        match started {
            Ok(_) => state.started += 1,
            // Those that run will come to it.
            Err(error) if state.started > 0 => tracing::debug!(%error, "no further fetch thread"),
            Err(_) => return Err(Overloaded),
        }
        Ok(())
    }

    /// Lets the threads end; what is still queued is dropped.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.queue.clear();
        self.changed.notify_all();
    }

    fn run(&self, work: &(dyn Fn(T) + Sync)) {
        while let Some(job) = self.next() {
            work(job);
        }
    }

    fn next(&self) -> Option<T> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(job) = state.queue.pop_front() {
                return Some(job);
            }
            state.idle += 1;
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
