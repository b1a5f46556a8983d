//! Threads that fetch extents of one model: handed a source and an extent, they return what the fetch moved. They own no state.
//!
//! # Why each model has its own
//! A fetch blocks for as long as the storage takes. Threads that stand in the reads of a slow model must not be missing to another one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gguf::ExtentId;
use weights::Fetched;

use crate::source::{SourceError, WeightSource};

/// The end of one fetch.
#[derive(Debug)]
pub(crate) struct FetchDone {
    pub(crate) extent: ExtentId,
    pub(crate) result: Result<Fetched, SourceError>,
    /// How long the source took.
    pub(crate) took: Duration,
}

/// The threads and the way to them.
#[derive(Debug)]
pub(crate) struct FetchPool {
    jobs: mpsc::Sender<ExtentId>,
    stopped: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// Why a fetch was not even begun.
#[derive(Debug, thiserror::Error)]
enum NotFetched {
    #[error("the model is being let go")]
    Stopped,
    #[error("the fetch panicked")]
    Panicked,
}

impl FetchPool {
    /// Starts `n_threads` threads that report through `done`.
    pub(crate) fn start(
        source: &Arc<dyn WeightSource>,
        n_threads: usize,
        done: impl Fn(FetchDone) + Clone + Send + 'static,
    ) -> std::io::Result<FetchPool> {
        let (jobs, queue) = mpsc::channel();
        let queue = Arc::new(Mutex::new(queue));
        let stopped = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::with_capacity(n_threads);
        for index in 0..n_threads {
            let (source, queue, done) = (Arc::clone(source), Arc::clone(&queue), done.clone());
            let stopped = Arc::clone(&stopped);
            let thread = std::thread::Builder::new().name(format!("fetch-{index}"));
            threads.push(thread.spawn(move || work(&*source, &queue, &stopped, &done))?);
        }
        Ok(FetchPool {
            jobs,
            stopped,
            threads,
        })
    }

    /// Queues a fetch; its end is reported whatever happens.
    pub(crate) fn fetch(&self, extent: ExtentId) {
        self.jobs
            .send(extent)
            .expect("threads live as long as the pool");
    }

    /// Ends the threads. With `idle` (nothing is being fetched) they are waited for; else each ends with the fetch that it is in, and what is queued is reported as not fetched.
    pub(crate) fn stop(self, idle: bool) {
        self.stopped.store(true, Ordering::Relaxed);
        drop(self.jobs);
        if idle {
            for thread in self.threads {
                thread.join().expect("fetch threads catch panics");
            }
        }
    }
}

fn work(
    source: &dyn WeightSource,
    queue: &Mutex<mpsc::Receiver<ExtentId>>,
    stopped: &AtomicBool,
    done: &impl Fn(FetchDone),
) {
    loop {
        // Whoever holds the lock waits for the next job; the others wait for the lock. Nothing panics while it is held.
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(extent) = job else {
            return;
        };
        let started = Instant::now();
        let result = if stopped.load(Ordering::Relaxed) {
            Err(SourceError::Failed(Arc::new(NotFetched::Stopped)))
        } else {
            // A panic in here must not become a wait without end over there.
            let caught = catch_unwind(AssertUnwindSafe(|| source.fetch(extent)));
            caught.unwrap_or_else(|_| Err(SourceError::Failed(Arc::new(NotFetched::Panicked))))
        };
        if result.is_ok() && stopped.load(Ordering::Relaxed) {
            // Nobody will use what was just brought in.
            source.evict(extent);
        }
        done(FetchDone {
            extent,
            result,
            took: started.elapsed(),
        });
    }
}
