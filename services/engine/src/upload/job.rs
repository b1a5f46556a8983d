use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gguf::{ExtentId, TensorType};
use kernels::hip::{Event, View};
use weights::Fetched;

use super::Piece;
use crate::source::{SourceError, WeightSource};

/// Told how the bringing of an extent ended.
type Done = Box<dyn FnOnce(Result<(Fetched, View), SourceError>) + Send>;

/// One extent that is in the page cache and is to be brought to the device.
pub(crate) struct Job {
    pub(crate) source: Arc<dyn WeightSource>,
    pub(crate) extent: ExtentId,
    pub(crate) len_bytes: usize,
    pub(crate) tensor_type: TensorType,
    /// Its tensors.
    pub(crate) pieces: Vec<Piece>,
    /// Where it goes.
    pub(crate) view: View,
    /// What the fetch into the page cache moved.
    pub(crate) fetched: Fetched,
    /// Set when nobody wants it any more.
    pub(crate) stopped: Arc<AtomicBool>,
    pub(crate) done: Done,
}

/// A job and the count that it is part of until it ends.
pub(super) struct Counted {
    job: Job,
    under_way: Arc<AtomicUsize>,
}

/// What one thread copies of an extent.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) shared: Arc<Shared>,
    /// Bytes of the extent.
    pub(super) range: Range<usize>,
}

/// An extent whose parts several threads copy.
pub(super) struct Shared {
    pub(super) source: Arc<dyn WeightSource>,
    pub(super) extent: ExtentId,
    pub(super) tensor_type: TensorType,
    pub(super) pieces: Vec<Piece>,
    pub(super) view: View,
    pub(super) stopped: Arc<AtomicBool>,
    under_way: Arc<AtomicUsize>,
    state: Mutex<State>,
}

struct State {
    parts_left: usize,
    fetched: Fetched,
    /// Events behind the parts that are on their way.
    marks: Vec<Event>,
    error: Option<SourceError>,
    done: Option<Done>,
}

/// What whoever copied the last part has to do.
pub(super) enum Last {
    /// Others still copy.
    No,
    /// All are on their way behind these events.
    Sent(Vec<Event>),
    /// A part failed, and that has been reported.
    Failed,
}

impl Job {
    pub(super) fn counted_by(self, under_way: &Arc<AtomicUsize>) -> Counted {
        Counted {
            job: self,
            under_way: Arc::clone(under_way),
        }
    }
}

impl Counted {
    pub(super) fn into_parts(self, part_bytes: usize) -> Vec<Part> {
        let Counted { job, under_way } = self;
        let len = job.len_bytes;
        // Even no bytes are a part: somebody must report them.
        let starts: Vec<usize> = (0..len.max(1)).step_by(part_bytes).collect();
        let shared = Arc::new(Shared {
            source: job.source,
            extent: job.extent,
            tensor_type: job.tensor_type,
            pieces: job.pieces,
            view: job.view,
            stopped: job.stopped,
            under_way,
            state: Mutex::new(State {
                parts_left: starts.len(),
                fetched: job.fetched,
                marks: Vec::new(),
                error: None,
                done: Some(job.done),
            }),
        });
        let part = |start: usize| Part {
            shared: Arc::clone(&shared),
            range: start..len.min(start + part_bytes),
        };
        starts.into_iter().map(part).collect()
    }
}

impl Shared {
    /// A part was copied: the event behind it and the bytes that came from storage for it, or why not.
    pub(super) fn part_ended(&self, ended: Result<(Event, u64), SourceError>) -> Last {
        let mut state = self.state();
        match ended {
            Ok((mark, cold_bytes)) => {
                state.marks.push(mark);
                state.fetched.add_cold(cold_bytes);
            }
            Err(error) => state.error = state.error.take().or(Some(error)),
        }
        state.parts_left -= 1;
        if state.parts_left > 0 {
            return Last::No;
        }
        let error = state.error.take();
        let marks = std::mem::take(&mut state.marks);
        drop(state);
        match error {
            None => Last::Sent(marks),
            Some(error) => {
                self.report(Err(error));
                Last::Failed
            }
        }
    }

    /// The extent is there, or not.
    pub(super) fn report(&self, result: Result<(), SourceError>) {
        let mut state = self.state();
        let (fetched, done) = (state.fetched, state.done.take());
        drop(state);
        if let Some(done) = done {
            self.under_way.fetch_sub(1, Ordering::AcqRel);
            done(result.map(|()| (fetched, self.view.clone())));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("extent", &self.extent)
            .field("view", &self.view)
            .finish_non_exhaustive()
    }
}
