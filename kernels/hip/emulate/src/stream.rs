//! Streams: queues of work, and recording instead of queueing.

use std::cell::Cell;
use std::collections::VecDeque;
use std::ffi::{c_int, c_uint, c_void};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use crate::event::EVENTS;
use crate::exports;
use crate::graph::{GRAPHS, Graph};
use crate::handles::{Handle, Handles};
use crate::status::{Outcome, Status, put};
use crate::work::{HostCall, Work, run_everything, run_stream};

static STREAMS: Handles<Arc<Stream>> = Handles::new(0x30_0000_0000);

/// The stream of functions that name none: its work runs at once, behind all that was enqueued before.
static DEFAULT: LazyLock<Arc<Stream>> = LazyLock::new(Arc::default);

thread_local! {
    /// Streams that this thread records.
    static RECORDING: Cell<usize> = const { Cell::new(0) };
}

#[derive(Debug, Default)]
pub(crate) struct Stream {
    queue: Mutex<VecDeque<Work>>,
    /// What was recorded, while it records.
    recorded: Mutex<Option<Vec<Work>>>,
}

impl Stream {
    /// The oldest piece of work.
    pub(crate) fn next(&self) -> Option<Work> {
        self.queue().pop_front()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.queue().is_empty()
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<Work>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recorded(&self) -> MutexGuard<'_, Option<Vec<Work>>> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_recording(&self) -> bool {
        self.recorded().is_some()
    }

    pub(crate) fn push(&self, work: Work) {
        match self.recorded().as_mut() {
            Some(recorded) => recorded.push(work),
            None => self.queue().push_back(work),
        }
    }
}

pub(crate) fn find(handle: Handle) -> Result<Arc<Stream>, Status> {
    // 1 and 2 are CUDA's names of default streams, too.
    if handle.addr() <= 2 {
        return Ok(DEFAULT.clone());
    }
    STREAMS.get(handle).map(|stream| (*stream).clone())
}

pub(crate) fn all_streams() -> Vec<Arc<Stream>> {
    let named = STREAMS.all();
    named.iter().map(|stream| (**stream).clone()).collect()
}

pub(crate) fn enqueue(handle: Handle, work: Work) -> Outcome {
    let stream = find(handle)?;
    stream.push(work);
    if Arc::ptr_eq(&stream, &DEFAULT) {
        refuse_while_recording()?;
        run_everything();
        run_stream(&stream);
    }
    Ok(())
}

/// What a thread may not do while it records: on a GPU it would not be part of the recording, or would wait for it.
pub(crate) fn refuse_while_recording() -> Outcome {
    if RECORDING.get() == 0 {
        Ok(())
    } else {
        Err(Status::CaptureUnsupported)
    }
}

exports! {
    fn cuStreamCreate(stream: *mut Handle, _flags: c_uint) {
        put(stream, STREAMS.add(Arc::default()))
    }

    fn cuStreamCreateWithPriority(stream: *mut Handle, _flags: c_uint, _priority: c_int) {
        put(stream, STREAMS.add(Arc::default()))
    }

    fn cuStreamDestroy_v2(stream: Handle) {
        run_stream(&find(stream)?);
        STREAMS.remove(stream)
    }

    fn cuStreamSynchronize(stream: Handle) {
        refuse_while_recording()?;
        run_stream(&find(stream)?);
        Ok(())
    }

    fn cuStreamQuery(stream: Handle) {
        refuse_while_recording()?;
        let stream = find(stream)?;
        if stream.is_idle() {
            return Ok(());
        }
        if let Some(running) = crate::work::Running::try_begin()
            && let Some(work) = stream.next()
        {
            running.run_one(work);
        }
        Err(Status::NotReady)
    }

    fn cuStreamWaitEvent(stream: Handle, event: Handle, _flags: c_uint) {
        match EVENTS.get(event)?.last_point() {
            Some(point) => enqueue(stream, Work::Wait(point)),
            None => Ok(()),
        }
    }

    fn cuStreamGetFlags(stream: Handle, flags: *mut c_uint) {
        find(stream)?;
        put(flags, 1)
    }

    fn cuStreamGetPriority(stream: Handle, priority: *mut c_int) {
        find(stream)?;
        put(priority, 0)
    }

    fn cuStreamBeginCapture_v2(stream: Handle, _mode: c_uint) {
        let stream = find(stream)?;
        if Arc::ptr_eq(&stream, &DEFAULT) || stream.is_recording() {
            return Err(Status::CaptureUnsupported);
        }
        *stream.recorded() = Some(Vec::new());
        RECORDING.set(RECORDING.get() + 1);
        Ok(())
    }

    fn cuStreamEndCapture(stream: Handle, graph: *mut Handle) {
        let recorded = find(stream)?.recorded().take();
        let works = recorded.ok_or(Status::CaptureUnmatched)?;
        RECORDING.set(RECORDING.get().saturating_sub(1));
        put(graph, GRAPHS.add(Graph { works }))
    }

    fn cuStreamIsCapturing(stream: Handle, status: *mut c_uint) {
        put(status, u32::from(find(stream)?.is_recording()))
    }

    fn cuThreadExchangeStreamCaptureMode(_mode: *mut c_uint) {
        Ok(())
    }

    fn cuLaunchHostFunc(stream: Handle, function: unsafe extern "C" fn(*mut c_void), data: *mut c_void) {
        enqueue(stream, Work::Call(HostCall { function, data: data.addr() }))
    }
}
