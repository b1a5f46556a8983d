//! Bringing a whole model into the page cache.

use std::{
    collections::VecDeque,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use gguf::ExtentId;
use tokio::sync::oneshot;
use weights::{FetchError, Fetched, Piece};

use crate::{
    cache::Subject,
    error::Error,
    node::{Node, Tally},
    readers::{Refused, Urgency},
    registry::Model,
};

/// Extents under way at once, of one prefetch. Enough for every reader thread, little enough to stop soon.
const WINDOW: usize = 32;

/// How far a prefetch has come. Written by reader threads, read by whoever shows it.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    done_bytes: AtomicU64,
    tally: Tally,
}

/// Tells the reads of a prefetch to stop when it is dropped: its caller is gone.
#[derive(Debug, Default)]
struct Stop(Arc<AtomicBool>);

// === impl Progress ===

impl Progress {
    /// Bytes known to be in the page cache.
    pub(crate) fn done_bytes(&self) -> u64 {
        self.done_bytes.load(Ordering::Relaxed)
    }

    /// Where those of finished extents came from.
    pub(crate) fn fetched(&self) -> Fetched {
        self.tally.read()
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Refuses a model that the cache budget has no room for.
pub(crate) fn check_budget(node: &Node, model: &Model, subject: &Subject) -> Result<(), Error> {
    let need_bytes = subject.weights.directory().tensor_bytes();
    match node.cache.room_for(subject) {
        Some(free_bytes) if free_bytes < need_bytes => Err(Error::OverBudget {
            model: model.id.clone(),
            need_bytes,
            free_bytes,
        }),
        _ => Ok(()),
    }
}

/// Reads every extent of a model, in file order, behind whatever somebody waits for. Dropping the future stops the reads.
///
/// # Errors
/// [`Error::Fetch`] at the first extent that cannot be read.
pub(crate) async fn prefetch(
    node: &Arc<Node>,
    model: &Model,
    subject: &Subject,
    progress: &Arc<Progress>,
) -> Result<(), Error> {
    let stop = Stop::default();
    let mut under_way = VecDeque::new();
    let count = u32::try_from(subject.weights.directory().extents().len()).unwrap_or(u32::MAX);
    for extent in (0..count).map(ExtentId) {
        if under_way.len() >= WINDOW {
            finish(model, under_way.pop_front()).await?;
        }
        under_way.push_back(begin(
            node,
            subject.clone(),
            extent,
            Arc::clone(progress),
            Arc::clone(&stop.0),
        )?);
    }
    while !under_way.is_empty() {
        finish(model, under_way.pop_front()).await?;
    }
    Ok(())
}

type Reading = oneshot::Receiver<Result<(), FetchError>>;

fn begin(
    node: &Arc<Node>,
    subject: Subject,
    extent: ExtentId,
    progress: Arc<Progress>,
    stop: Arc<AtomicBool>,
) -> Result<Reading, Error> {
    let readers = Arc::clone(node);
    let node = Arc::clone(node);
    let job = move || {
        if stop.load(Ordering::Relaxed) {
            return Err(FetchError::Stopped);
        }
        node.cache.use_extent(&subject, extent);
        let mut on_piece = |piece: Piece| {
            progress
                .done_bytes
                .fetch_add(piece.len_bytes, Ordering::Relaxed);
            if stop.load(Ordering::Relaxed) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let fetched = node.read_extent(&subject, extent, &mut on_piece)?;
        progress.tally.add(fetched);
        // Again: while it was read it may have been the oldest extent that nobody holds.
        node.cache.use_extent(&subject, extent);
        Ok(())
    };
    readers
        .readers
        .submit(Urgency::Ahead, job)
        .map_err(|refused| match refused {
            Refused::Full => Error::TooMany {
                what: "waiting reads",
                limit: crate::readers::QUEUE_MAX,
            },
            Refused::Closed => Error::ShuttingDown,
        })
}

async fn finish(model: &Model, reading: Option<Reading>) -> Result<(), Error> {
    let Some(reading) = reading else {
        return Ok(());
    };
    let outcome = reading.await.map_err(|_| Error::WorkerDied)?;
    outcome.map_err(|source| Error::Fetch {
        model: model.id.clone(),
        source,
    })
}
