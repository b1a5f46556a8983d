//! Events: points in streams.

use std::ffi::c_uint;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use crate::exports;
use crate::handles::{Handle, Handles};
use crate::status::{Status, put};
use crate::stream::{Stream, find, refuse_while_recording};
use crate::work::{Running, Work};

pub(crate) static EVENTS: Handles<Event> = Handles::new(0x40_0000_0000);

#[derive(Debug, Default)]
pub(crate) struct Event {
    /// Where it was recorded last.
    last: Mutex<Option<Point>>,
}

/// One recording of an event. Clones are the same point.
#[derive(Debug, Clone)]
pub(crate) struct Point {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    stream: Arc<Stream>,
    reached: OnceLock<Instant>,
}

impl Event {
    /// Where it was recorded last, if ever.
    pub(crate) fn last_point(&self) -> Option<Point> {
        self.last().clone()
    }

    fn last(&self) -> MutexGuard<'_, Option<Point>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Point {
    pub(crate) fn stream(&self) -> Arc<Stream> {
        self.inner.stream.clone()
    }

    pub(crate) fn is_reached(&self) -> bool {
        self.inner.reached.get().is_some()
    }

    pub(crate) fn reach(&self) {
        self.inner.reached.get_or_init(Instant::now);
    }

    fn reached_at(&self) -> Result<Instant, Status> {
        self.inner.reached.get().copied().ok_or(Status::NotReady)
    }
}

exports! {
    fn cuEventCreate(event: *mut Handle, _flags: c_uint) {
        put(event, EVENTS.add(Event::default()))
    }

    fn cuEventDestroy_v2(event: Handle) {
        EVENTS.remove(event)
    }

    fn cuEventRecord(event: Handle, stream: Handle) {
        let event = EVENTS.get(event)?;
        let stream = find(stream)?;
        let point = Point { inner: Arc::new(Inner { stream: stream.clone(), reached: OnceLock::new() }) };
        *event.last() = Some(point.clone());
        stream.push(Work::Pass(point));
        Ok(())
    }

    /// Runs one piece of the stream's work and says "not ready"; whoever asks again and again is told "ready" in the end.
    fn cuEventQuery(event: Handle) {
        let Some(point) = EVENTS.get(event)?.last_point() else {
            return Ok(());
        };
        if point.is_reached() {
            return Ok(());
        }
        if let Some(running) = Running::try_begin()
            && let Some(work) = point.stream().next()
        {
            running.run_one(work);
        }
        Err(Status::NotReady)
    }

    fn cuEventSynchronize(event: Handle) {
        refuse_while_recording()?;
        if let Some(point) = EVENTS.get(event)?.last_point() {
            Running::begin().pass(&point);
        }
        Ok(())
    }

    fn cuEventElapsedTime(milliseconds: *mut f32, start: Handle, end: Handle) {
        let start = EVENTS.get(start)?.last_point().ok_or(Status::InvalidHandle)?;
        let end = EVENTS.get(end)?.last_point().ok_or(Status::InvalidHandle)?;
        let elapsed = end.reached_at()?.saturating_duration_since(start.reached_at()?);
        put(milliseconds, elapsed.as_secs_f32() * 1e3)
    }
}
