//! The daemon's own threads, which do every read from storage: so its cgroup is charged for the page cache, and the depth of the device's queue is bounded.
//!
//! So many jobs read at once, no more. A job that waits for the rate limit reads nothing, so it steps aside meanwhile ([`Readers::aside`]) and lets another one read: a cold model whose
//! storage is slow must not hold up one that lies in the page cache. Jobs that nobody waits for never take the last place.

use std::{
    collections::VecDeque,
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use tokio::sync::oneshot;

/// Jobs that may wait, of each urgency. Far above what connections, streams and prefetch windows can ask for together.
pub(crate) const QUEUE_MAX: usize = 8192;
/// Threads beyond those that read: as many as may have stepped aside.
const ASIDE_MAX: usize = 128;

/// Whether somebody waits for this very read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Urgency {
    /// A service or a reader waits for it.
    Now,
    /// It is only brought in ahead of use.
    Ahead,
}

/// Why a job was not taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Refused {
    /// Too many jobs wait.
    Full,
    /// The daemon is ending.
    Closed,
}

type Job = Box<dyn FnOnce() + Send>;

/// The threads and the jobs that wait for them. Threads are started when there is work for them.
#[derive(Debug)]
pub(crate) struct Readers {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    /// Jobs that may read at once.
    places: usize,
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    now: VecDeque<Job>,
    ahead: VecDeque<Job>,
    /// Jobs that read. May exceed the places for a moment, when one that had stepped aside comes back.
    reading: usize,
    /// Jobs of [`Urgency::Ahead`] that have begun and not ended, those aside included.
    ahead_begun: usize,
    threads: usize,
    /// Threads that wait for a call.
    idle: usize,
    /// Calls that no thread has answered yet; never more than are idle.
    called: usize,
    closed: bool,
}

/// A job's absence from those that read.
struct Aside<'a>(&'a Shared);

// === impl Readers ===

impl Readers {
    /// Readers of which `places` read at once.
    pub(crate) fn new(places: usize) -> Readers {
        let shared = Shared {
            places,
            state: Mutex::default(),
            work: Condvar::new(),
        };
        Readers {
            shared: Arc::new(shared),
            threads: Mutex::default(),
        }
    }

    /// Queues a job. Never blocks: a full queue is the caller's to report. If the job dies, the receiver is told by a closed channel.
    pub(crate) fn submit<T: Send + 'static>(
        &self,
        urgency: Urgency,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<oneshot::Receiver<T>, Refused> {
        let (sender, receiver) = oneshot::channel();
        let job: Job = Box::new(move || {
            // Fails if the asker is gone; the read has warmed the cache all the same.
            let _gone = sender.send(job());
        });
        let mut state = self.shared.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        let queue = match urgency {
            Urgency::Now => &mut state.now,
            Urgency::Ahead => &mut state.ahead,
        };
        if queue.len() >= QUEUE_MAX {
            return Err(Refused::Full);
        }
        queue.push_back(job);
        self.call(state);
        Ok(receiver)
    }

    /// Waits, on a reader thread and within its job, without keeping others from reading.
    pub(crate) fn aside(&self, wait: impl FnOnce()) {
        let mut state = self.shared.lock();
        state.reading -= 1;
        self.call(state);
        let back = Aside(&self.shared);
        wait();
        drop(back);
    }

    /// Drops the jobs that wait, lets those that run finish, and ends the threads. Blocks until they are gone.
    pub(crate) fn close(&self) {
        let waiting = {
            let mut state = self.shared.lock();
            state.closed = true;
            (
                std::mem::take(&mut state.now),
                std::mem::take(&mut state.ahead),
            )
        };
        // Outside the lock: dropping a job may run code of whoever waits for it.
        drop(waiting);
        self.shared.work.notify_all();
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A job may have been the last owner of us. Jobs' panics are caught, so every other thread ends in order.
            if thread.thread().id() != thread::current().id() {
                let _ended = thread.join();
            }
        }
    }

    /// Gets a thread for the work there is, if there may be one more.
    fn call(&self, mut state: MutexGuard<'_, State>) {
        let places = self.shared.places;
        if !state.has_work(places) || state.closed {
            return;
        }
        if state.call_idle() {
            drop(state);
            self.shared.work.notify_one();
        } else if state.threads < places + ASIDE_MAX {
            state.threads += 1;
            let name = format!("reader-{}", state.threads);
            drop(state);
            if let Err(error) = self.spawn(name) {
                self.shared.lock().threads -= 1;
                // Those that there are will come to it.
                tracing::warn!(%error, "no further reader thread");
            }
        }
    }

    fn spawn(&self, name: String) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new()
            .name(name)
            .spawn(move || shared.run())?;
        self.threads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(thread);
        Ok(())
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.close();
    }
}

// === impl State ===

impl State {
    fn has_work(&self, places: usize) -> bool {
        self.reading < places && (!self.now.is_empty() || self.may_begin_ahead(places))
    }

    /// Calls an idle thread; the caller must wake one if this says so.
    fn call_idle(&mut self) -> bool {
        let call = self.idle > self.called;
        self.called += usize::from(call);
        call
    }

    /// The last place is for who is waited for, unless it is the only one; and those aside count, lest a slow prefetch takes every thread there may be.
    fn may_begin_ahead(&self, places: usize) -> bool {
        let most = places.saturating_sub(1).max(1);
        !self.ahead.is_empty() && self.reading < most && self.ahead_begun < most
    }

    fn take(&mut self, places: usize) -> Option<(Urgency, Job)> {
        if self.reading >= places {
            return None;
        }
        let taken = match self.now.pop_front() {
            Some(job) => (Urgency::Now, job),
            None if self.may_begin_ahead(places) => {
                self.ahead_begun += 1;
                (Urgency::Ahead, self.ahead.pop_front()?)
            }
            None => return None,
        };
        self.reading += 1;
        Some(taken)
    }
}

// === impl Shared ===

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        while let Some((urgency, job)) = self.next() {
            if catch_unwind(AssertUnwindSafe(job)).is_err() {
                tracing::error!("a read job panicked");
            }
            let mut state = self.lock();
            state.reading -= 1;
            if urgency == Urgency::Ahead {
                state.ahead_begun -= 1;
            }
        }
    }

    fn next(&self) -> Option<(Urgency, Job)> {
        let mut state = self.lock();
        loop {
            if let Some(taken) = state.take(self.places) {
                // The job that has just ended may have made room for two.
                if state.has_work(self.places) && state.call_idle() {
                    drop(state);
                    self.work.notify_one();
                }
                return Some(taken);
            }
            if state.closed {
                return None;
            }
            state.idle += 1;
            let uncalled = |state: &mut State| state.called == 0 && !state.closed;
            state = self
                .work
                .wait_while(state, uncalled)
                .unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
            state.called = state.called.saturating_sub(1);
        }
    }
}

// === impl Aside ===

impl Drop for Aside<'_> {
    fn drop(&mut self) {
        self.0.lock().reading += 1;
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Shared")
            .field("now", &state.now.len())
            .field("ahead", &state.ahead.len())
            .field("reading", &state.reading)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
