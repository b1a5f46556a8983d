//! Streams, and recording them.

use std::ffi::{c_int, c_uint, c_void};

use hip_runtime_sys::{
    hipError_t, hipEvent_t, hipHostFn_t, hipStream_t, hipStreamCaptureMode, hipStreamCaptureStatus,
};

use crate::status::put;
use crate::{cu, exports};

exports! {
    fn hipStreamCreate(stream: *mut hipStream_t) {
        cu!(cuStreamCreate(stream.cast(), 0))
    }

    /// Flags are the same: 1 for one that does not wait for the default stream.
    fn hipStreamCreateWithFlags(stream: *mut hipStream_t, flags: c_uint) {
        cu!(cuStreamCreate(stream.cast(), flags))
    }

    fn hipStreamCreateWithPriority(stream: *mut hipStream_t, flags: c_uint, priority: c_int) {
        cu!(cuStreamCreateWithPriority(stream.cast(), flags, priority))
    }

    fn hipDeviceGetStreamPriorityRange(least: *mut c_int, greatest: *mut c_int) {
        cu!(cuCtxGetStreamPriorityRange(least, greatest))
    }

    fn hipStreamDestroy(stream: hipStream_t) {
        cu!(cuStreamDestroy(stream.cast()))
    }

    fn hipStreamSynchronize(stream: hipStream_t) {
        cu!(cuStreamSynchronize(stream.cast()))
    }

    fn hipStreamQuery(stream: hipStream_t) {
        cu!(cuStreamQuery(stream.cast()))
    }

    fn hipStreamWaitEvent(stream: hipStream_t, event: hipEvent_t, _flags: c_uint) {
        cu!(cuStreamWaitEvent(stream.cast(), event.cast(), 0))
    }

    fn hipStreamGetFlags(stream: hipStream_t, flags: *mut c_uint) {
        cu!(cuStreamGetFlags(stream.cast(), flags))
    }

    fn hipStreamGetPriority(stream: hipStream_t, priority: *mut c_int) {
        cu!(cuStreamGetPriority(stream.cast(), priority))
    }

    fn hipLaunchHostFunc(stream: hipStream_t, function: hipHostFn_t, data: *mut c_void) {
        let function = function.ok_or(hipError_t::hipErrorInvalidValue)?;
        cu!(cuLaunchHostFunc(stream.cast(), function, data))
    }

    /// The modes have the same numbers.
    fn hipStreamBeginCapture(stream: hipStream_t, mode: hipStreamCaptureMode) {
        cu!(cuStreamBeginCapture(stream.cast(), mode as c_uint))
    }

    fn hipStreamEndCapture(stream: hipStream_t, graph: *mut hip_runtime_sys::hipGraph_t) {
        cu!(cuStreamEndCapture(stream.cast(), graph.cast()))
    }

    fn hipStreamIsCapturing(stream: hipStream_t, status: *mut hipStreamCaptureStatus) {
        let mut found = 0;
        cu!(cuStreamIsCapturing(stream.cast(), &raw mut found))?;
        put(status, match found {
            0 => hipStreamCaptureStatus::hipStreamCaptureStatusNone,
            1 => hipStreamCaptureStatus::hipStreamCaptureStatusActive,
            _ => hipStreamCaptureStatus::hipStreamCaptureStatusInvalidated,
        })
    }

    fn hipThreadExchangeStreamCaptureMode(mode: *mut hipStreamCaptureMode) {
        if mode.is_null() {
            return Err(hipError_t::hipErrorInvalidValue);
        }
        // SAFETY: the caller's place, which holds a mode.
        let mut number = unsafe { mode.read() } as c_uint;
        cu!(cuThreadExchangeStreamCaptureMode(&raw mut number))?;
        put(mode, match number {
            0 => hipStreamCaptureMode::hipStreamCaptureModeGlobal,
            1 => hipStreamCaptureMode::hipStreamCaptureModeThreadLocal,
            _ => hipStreamCaptureMode::hipStreamCaptureModeRelaxed,
        })
    }
}
