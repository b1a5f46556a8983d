//! Copies and fills. Those that are not asynchronous have arrived when they return.

use std::ffi::{c_int, c_uchar, c_uint, c_ushort, c_void};
use std::ptr;

use hip_runtime_sys::{hipDeviceptr_t, hipError_t, hipMemcpyKind, hipStream_t};

use crate::cuda::Handle;
use crate::driver::ready;
use crate::memory::number;
use crate::status::Outcome;
use crate::{cu, exports, host_pointers};

/// The stream that functions without one use: it waits for, and holds up, all others that were not made otherwise.
const DEFAULT_STREAM: Handle = ptr::null_mut();

fn to_device(to: *mut c_void, from: *const c_void, bytes: usize, stream: Handle) -> Outcome {
    host_pointers::check(ready()?, from, bytes)?;
    cu!(cuMemcpyHtoDAsync(number(to), from, bytes, stream))
}

fn to_host(to: *mut c_void, from: *mut c_void, bytes: usize, stream: Handle) -> Outcome {
    host_pointers::check(ready()?, to, bytes)?;
    cu!(cuMemcpyDtoHAsync(to, number(from), bytes, stream))
}

fn by_kind(
    to: *mut c_void,
    from: *const c_void,
    bytes: usize,
    kind: hipMemcpyKind,
    stream: Handle,
) -> Outcome {
    match kind {
        hipMemcpyKind::hipMemcpyHostToDevice => to_device(to, from, bytes, stream),
        hipMemcpyKind::hipMemcpyDeviceToHost => to_host(to, from.cast_mut(), bytes, stream),
        hipMemcpyKind::hipMemcpyDeviceToDevice => {
            cu!(cuMemcpyDtoDAsync(
                number(to),
                number(from.cast_mut()),
                bytes,
                stream
            ))
        }
        // CUDA finds out from the addresses. On the stand-in nobody asks for it.
        _ if ready()?.is_stand_in => Err(hipError_t::hipErrorNotSupported),
        _ => cu!(cuMemcpyAsync(
            number(to),
            number(from.cast_mut()),
            bytes,
            stream
        )),
    }
}

fn wait_for(stream: Handle) -> Outcome {
    cu!(cuStreamSynchronize(stream))
}

exports! {
    fn hipMemcpy(to: *mut c_void, from: *const c_void, bytes: usize, kind: hipMemcpyKind) {
        by_kind(to, from, bytes, kind, DEFAULT_STREAM)?;
        wait_for(DEFAULT_STREAM)
    }

    fn hipMemcpyWithStream(to: *mut c_void, from: *const c_void, bytes: usize, kind: hipMemcpyKind, stream: hipStream_t) {
        by_kind(to, from, bytes, kind, stream.cast())?;
        wait_for(stream.cast())
    }

    fn hipMemcpyAsync(to: *mut c_void, from: *const c_void, bytes: usize, kind: hipMemcpyKind, stream: hipStream_t) {
        by_kind(to, from, bytes, kind, stream.cast())
    }

    fn hipMemcpyHtoD(to: hipDeviceptr_t, from: *mut c_void, bytes: usize) {
        to_device(to, from, bytes, DEFAULT_STREAM)?;
        wait_for(DEFAULT_STREAM)
    }

    fn hipMemcpyDtoH(to: *mut c_void, from: hipDeviceptr_t, bytes: usize) {
        to_host(to, from, bytes, DEFAULT_STREAM)?;
        wait_for(DEFAULT_STREAM)
    }

    fn hipMemcpyDtoD(to: hipDeviceptr_t, from: hipDeviceptr_t, bytes: usize) {
        cu!(cuMemcpyDtoDAsync(number(to), number(from), bytes, DEFAULT_STREAM))?;
        wait_for(DEFAULT_STREAM)
    }

    fn hipMemcpyHtoDAsync(to: hipDeviceptr_t, from: *mut c_void, bytes: usize, stream: hipStream_t) {
        to_device(to, from, bytes, stream.cast())
    }

    fn hipMemcpyDtoHAsync(to: *mut c_void, from: hipDeviceptr_t, bytes: usize, stream: hipStream_t) {
        to_host(to, from, bytes, stream.cast())
    }

    fn hipMemcpyDtoDAsync(to: hipDeviceptr_t, from: hipDeviceptr_t, bytes: usize, stream: hipStream_t) {
        cu!(cuMemcpyDtoDAsync(number(to), number(from), bytes, stream.cast()))
    }

    /// The value's lowest byte is what is written, as in C's `memset`.
    fn hipMemset(to: *mut c_void, value: c_int, bytes: usize) {
        cu!(cuMemsetD8Async(number(to), value.to_le_bytes()[0], bytes, DEFAULT_STREAM))?;
        wait_for(DEFAULT_STREAM)
    }

    fn hipMemsetAsync(to: *mut c_void, value: c_int, bytes: usize, stream: hipStream_t) {
        cu!(cuMemsetD8Async(number(to), value.to_le_bytes()[0], bytes, stream.cast()))
    }

    fn hipMemsetD8(to: hipDeviceptr_t, value: c_uchar, count: usize) {
        cu!(cuMemsetD8Async(number(to), value, count, DEFAULT_STREAM))?;
        wait_for(DEFAULT_STREAM)
    }

    fn hipMemsetD8Async(to: hipDeviceptr_t, value: c_uchar, count: usize, stream: hipStream_t) {
        cu!(cuMemsetD8Async(number(to), value, count, stream.cast()))
    }

    fn hipMemsetD16Async(to: hipDeviceptr_t, value: c_ushort, count: usize, stream: hipStream_t) {
        cu!(cuMemsetD16Async(number(to), value, count, stream.cast()))
    }

    fn hipMemsetD32Async(to: hipDeviceptr_t, value: c_int, count: usize, stream: hipStream_t) {
        let value: c_uint = value.cast_unsigned();
        cu!(cuMemsetD32Async(number(to), value, count, stream.cast()))
    }
}
