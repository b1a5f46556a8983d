use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use kernels::hip::launch::repack::repack;
use kernels::hip::{Event, Hip, HipError, Ring, RingWorker, Stream};
use weights::accounting::Meter;

use super::job::{Last, Part, Shared};
use crate::fetch_pool::NotFetched;
use crate::source::SourceError;

type Queue = Mutex<Receiver<Part>>;

/// Starts one thread. It ends when the last room is gone.
pub(super) fn start(index: usize, hip: &Arc<Hip>, queue: &Arc<Queue>) -> std::io::Result<()> {
    let (hip, queue) = (Arc::clone(hip), Arc::clone(queue));
    // A phase of whatever starts the engine.
    let span = tracing::info_span!("device.open.ring", thread = index);
    let thread = std::thread::Builder::new().name(format!("upload-{index}"));
    thread.spawn(move || {
        let ring = span.in_scope(|| Ring::USUAL.worker(hip.gpu()));
        let ring = ring.and_then(|ring| Ok((ring, Stream::new(hip.gpu())?)));
        drop(span);
        let mut uploader = Uploader {
            ring,
            hip,
            landing: VecDeque::new(),
        };
        let mut meter = Meter::start();
        while let Some(part) = uploader.next(&queue) {
            uploader.take(&part, &mut meter);
        }
    })?;
    Ok(())
}

struct Uploader {
    hip: Arc<Hip>,
    /// Slots, and the stream on which extents are finished: what is finished waits for parts of other threads, which copies must not. Or why there is neither: then every part fails with that.
    ring: Result<(RingWorker, Stream), HipError>,
    /// Extents whose last part this thread sent, oldest first, and the event behind each.
    landing: VecDeque<(Event, Arc<Shared>)>,
}

impl Uploader {
    /// The next part to copy. Meanwhile extents that have arrived are reported: those that have by the way, and all of them when there is nothing else to do.
    fn next(&mut self, queue: &Queue) -> Option<Part> {
        loop {
            self.report_landed();
            let taken = match queue.try_lock() {
                Ok(queue) => queue.try_recv(),
                Err(TryLockError::Poisoned(queue)) => queue.into_inner().try_recv(),
                // An idle thread waits there, and will have what comes.
                Err(TryLockError::WouldBlock) => Err(TryRecvError::Empty),
            };
            if let Ok(part) = taken {
                return Some(part);
            }
            if self.landing.is_empty() {
                // Whoever holds the lock waits for the next part; the others wait for the lock. Nothing panics while it is held.
                let queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
                return queue.recv().ok();
            }
            self.await_landing();
        }
    }

    fn report_landed(&mut self) {
        while let Some((event, _)) = self.landing.front() {
            match event.query() {
                Ok(false) => return,
                Ok(true) => self.land(Ok(())),
                Err(error) => self.land(Err(error)),
            }
        }
    }

    fn await_landing(&mut self) {
        if let Some((event, _)) = self.landing.front() {
            let landed = event.synchronize();
            self.land(landed);
        }
    }

    /// Reports the oldest extent, and lets go of what the stream holds of it, so that evicting it makes room.
    fn land(&mut self, landed: Result<(), HipError>) {
        let Some((_, extent)) = self.landing.pop_front() else {
            return;
        };
        let let_go = self
            .ring
            .as_ref()
            .map(|(_, finishing)| match self.landing.is_empty() {
                // What is behind the last event of this stream is nothing.
                true => finishing.synchronize(),
                false => finishing.release_passed(),
            });
        let result = landed.and(let_go.unwrap_or(Ok(())));
        extent.report(result.map_err(SourceError::from));
    }

    fn take(&mut self, part: &Part, meter: &mut Meter) {
        // A panic in here must not become a wait without end over there.
        let caught = catch_unwind(AssertUnwindSafe(|| self.copy(part, meter)));
        let ended =
            caught.unwrap_or_else(|_| Err(SourceError::Failed(Arc::new(NotFetched::Panicked))));
        let Last::Sent(marks) = part.shared.part_ended(ended) else {
            return;
        };
        match self.finish(&part.shared, &marks) {
            Ok(event) => self.landing.push_back((event, Arc::clone(&part.shared))),
            Err(error) => part.shared.report(Err(error.into())),
        }
    }

    /// Copies a part into slots and sends them. Gives the event behind it and the bytes that came from storage.
    fn copy(&mut self, part: &Part, meter: &mut Meter) -> Result<(Event, u64), SourceError> {
        let Part { shared, range } = part;
        if shared.stopped.load(Ordering::Relaxed) {
            return Err(SourceError::Failed(Arc::new(NotFetched::Stopped)));
        }
        let (ring, _) = self.ring.as_mut().map_err(|error| error.clone())?;
        let mut cold_bytes = 0;
        for piece in &shared.pieces {
            let start = range.start.max(piece.bytes.start);
            let end = range.end.min(piece.bytes.end);
            if start >= end {
                continue;
            }
            let place = piece.place().start + (start - piece.bytes.start);
            let to = shared.view.slice(place..place + (end - start))?;
            ring.upload(&to, |offset, slot| {
                let offset = (start + offset) as u64;
                cold_bytes +=
                    Arc::clone(&shared.source).read_into(shared.extent, offset, slot, meter)?;
                Ok::<(), SourceError>(())
            })?;
        }
        Ok((ring.mark()?, cold_bytes))
    }

    /// Behind all parts, whoever sent them: the layout that kernels read.
    fn finish(&self, extent: &Shared, marks: &[Event]) -> Result<Event, HipError> {
        let (_, stream) = self.ring.as_ref().map_err(Clone::clone)?;
        for mark in marks {
            stream.wait(mark)?;
        }
        let (kernels, tensor_type) = (self.hip.kernels(), extent.tensor_type);
        for piece in &extent.pieces {
            let blocks = piece.bytes.len() / tensor_type.block_bytes();
            let n_elements = blocks * tensor_type.block_len();
            let view = extent.view.slice(piece.place())?;
            repack(stream, kernels, tensor_type, n_elements, &view)?;
        }
        let event = Event::new(self.hip.gpu())?;
        stream.record(&event)?;
        Ok(event)
    }
}
