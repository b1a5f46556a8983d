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
use kernels::hip::View;
use weights::Fetched;

use crate::source::{SourceError, WeightSource};
use crate::upload::{self, Room, Uploader};

/// The end of one fetch.
#[derive(Debug)]
pub(crate) struct FetchDone {
    pub(crate) extent: ExtentId,
    pub(crate) result: Result<Fetched, SourceError>,
    /// Where it lies in a GPU's memory, if that is where it was brought.
    pub(crate) view: Option<View>,
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
    /// Starts `n_threads` threads that report through `done`. With `room`, they bring extents to the GPU that it is on.
    pub(crate) fn start(
        source: &Arc<dyn WeightSource>,
        n_threads: usize,
        room: Option<&Room>,
        done: impl Fn(FetchDone) + Clone + Send + 'static,
    ) -> std::io::Result<FetchPool> {
        let (jobs, queue) = mpsc::channel();
        let queue = Arc::new(Mutex::new(queue));
        let stopped = Arc::new(AtomicBool::new(false));
        let types = upload::types(source.directory());
        let mut threads = Vec::with_capacity(n_threads);
        for index in 0..n_threads {
            let (source, queue, done) = (Arc::clone(source), Arc::clone(&queue), done.clone());
            let stopped = Arc::clone(&stopped);
            let uploader = room.map(|room| room.uploader(&types));
            let mut fetcher = Fetcher { source, uploader };
            let thread = std::thread::Builder::new().name(format!("fetch-{index}"));
            threads.push(thread.spawn(move || work(&mut fetcher, &queue, &stopped, &done))?);
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

/// What one thread does its fetches with.
struct Fetcher {
    source: Arc<dyn WeightSource>,
    uploader: Option<Uploader>,
}

impl Fetcher {
    fn fetch(&mut self, extent: ExtentId) -> Result<(Fetched, Option<View>), SourceError> {
        let fetched = self.source.fetch(extent)?;
        let Some(uploader) = &mut self.uploader else {
            return Ok((fetched, None));
        };
        let view = uploader.upload(&self.source, extent)?;
        Ok((fetched, Some(view)))
    }
}

fn work(
    fetcher: &mut Fetcher,
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
        let outcome = if stopped.load(Ordering::Relaxed) {
            Err(SourceError::Failed(Arc::new(NotFetched::Stopped)))
        } else {
            // A panic in here must not become a wait without end over there.
            let caught = catch_unwind(AssertUnwindSafe(|| fetcher.fetch(extent)));
            caught.unwrap_or_else(|_| Err(SourceError::Failed(Arc::new(NotFetched::Panicked))))
        };
        if outcome.is_ok() && stopped.load(Ordering::Relaxed) {
            // Nobody will use what was just brought in.
            fetcher.source.evict(extent);
        }
        let (result, view) = match outcome {
            Ok((fetched, view)) => (Ok(fetched), view),
            Err(error) => (Err(error), None),
        };
        done(FetchDone {
            extent,
            result,
            view,
            took: started.elapsed(),
        });
    }
}
