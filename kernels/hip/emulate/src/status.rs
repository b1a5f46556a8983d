//! The driver's answers.

use std::sync::atomic::{AtomicU32, Ordering};

/// What a function does: nothing to say, or the status that it returns.
pub(crate) type Outcome = Result<(), Status>;

/// A status that is not success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Status {
    InvalidValue = 1,
    OutOfMemory = 2,
    InvalidDevice = 101,
    InvalidImage = 200,
    FileNotFound = 301,
    InvalidHandle = 400,
    NotFound = 500,
    NotReady = 600,
    IllegalAddress = 700,
    LaunchOutOfResources = 701,
    NotSupported = 801,
    CaptureUnsupported = 900,
    CaptureUnmatched = 903,
}

/// Whether the device has failed. Nothing works after that, as on a GPU.
static FAULT: AtomicU32 = AtomicU32::new(0);

/// The value that a function returns.
pub(crate) fn returned(body: impl FnOnce() -> Outcome) -> u32 {
    let fault = FAULT.load(Ordering::Relaxed);
    if fault != 0 {
        return fault;
    }
    match body() {
        Ok(()) => FAULT.load(Ordering::Relaxed),
        Err(status) => status as u32,
    }
}

/// Marks the device as failed, and says why.
#[expect(
    clippy::print_stderr,
    reason = "a C library in CI has no other way to say which kernel it was"
)]
pub(crate) fn fail(why: &str) {
    eprintln!("emulate: {why}");
    FAULT.store(Status::IllegalAddress as u32, Ordering::Relaxed);
}

/// Writes to a place that the caller named, unless it named none.
pub(crate) fn put<T>(place: *mut T, value: T) -> Outcome {
    if place.is_null() {
        return Err(Status::InvalidValue);
    }
    // SAFETY: the caller gave a place for a value of this type.
    unsafe { place.write(value) };
    Ok(())
}
