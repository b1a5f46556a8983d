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
use crate::upload::{Job, Layouts, Piece, Room, placed_bytes};

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
pub(crate) enum NotFetched {
    #[error("the model is being let go")]
    Stopped,
    #[error("the fetch panicked")]
    Panicked,
}

impl FetchPool {
    /// Starts `n_threads` threads that report through `done`. With a room, they bring extents to the GPU that it is on, each laid out as is said.
    pub(crate) fn start(
        source: &Arc<dyn WeightSource>,
        n_threads: usize,
        room: Option<(&Room, &Arc<Layouts>)>,
        done: impl Fn(FetchDone) + Clone + Send + 'static,
    ) -> std::io::Result<FetchPool> {
        let (jobs, queue) = mpsc::channel();
        let queue = Arc::new(Mutex::new(queue));
        let stopped = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::with_capacity(n_threads);
        for index in 0..n_threads {
            let (source, queue, done) = (Arc::clone(source), Arc::clone(&queue), done.clone());
            let stopped = Arc::clone(&stopped);
            let fetcher = Fetcher {
                source,
                room: room.map(|(room, layouts)| (room.clone(), Arc::clone(layouts))),
                stopped,
            };
            let thread = std::thread::Builder::new().name(format!("fetch-{index}"));
            threads.push(thread.spawn(move || work(&fetcher, &queue, &done))?);
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
    /// Where extents are brought on a GPU, and how they lie there.
    room: Option<(Room, Arc<Layouts>)>,
    stopped: Arc<AtomicBool>,
}

impl Fetcher {
    /// Fetches an extent; on a GPU that ends when it has arrived there, which this does not wait for.
    fn fetch(
        &self,
        extent: ExtentId,
        done: impl FnOnce(Result<(Fetched, Option<View>), SourceError>) + Send + 'static,
    ) {
        if self.stopped.load(Ordering::Relaxed) {
            return done(Err(SourceError::Failed(Arc::new(NotFetched::Stopped))));
        }
        // A panic in here must not become a wait without end over there.
        let caught = catch_unwind(AssertUnwindSafe(|| self.begin(extent)));
        match caught.unwrap_or_else(|_| Err(SourceError::Failed(Arc::new(NotFetched::Panicked)))) {
            Err(error) => done(Err(error)),
            Ok(Begun::Here(fetched)) => {
                if self.stopped.load(Ordering::Relaxed) {
                    // Nobody will use what was just brought in.
                    self.source.evict(extent);
                }
                done(Ok((fetched, None)));
            }
            Ok(Begun::OnItsWay {
                room,
                layouts,
                len_bytes,
                pieces,
                view,
                fetched,
            }) => room.bring(Job {
                source: Arc::clone(&self.source),
                extent,
                len_bytes,
                tensor_type: layouts.tensor_type(extent),
                pieces,
                view,
                fetched,
                stopped: Arc::clone(&self.stopped),
                done: Box::new(|result| done(result.map(|(fetched, view)| (fetched, Some(view))))),
            }),
        }
    }

    fn begin(&self, extent: ExtentId) -> Result<Begun<'_>, SourceError> {
        let Some((room, layouts)) = &self.room else {
            return Ok(Begun::Here(self.source.fetch(extent)?));
        };
        let fetched = self.source.warm(extent)?;
        let len_bytes = self.source.directory().extent(extent).len_bytes;
        let len_bytes = usize::try_from(len_bytes).unwrap_or(usize::MAX);
        let pieces = layouts.pieces(extent, len_bytes);
        let view = room.range(placed_bytes(&pieces))?;
        Ok(Begun::OnItsWay {
            room,
            layouts,
            len_bytes,
            pieces,
            view,
            fetched,
        })
    }
}

/// How far a fetch thread takes an extent.
enum Begun<'a> {
    /// It is where it is used.
    Here(Fetched),
    /// It is in the page cache and has a place on the device.
    OnItsWay {
        room: &'a Room,
        layouts: &'a Layouts,
        len_bytes: usize,
        pieces: Vec<Piece>,
        view: View,
        fetched: Fetched,
    },
}

fn work(
    fetcher: &Fetcher,
    queue: &Mutex<mpsc::Receiver<ExtentId>>,
    done: &(impl Fn(FetchDone) + Clone + Send + 'static),
) {
    loop {
        // Whoever holds the lock waits for the next job; the others wait for the lock. Nothing panics while it is held.
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(extent) = job else {
            return;
        };
        let (begun, done) = (Instant::now(), done.clone());
        fetcher.fetch(extent, move |outcome| {
            let (result, view) = match outcome {
                Ok((fetched, view)) => (Ok(fetched), view),
                Err(error) => (Err(error), None),
            };
            done(FetchDone {
                extent,
                result,
                view,
                took: begun.elapsed(),
            });
        });
    }
}
