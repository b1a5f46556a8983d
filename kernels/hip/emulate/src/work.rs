//! What is enqueued, and running it.

use std::ffi::c_void;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use crate::event::Point;
use crate::kernel::Launch;
use crate::stream::{Stream, all_streams};

/// One piece of work. A recorded graph is a list of these, which is cloned for each launch.
#[derive(Debug, Clone)]
pub(crate) enum Work {
    Launch(Launch),
    /// Ranges that were checked when this was enqueued.
    Copy {
        to: usize,
        from: usize,
        bytes: usize,
    },
    /// `pattern` again and again.
    Fill {
        to: usize,
        pattern: [u8; 4],
        pattern_bytes: usize,
        count: usize,
    },
    /// What is behind it waits for a point of another stream.
    Wait(Point),
    /// The point itself.
    Pass(Point),
    Call(HostCall),
}

/// A function of the host that the stream calls.
#[derive(Debug, Clone)]
pub(crate) struct HostCall {
    pub(crate) function: unsafe extern "C" fn(*mut c_void),
    /// The address that it is given, for whichever thread calls it.
    pub(crate) data: usize,
}

/// The right to run work: one piece at a time on the whole device. Without it two threads that wait for each other's streams would wait forever.
static RUNNING: Mutex<()> = Mutex::new(());

/// Held while work runs.
pub(crate) struct Running(#[expect(dead_code, reason = "held")] MutexGuard<'static, ()>);

impl Running {
    /// Waits for its turn.
    pub(crate) fn begin() -> Running {
        Running(RUNNING.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// `None` while somebody else runs work.
    pub(crate) fn try_begin() -> Option<Running> {
        match RUNNING.try_lock() {
            Ok(guard) => Some(Running(guard)),
            Err(TryLockError::Poisoned(poisoned)) => Some(Running(poisoned.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Runs a stream's work, in order, until `until` says so or there is none.
    pub(crate) fn run(&self, stream: &Stream, until: impl Fn() -> bool) {
        while !until() {
            let Some(work) = stream.next() else {
                return;
            };
            self.run_one(work);
        }
    }

    pub(crate) fn run_one(&self, work: Work) {
        match work {
            Work::Launch(launch) => launch.run(),
            Work::Copy { to, from, bytes } => {
                // SAFETY: both ranges were live when this was enqueued, and freeing memory runs all work first. The caller says that they do not overlap, or wants what `memmove` does.
                unsafe { (to as *mut u8).copy_from(from as *const u8, bytes) };
            }
            Work::Fill {
                to,
                pattern,
                pattern_bytes,
                count,
            } => {
                if pattern_bytes == 1 {
                    // SAFETY: the range was checked when this was enqueued.
                    unsafe { (to as *mut u8).write_bytes(pattern[0], count) };
                    return;
                }
                for at in 0..count {
                    let place = (to + at * pattern_bytes) as *mut u8;
                    // SAFETY: as above, within the range that was checked.
                    unsafe { place.copy_from_nonoverlapping(pattern.as_ptr(), pattern_bytes) };
                }
            }
            Work::Wait(point) => self.pass(&point),
            Work::Pass(point) => point.reach(),
            Work::Call(HostCall { function, data }) => {
                // SAFETY: the caller's function with the caller's data.
                unsafe { function(data as *mut c_void) };
            }
        }
    }

    /// Runs what lies before a point.
    pub(crate) fn pass(&self, point: &Point) {
        self.run(&point.stream(), || point.is_reached());
    }
}

/// Runs all that was enqueued anywhere.
pub(crate) fn run_everything() {
    let running = Running::begin();
    for stream in all_streams() {
        running.run(&stream, || false);
    }
}

/// Runs all of one stream.
pub(crate) fn run_stream(stream: &Arc<Stream>) {
    Running::begin().run(stream, || false);
}
