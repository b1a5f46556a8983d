//! The way of bytes onto a device: pinned slots that are filled while others are on the link.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::Arc;

use super::{Event, Gpu, InFlight, Pinned, Stream, View};
use crate::hip::HipError;

/// The size of a ring: what it pins is the product of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ring {
    /// Threads that will fill slots, each with a stream of its own. Streams that threads share make them wait in turn.
    pub workers: NonZeroUsize,
    /// Slots of each worker: one being filled while the others are on the link.
    pub slots: NonZeroUsize,
    /// Bytes of a slot.
    pub slot_bytes: NonZeroUsize,
}

impl Ring {
    /// Eight workers with three slots of 4 MiB: 96 MiB. Measured on a PCIe 5 link this gives 96 % of what the link gives pinned memory; more of anything does not help, and pinning takes time.
    pub const USUAL: Ring = Ring {
        workers: NonZeroUsize::new(8).expect("not zero"),
        slots: NonZeroUsize::new(3).expect("not zero"),
        slot_bytes: NonZeroUsize::new(4 << 20).expect("not zero"),
    };

    /// One worker of it. Each is allocated on the thread that will use it, so that they pin beside each other.
    ///
    /// # Errors
    /// The call that failed.
    pub fn worker(&self, gpu: &Arc<Gpu>) -> Result<RingWorker, HipError> {
        let slot = |_| Pinned::allocate_large(gpu, self.slot_bytes.get());
        Ok(RingWorker {
            free: (0..self.slots.get()).map(slot).collect::<Result<_, _>>()?,
            flying: VecDeque::new(),
            stream: Stream::new(gpu)?,
        })
    }
}

/// A thread's stream and slots.
#[derive(Debug)]
pub struct RingWorker {
    free: Vec<Pinned>,
    /// Oldest first.
    flying: VecDeque<InFlight>,
    stream: Stream,
}

impl RingWorker {
    /// Uploads to all of `to`, slot by slot: `fill` is given an offset in `to` and writes the bytes from there on. Returns when the last slot is filled and enqueued, not when it has arrived:
    /// see [`RingWorker::mark`].
    ///
    /// # Errors
    /// What `fill` or the device failed with. Some of the bytes may have been written then.
    pub fn upload<E: From<HipError>>(
        &mut self,
        to: &View,
        mut fill: impl FnMut(usize, &mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut start = 0;
        while start < to.len() {
            let mut slot = self.slot()?;
            let end = to.len().min(start + slot.len());
            let part = to.slice(start..end)?;
            let filled = fill(start, &mut slot.bytes_mut()[..end - start]);
            if let Err(error) = filled {
                self.free.push(slot);
                return Err(error);
            }
            let flying = self.stream.upload(slot, 0..end - start, &part)?;
            self.flying.push_back(flying);
            start = end;
        }
        Ok(())
    }

    /// A slot that nothing reads: one that is free, or the oldest one on the link once it has arrived.
    fn slot(&mut self) -> Result<Pinned, HipError> {
        if let Some(slot) = self.free.pop() {
            return Ok(slot);
        }
        let oldest = self.flying.pop_front();
        oldest
            .expect("a ring has a slot, and a slot that is not free is flying")
            .wait()
    }

    /// An event behind all that was enqueued so far: once it is passed, those bytes are on the device for every stream.
    ///
    /// # Errors
    /// The call that failed.
    pub fn mark(&self) -> Result<Event, HipError> {
        let event = Event::new(self.stream.gpu())?;
        self.stream.record(&event)?;
        Ok(event)
    }

    /// The stream, to enqueue work behind the copies.
    #[must_use]
    pub fn stream(&self) -> &Stream {
        &self.stream
    }
}
