//! Events.

use std::ffi::c_uint;

use hip_runtime_sys::{hipEvent_t, hipStream_t};

use crate::{cu, exports};

/// Flags that mean the same in both: blocking wait, no timing, shared between processes. The others are AMD's, about caches.
const FLAGS: c_uint = 0x7;

exports! {
    fn hipEventCreate(event: *mut hipEvent_t) {
        cu!(cuEventCreate(event.cast(), 0))
    }

    fn hipEventCreateWithFlags(event: *mut hipEvent_t, flags: c_uint) {
        cu!(cuEventCreate(event.cast(), flags & FLAGS))
    }

    fn hipEventRecord(event: hipEvent_t, stream: hipStream_t) {
        cu!(cuEventRecord(event.cast(), stream.cast()))
    }

    fn hipEventQuery(event: hipEvent_t) {
        cu!(cuEventQuery(event.cast()))
    }

    fn hipEventSynchronize(event: hipEvent_t) {
        cu!(cuEventSynchronize(event.cast()))
    }

    fn hipEventElapsedTime(milliseconds: *mut f32, start: hipEvent_t, end: hipEvent_t) {
        cu!(cuEventElapsedTime(milliseconds, start.cast(), end.cast()))
    }

    fn hipEventDestroy(event: hipEvent_t) {
        cu!(cuEventDestroy(event.cast()))
    }
}
