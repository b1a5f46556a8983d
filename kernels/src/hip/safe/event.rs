//! Points in a stream's work.

use std::sync::Arc;

use hip_runtime_sys::hipEvent_t;

use super::Gpu;
use crate::hip::HipError;

/// A point in a stream's work that others wait for. Recorded by [`Stream::record`](super::Stream::record); one that was never recorded counts as passed.
#[derive(Debug)]
pub struct Event {
    gpu: Arc<Gpu>,
    handle: hipEvent_t,
}

// SAFETY: HIP's handles may be used and destroyed on any thread, and by several at once.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

impl Event {
    /// An event for waiting.
    ///
    /// # Errors
    /// The call that failed.
    pub fn new(gpu: &Arc<Gpu>) -> Result<Event, HipError> {
        Event::create(gpu, false)
    }

    /// An event that also takes the time on the device, for [`Event::elapsed_ms`].
    ///
    /// # Errors
    /// The call that failed.
    pub fn timed(gpu: &Arc<Gpu>) -> Result<Event, HipError> {
        Event::create(gpu, true)
    }

    fn create(gpu: &Arc<Gpu>, timed: bool) -> Result<Event, HipError> {
        Ok(Event {
            handle: gpu.table()?.event_create(timed)?,
            gpu: gpu.clone(),
        })
    }

    /// Whether the stream has passed it.
    ///
    /// # Errors
    /// What the device failed with.
    pub fn query(&self) -> Result<bool, HipError> {
        // SAFETY: the handle is valid until this value is dropped.
        unsafe { self.gpu.any_thread().event_query(self.handle) }
    }

    /// Waits until the stream has passed it.
    ///
    /// # Errors
    /// What the device failed with.
    pub fn synchronize(&self) -> Result<(), HipError> {
        // SAFETY: the handle is valid until this value is dropped.
        unsafe { self.gpu.any_thread().event_synchronize(self.handle) }
    }

    /// Milliseconds on the device from `start` to this event. Both are [`Event::timed`] and passed.
    ///
    /// # Errors
    /// The call that failed, as for an event that was not passed.
    pub fn elapsed_ms(&self, start: &Event) -> Result<f32, HipError> {
        let table = self.gpu.any_thread();
        // SAFETY: both handles are valid until their values are dropped.
        unsafe { table.event_elapsed_ms(start.handle, self.handle) }
    }

    pub(super) fn handle(&self) -> hipEvent_t {
        self.handle
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: destroyed here alone. HIP lets a recorded event be destroyed before it is passed. An error says that the device has failed, and there is nobody to tell it to.
        let _ = unsafe { self.gpu.any_thread().event_destroy(self.handle) };
    }
}
