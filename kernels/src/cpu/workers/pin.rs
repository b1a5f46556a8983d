//! Which processors threads run on.

use std::io;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// What the calls take for the thread that makes them.
const THIS_THREAD: Pid = Pid::from_raw(0);

/// The processors that this thread may run on.
pub(super) fn allowed_processors() -> io::Result<Vec<usize>> {
    let allowed = sched_getaffinity(THIS_THREAD)?;
    Ok((0..CpuSet::count())
        .filter(|&processor| allowed.is_set(processor).unwrap_or(false))
        .collect())
}

/// Keeps this thread on one processor.
pub(super) fn pin_this_thread(processor: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(processor)?;
    Ok(sched_setaffinity(THIS_THREAD, &set)?)
}
