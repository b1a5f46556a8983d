//! Work in order.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hip_runtime_sys::{hipError_t, hipStream_t};

use super::{Args, Event, Function, Gpu, Graph, Grid, InFlight, Keep, Pinned, View};
use crate::hip::HipError;
use crate::hip::result::Launch;

/// How much is held before an event is recorded behind it. A launch holds about half a dozen things, so an event costs little, and a freed view is lent again soon.
const SEAL_COUNT: usize = 256;

/// Work of one GPU that runs in the order in which it was enqueued, beside other streams.
///
/// # What keeps its work alive
/// A stream holds the views, functions and graphs of every launch, fill and copy on the device that was enqueued on it. Now and then it records an event behind what it holds, and lets go of it
/// at a later call, once that event was passed; [`Stream::synchronize`] lets go of all. So a view that is dropped while a kernel reads it goes back to its arena only when that kernel is done:
/// call [`Stream::synchronize`] or [`Stream::release_passed`] before asking an arena for what was just dropped. Copies from and to the host are held by their [`InFlight`].
#[derive(Debug)]
pub struct Stream {
    gpu: Arc<Gpu>,
    handle: hipStream_t,
    held: Mutex<Held>,
}

// SAFETY: HIP's streams may be used on any thread, and by several at once; what is held is behind a lock.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

#[derive(Debug, Default)]
pub(super) struct Held {
    /// Enqueued since the last event.
    fresh: Vec<Keep>,
    /// What each event was recorded behind, oldest first.
    sealed: VecDeque<(Event, Vec<Keep>)>,
    /// Events to use again.
    idle: Vec<Event>,
    capturing: bool,
}

impl Stream {
    /// A stream that waits for no other.
    ///
    /// # Errors
    /// The call that failed.
    pub fn new(gpu: &Arc<Gpu>) -> Result<Stream, HipError> {
        Ok(Stream {
            handle: gpu.table()?.stream_create()?,
            gpu: gpu.clone(),
            held: Mutex::default(),
        })
    }

    /// The GPU that it works on.
    #[must_use]
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// Enqueues a kernel.
    ///
    /// # Errors
    /// The call that failed, as for a grid or an amount of shared memory that the device does not have.
    ///
    /// # Safety
    /// `args` are the kernel's parameters in number, order, size and meaning, and with them and this grid it reads and writes only inside the views that they name or hold.
    pub unsafe fn launch(
        &self,
        function: &Function,
        grid: Grid,
        mut args: Args,
    ) -> Result<(), HipError> {
        let _enqueuing = self.hold(args.take_keep().into_iter().chain([function.keep()]))?;
        let mut pointers = args.pointers();
        let launch = Launch {
            blocks: grid.blocks,
            threads: grid.threads,
            shared_bytes: grid.shared_bytes,
            arguments: pointers.as_mut_ptr(),
        };
        let table = self.gpu.table()?;
        // SAFETY: the function's module is held and the stream is ours; `pointers` point into `args`, which HIP copies during the call; the rest is the caller's word.
        unsafe { table.launch(function.handle(), &launch, self.handle) }
    }

    /// Enqueues a copy of `from[range]` to the device. The buffer comes back when it is done.
    ///
    /// # Errors
    /// [`HipError::Range`] if the range leaves the buffer or is not as long as the view; the call that failed, as while the stream captures. The buffer is lost then.
    pub fn upload(
        &self,
        from: Pinned,
        range: Range<usize>,
        to: &View,
    ) -> Result<InFlight, HipError> {
        check_range("upload", &range, from.len(), to.len())?;
        self.refuse_capturing("upload")?;
        let start = from.pointer().wrapping_byte_add(range.start);
        let flight = InFlight::new(from, to.keep(), Event::new(&self.gpu)?);
        let table = self.gpu.table()?;
        // SAFETY: both ranges were checked; the source is page-locked; `InFlight` holds both, gives no access to the source, and does not go before the copy is done.
        unsafe { table.copy_to_device(to.pointer(), start, range.len(), self.handle) }?;
        self.record(flight.done())?;
        Ok(flight)
    }

    /// Enqueues a copy from the device to `to[range]`. The buffer comes back when it is done.
    ///
    /// # Errors
    /// [`HipError::Range`] if the range leaves the buffer or is not as long as the view; the call that failed, as while the stream captures. The buffer is lost then.
    pub fn download(
        &self,
        from: &View,
        to: Pinned,
        range: Range<usize>,
    ) -> Result<InFlight, HipError> {
        check_range("download", &range, to.len(), from.len())?;
        self.refuse_capturing("download")?;
        let start = to.pointer().wrapping_byte_add(range.start);
        let flight = InFlight::new(to, from.keep(), Event::new(&self.gpu)?);
        let table = self.gpu.table()?;
        // SAFETY: both ranges were checked; the destination is page-locked; `InFlight` holds both, gives no access to the destination, and does not go before the copy is done.
        unsafe { table.copy_to_host(start, from.pointer(), range.len(), self.handle) }?;
        self.record(flight.done())?;
        Ok(flight)
    }

    /// Enqueues a copy between views of the same length that do not overlap.
    ///
    /// # Errors
    /// [`HipError::Range`] if they differ in length or overlap; the call that failed.
    pub fn copy(&self, from: &View, to: &View) -> Result<(), HipError> {
        check_range("copy", &(0..from.len()), from.len(), to.len())?;
        if from.address().abs_diff(to.address()) < from.len() {
            return Err(HipError::Range {
                what: "copy between ranges that overlap",
                start: 0,
                end: from.len(),
                len: from.address().abs_diff(to.address()),
            });
        }
        let _enqueuing = self.hold([from.keep(), to.keep()])?;
        let table = self.gpu.table()?;
        // SAFETY: the ranges were checked, do not overlap, and the stream holds both.
        unsafe { table.copy_on_device(to.pointer(), from.pointer(), from.len(), self.handle) }
    }

    /// Enqueues setting every byte of a view.
    ///
    /// # Errors
    /// The call that failed.
    pub fn fill(&self, view: &View, value: u8) -> Result<(), HipError> {
        let _enqueuing = self.hold([view.keep()])?;
        let table = self.gpu.table()?;
        // SAFETY: the view is valid and the stream holds it.
        unsafe { table.fill(view.pointer(), value, view.len(), self.handle) }
    }

    /// Marks this point of the stream.
    ///
    /// # Errors
    /// The call that failed.
    pub fn record(&self, event: &Event) -> Result<(), HipError> {
        let table = self.gpu.table()?;
        // SAFETY: both handles are valid while their values live.
        unsafe { table.event_record(event.handle(), self.handle) }
    }

    /// Lets what is enqueued from now on wait for another stream's event. The host does not wait.
    ///
    /// # Errors
    /// The call that failed.
    pub fn wait(&self, event: &Event) -> Result<(), HipError> {
        let table = self.gpu.table()?;
        // SAFETY: both handles are valid while their values live; HIP takes what it needs of the event during the call.
        unsafe { table.stream_wait(self.handle, event.handle()) }
    }

    /// Waits until all that was enqueued is done.
    ///
    /// # Errors
    /// What the device failed with.
    pub fn synchronize(&self) -> Result<(), HipError> {
        let mut held = self.held();
        let table = self.gpu.table()?;
        // SAFETY: the stream is valid while `self` lives.
        unsafe { table.stream_synchronize(self.handle) }?;
        held.fresh.clear();
        while let Some((event, _)) = held.sealed.pop_front() {
            held.idle.push(event);
        }
        Ok(())
    }

    /// Records what `enqueue` enqueues on this stream, instead of running it, and makes a graph of it. Only launches, copies on the device and fills can be recorded.
    ///
    /// # Errors
    /// What `enqueue` fails with, or the call that failed. The stream takes work as before then.
    pub fn capture<E: From<HipError>>(
        &self,
        enqueue: impl FnOnce(&Stream) -> Result<(), E>,
    ) -> Result<Graph, E> {
        let before = self.begin_capture()?;
        let enqueued = enqueue(self);
        let (recorded, keep) = self.end_capture(before);
        let graph = recorded.and_then(|recorded| {
            // SAFETY: the recording came out of this capture and is given away here; `keep` is all that the stream was told to hold meanwhile.
            unsafe { Graph::instantiate(&self.gpu, recorded, keep) }
        });
        enqueued?;
        Ok(graph?)
    }

    /// Gives what the stream held before, so that what it holds from now on is the recording's.
    fn begin_capture(&self) -> Result<Vec<Keep>, HipError> {
        let mut held = self.held();
        let table = self.gpu.table()?;
        // SAFETY: the stream is valid while `self` lives.
        unsafe { table.begin_capture(self.handle) }?;
        held.capturing = true;
        Ok(std::mem::take(&mut held.fresh))
    }

    fn end_capture(
        &self,
        before: Vec<Keep>,
    ) -> (Result<hip_runtime_sys::hipGraph_t, HipError>, Vec<Keep>) {
        let mut held = self.held();
        held.capturing = false;
        let keep = std::mem::replace(&mut held.fresh, before);
        // SAFETY: the stream is valid while `self` lives.
        let recorded = unsafe { self.gpu.any_thread().end_capture(self.handle) };
        (recorded, keep)
    }

    /// Lets go of what the stream has passed, without waiting.
    ///
    /// # Errors
    /// What the device failed with.
    pub fn release_passed(&self) -> Result<(), HipError> {
        let mut held = self.held();
        if !held.fresh.is_empty() && !held.capturing {
            self.seal(&mut held)?;
        }
        release_passed(&mut held)
    }

    /// Holds what the caller enqueues before it lets go of the lock: an event that is recorded behind what is held lies behind that, too.
    pub(super) fn hold(
        &self,
        keep: impl IntoIterator<Item = Keep>,
    ) -> Result<MutexGuard<'_, Held>, HipError> {
        let mut held = self.held();
        if held.fresh.len() >= SEAL_COUNT && !held.capturing {
            self.seal(&mut held)?;
            release_passed(&mut held)?;
        }
        held.fresh.extend(keep);
        Ok(held)
    }

    fn seal(&self, held: &mut Held) -> Result<(), HipError> {
        let event = match held.idle.pop() {
            Some(event) => event,
            None => Event::new(&self.gpu)?,
        };
        self.record(&event)?;
        let fresh = std::mem::take(&mut held.fresh);
        held.sealed.push_back((event, fresh));
        Ok(())
    }

    fn refuse_capturing(&self, call: &'static str) -> Result<(), HipError> {
        if !self.held().capturing {
            return Ok(());
        }
        Err(HipError::Call {
            call,
            status: hipError_t::hipErrorStreamCaptureUnsupported as u32,
        })
    }

    pub(super) fn handle(&self) -> hipStream_t {
        self.handle
    }

    /// Every change of what is held is whole before anything may panic.
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets go of what lies before events that were passed.
fn release_passed(held: &mut Held) -> Result<(), HipError> {
    while let Some((event, _)) = held.sealed.front() {
        if !event.query()? {
            break;
        }
        if let Some((event, _)) = held.sealed.pop_front() {
            held.idle.push(event);
        }
    }
    Ok(())
}

fn check_range(
    what: &'static str,
    range: &Range<usize>,
    len: usize,
    other_len: usize,
) -> Result<(), HipError> {
    if range.start <= range.end && range.end <= len && range.len() == other_len {
        return Ok(());
    }
    Err(HipError::Range {
        what,
        start: range.start,
        end: range.end,
        len,
    })
}

impl Drop for Stream {
    fn drop(&mut self) {
        // What is held may go only when the work is done. A device that has failed does no work any more.
        let _ = self.synchronize();
        // SAFETY: destroyed here alone, with nothing of it under way.
        let _ = unsafe { self.gpu.any_thread().stream_destroy(self.handle) };
    }
}
