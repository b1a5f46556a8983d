//! From a source's bytes to a GPU's memory.
//!
//! # Two stages
//! A model's own fetch threads bring an extent into the page cache, for as long as the storage takes. Then threads that all models share copy it into pinned slots and send it on its way, in parts of
//! which several threads take one each: the largest extent of a model is a tenth of it, and one thread alone has an eighth of the link. So a slow model holds up nobody else, and the slots are
//! pinned once.
//!
//! A thread does not wait for what it has sent. It goes on with the next part and reports an extent once the device has passed an event behind it; behind the last part of an extent the device
//! brings its tensors into the layout that the kernels read.

mod job;
mod layout;
mod threads;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use kernels::Device;
use kernels::hip::{Arena, Hip, HipError, Ring, View};

pub(crate) use job::Job;
use job::Part;
pub(crate) use layout::{Layouts, Piece, placed_bytes};

use crate::source::SourceError;
use crate::{EngineConfig, StartError};

/// Device memory is taken in chunks of so many bytes.
const CHUNK_BYTES: usize = 256 << 20;
/// Up to so many bytes are taken all at once: no hole then ends where a chunk does, and a model that streams through a small budget finds room for its largest tensor.
const ONE_CHUNK_BYTES_MAX: usize = 8 << 30;

/// A part of an extent: what one thread copies. A multiple of a slot.
const PART_BYTES: usize = 16 << 20;

/// What a part of the budget is added for alignment and for holes between extents of different lengths.
const SLACK_SHARE: usize = 16;

/// What part of the device's memory activations, logits and the driver's own structures are left.
const WORKING_SHARE: u64 = 16;

/// How long a fetch thread waits before it looks again whether there is room.
const NO_ROOM_WAIT: Duration = Duration::from_millis(1);

/// Room for weights in a GPU's memory, and the threads that fill it, for all models. Clones are the same room.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    hip: Arc<Hip>,
    arena: Arena,
    parts: mpsc::Sender<Part>,
    /// Extents that have a range and are not there yet.
    under_way: Arc<AtomicUsize>,
}

/// There was no room for an extent.
#[derive(Debug, thiserror::Error)]
#[error("no room for {len_bytes} bytes of weights: {lent_bytes} of {limit_bytes} are in use")]
struct NoRoom {
    len_bytes: usize,
    lent_bytes: usize,
    limit_bytes: usize,
}

/// Whether a fetch failed because what is free lies in pieces that are too short.
pub(crate) fn is_no_room(error: &SourceError) -> bool {
    matches!(error, SourceError::Failed(cause) if cause.is::<NoRoom>())
}

impl Room {
    /// Room for at most `budget_bytes` and what lies between them; `None` on a device that uses weights where the source has them. The threads begin to pin their slots.
    ///
    /// # Errors
    /// Where threads cannot be started.
    pub(crate) fn new(device: &Device, budget_bytes: Option<u64>) -> std::io::Result<Option<Room>> {
        let Device::Hip(hip) = device else {
            return Ok(None);
        };
        let budget = budget_bytes.and_then(|bytes| usize::try_from(bytes).ok());
        let limit = budget.map_or(usize::MAX, |budget| {
            budget.saturating_add(budget / SLACK_SHARE + (1 << 20))
        });
        let chunk = if limit <= ONE_CHUNK_BYTES_MAX {
            limit
        } else {
            CHUNK_BYTES
        };
        let (parts, queue) = mpsc::channel();
        let queue = Arc::new(Mutex::new(queue));
        for index in 0..Ring::USUAL.workers.get() {
            threads::start(index, hip, &queue)?;
        }
        Ok(Some(Room {
            arena: Arena::new(hip.gpu(), limit, chunk),
            hip: hip.clone(),
            parts,
            under_way: Arc::default(),
        }))
    }

    /// A range for one extent, which counts as under way from here on.
    ///
    /// What was let go may still be in use by kernels that run, or by copies: they are waited for before there is no room.
    pub(crate) fn range(&self, len_bytes: usize) -> Result<View, SourceError> {
        loop {
            // Looked at before the arena is asked: what ends in between makes room that the next round finds.
            let others = self.under_way.load(Ordering::Acquire);
            if let Some(view) = self.arena.view(len_bytes)? {
                self.under_way.fetch_add(1, Ordering::AcqRel);
                return Ok(view);
            }
            self.hip.stream().synchronize()?;
            if let Some(view) = self.arena.view(len_bytes)? {
                self.under_way.fetch_add(1, Ordering::AcqRel);
                return Ok(view);
            }
            if others == 0 {
                return Err(SourceError::Failed(Arc::new(NoRoom {
                    len_bytes,
                    lent_bytes: self.arena.lent_bytes(),
                    limit_bytes: self.arena.limit_bytes(),
                })));
            }
            std::thread::sleep(NO_ROOM_WAIT);
        }
    }

    /// Sends an extent on its way; its end is reported by the job's `done`.
    pub(crate) fn bring(&self, job: Job) {
        let job = job.counted_by(&self.under_way);
        for part in job.into_parts(PART_BYTES) {
            self.parts
                .send(part)
                .expect("threads live as long as a room");
        }
    }
}

/// The budget for weights: the one that was asked for, or on a GPU what is free beside the KV cache and working memory. `None` for no bound.
///
/// # Errors
/// [`StartError::DeviceMemory`] if a GPU does not have what all of it takes, so that nothing fails for it later.
pub(crate) fn budget_bytes(config: &EngineConfig) -> Result<Option<u64>, StartError> {
    let Device::Hip(hip) = &config.device else {
        return Ok(config.weights_budget_bytes);
    };
    let free_bytes = match config.parked {
        false => hip.gpu().free_bytes()? as u64,
        true => hip.gpu().total_bytes() as u64,
    };
    let working_bytes = hip.gpu().total_bytes() as u64 / WORKING_SHARE;
    let others_bytes = config.kv_budget_bytes.saturating_add(working_bytes);
    let with_slack = |bytes: u64| bytes.saturating_add(bytes / SLACK_SHARE as u64);
    let need_bytes =
        with_slack(config.weights_budget_bytes.unwrap_or(0)).saturating_add(others_bytes);
    if need_bytes > free_bytes {
        return Err(StartError::DeviceMemory {
            need_bytes,
            free_bytes,
        });
    }
    let share = SLACK_SHARE as u64;
    let left_bytes = (free_bytes - others_bytes) / (share + 1) * share;
    Ok(Some(config.weights_budget_bytes.unwrap_or(left_bytes)))
}

impl From<HipError> for SourceError {
    fn from(error: HipError) -> SourceError {
        SourceError::Failed(Arc::new(error))
    }
}
