//! Copies and fills. Ranges on the device must lie in one allocation; those on the host are what the caller says.

use std::ffi::{c_uint, c_void};

use crate::allocation::device;
use crate::exports;
use crate::handles::Handle;
use crate::memory::number;
use crate::status::{Outcome, Status};
use crate::stream::enqueue;
use crate::work::Work;

fn fill(to: u64, pattern: [u8; 4], pattern_bytes: usize, count: usize, stream: Handle) -> Outcome {
    let to = number(to);
    let bytes = count
        .checked_mul(pattern_bytes)
        .ok_or(Status::InvalidValue)?;
    device().around(to, bytes)?;
    enqueue(
        stream,
        Work::Fill {
            to,
            pattern,
            pattern_bytes,
            count,
        },
    )
}

exports! {
    fn cuMemcpyAsync(_to: u64, _from: u64, _bytes: usize, _stream: Handle) {
        Err(Status::NotSupported)
    }

    fn cuMemcpyHtoDAsync_v2(to: u64, from: *const c_void, bytes: usize, stream: Handle) {
        let (to, from) = (number(to), from.addr());
        device().around(to, bytes)?;
        enqueue(stream, Work::Copy { to, from, bytes })
    }

    fn cuMemcpyDtoHAsync_v2(to: *mut c_void, from: u64, bytes: usize, stream: Handle) {
        let (to, from) = (to.addr(), number(from));
        device().around(from, bytes)?;
        enqueue(stream, Work::Copy { to, from, bytes })
    }

    fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: Handle) {
        let (to, from) = (number(to), number(from));
        device().around(to, bytes)?;
        device().around(from, bytes)?;
        enqueue(stream, Work::Copy { to, from, bytes })
    }

    fn cuMemsetD8Async(to: u64, value: u8, count: usize, stream: Handle) {
        fill(to, [value; 4], 1, count, stream)
    }

    fn cuMemsetD16Async(to: u64, value: u16, count: usize, stream: Handle) {
        let [low, high] = value.to_le_bytes();
        fill(to, [low, high, low, high], 2, count, stream)
    }

    fn cuMemsetD32Async(to: u64, value: c_uint, count: usize, stream: Handle) {
        fill(to, value.to_le_bytes(), 4, count, stream)
    }
}
