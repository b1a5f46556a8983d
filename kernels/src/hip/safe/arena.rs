//! A few large chunks of device memory that are lent out in ranges.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::ranges::{Place, Ranges};
use super::{Gpu, Memory, View};
use crate::hip::HipError;

/// Lends [`View`]s out of large chunks, at most `limit_bytes` in all. Ranges come back when their last view is gone and are lent again; chunks are kept until the arena and all its views are gone.
///
/// Clones are the same arena.
#[derive(Debug, Clone)]
pub struct Arena {
    gpu: Arc<Gpu>,
    limit_bytes: usize,
    chunk_bytes: usize,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    ranges: Ranges,
    /// By the index that `ranges` gives them.
    chunks: Vec<Arc<Memory>>,
    allocated_bytes: usize,
}

/// A range on loan; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Lent {
    /// Taken when it is given back.
    place: Option<Place>,
    shared: Arc<Mutex<Shared>>,
}

impl Arena {
    /// An arena that has no memory yet. It grows in steps of `chunk_bytes`, or of what a larger range needs, up to `limit_bytes`.
    #[must_use]
    pub fn new(gpu: &Arc<Gpu>, limit_bytes: usize, chunk_bytes: usize) -> Arena {
        Arena {
            gpu: gpu.clone(),
            limit_bytes,
            chunk_bytes,
            shared: Arc::default(),
        }
    }

    /// A range of `len` bytes, aligned to 256. What they hold is unknown. `None` where no free range is long enough and the limit lets no chunk be added.
    ///
    /// # Errors
    /// The allocation of a chunk that failed.
    pub fn view(&self, len: usize) -> Result<Option<View>, HipError> {
        let mut shared = lock(&self.shared);
        let place = match shared.ranges.take(len) {
            Some(place) => place,
            None if self.grow(&mut shared, len)? => match shared.ranges.take(len) {
                Some(place) => place,
                None => return Ok(None),
            },
            None => return Ok(None),
        };
        let memory = shared.chunks[place.chunk()].clone();
        let range = place.offset()..place.offset() + len;
        let lent = Lent {
            place: Some(place),
            shared: self.shared.clone(),
        };
        Ok(Some(View::lent(memory, range, lent)))
    }

    /// Adds a chunk that has room for `len` bytes. `false` if the limit does not allow it.
    fn grow(&self, shared: &mut Shared, len: usize) -> Result<bool, HipError> {
        let room = self.limit_bytes.saturating_sub(shared.allocated_bytes);
        let needed = Ranges::taken_bytes(len).filter(|&needed| needed <= room);
        let Some(needed) = needed else {
            return Ok(false);
        };
        let bytes = needed.max(self.chunk_bytes).min(room);
        let memory = Memory::allocate(&self.gpu, bytes)?;
        shared.allocated_bytes += bytes;
        shared.ranges.add_chunk(bytes);
        shared.chunks.push(memory);
        Ok(true)
    }

    /// Bytes that are lent now, with what alignment adds.
    #[must_use]
    pub fn lent_bytes(&self) -> usize {
        lock(&self.shared).ranges.lent_bytes()
    }

    /// Device memory that its chunks take.
    #[must_use]
    pub fn allocated_bytes(&self) -> usize {
        lock(&self.shared).allocated_bytes
    }

    /// The most that it may take.
    #[must_use]
    pub fn limit_bytes(&self) -> usize {
        self.limit_bytes
    }

    /// The GPU that it lies on.
    #[must_use]
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            lock(&self.shared).ranges.give_back(place);
        }
    }
}

/// Every change of the state is whole before anything may panic.
fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
