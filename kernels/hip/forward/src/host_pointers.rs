//! Which host memory may be copied from and to while the stand-in is in the driver's place.
//!
//! A pointer into a mapped file makes the real HIP library lock the file's pages, which on AMD stops the queues of the whole device; other memory is copied in small pieces through the
//! library's own buffer. A serving engine wants neither, so in CI both are refused, each with a message that says which.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hip_runtime_sys::hipError_t;

use crate::driver::Driver;
use crate::status::Outcome;

/// Page-locked ranges by their start: allocated, or registered.
static LOCKED: Mutex<BTreeMap<usize, usize>> = Mutex::new(BTreeMap::new());

fn locked() -> MutexGuard<'static, BTreeMap<usize, usize>> {
    LOCKED.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn add(address: *mut c_void, bytes: usize) {
    locked().insert(address.addr(), bytes);
}

pub(crate) fn remove(address: *mut c_void) {
    locked().remove(&address.addr());
}

/// That a copy may use this range of the host's memory.
pub(crate) fn check(driver: &Driver, address: *const c_void, bytes: usize) -> Outcome {
    if !driver.is_stand_in || bytes == 0 {
        return Ok(());
    }
    let (start, end) = (address.addr(), address.addr().saturating_add(bytes));
    let below = locked()
        .range(..=start)
        .next_back()
        .map(|(&at, &len)| (at, at + len));
    if below.is_some_and(|(_, locked_end)| end <= locked_end) {
        return Ok(());
    }
    refuse_file(address, bytes)?;
    say(&format!(
        "a copy of {bytes} bytes at {address:p}, which is not page-locked"
    ));
    Err(hipError_t::hipErrorHostMemoryNotRegistered)
}

/// That no byte of a range lies in a mapped file.
pub(crate) fn refuse_file(address: *const c_void, bytes: usize) -> Outcome {
    let (start, end) = (address.addr(), address.addr().saturating_add(bytes));
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let Some(file) = maps.lines().find_map(|line| file_within(line, start, end)) else {
        return Ok(());
    };
    say(&format!(
        "{bytes} bytes at {address:p} lie in the mapped file {file}"
    ));
    Err(hipError_t::hipErrorInvalidValue)
}

/// The file of a line of `/proc/self/maps` whose range meets `start..end`. Names in brackets are no files, nor is what has no name.
fn file_within(line: &str, start: usize, end: usize) -> Option<&str> {
    let mut fields = line.split_ascii_whitespace();
    let (from, to) = fields.next()?.split_once('-')?;
    let from = usize::from_str_radix(from, 16).ok()?;
    let to = usize::from_str_radix(to, 16).ok()?;
    let file = line.find('/').map(|at| &line[at..])?;
    (from < end && start < to).then_some(file)
}

#[expect(
    clippy::print_stderr,
    reason = "a C library in CI has no other way to say what it refuses"
)]
fn say(what: &str) {
    eprintln!("forward: refused {what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_from_memory() {
        let file = "7f0000000000-7f0000002000 r--s 00000000 08:01 42     /srv/models/a b.gguf";
        assert_eq!(
            file_within(file, 0x7f00_0000_1fff, 0x7f00_0000_2001),
            Some("/srv/models/a b.gguf")
        );
        assert_eq!(file_within(file, 0x7f00_0000_2000, 0x7f00_0000_2001), None);
        for memory in [
            "7f0000000000-7f0000002000 rw-p 00000000 00:00 0",
            "7f0000000000-7f0000002000 rw-p 00000000 00:00 0 [heap]",
        ] {
            assert_eq!(
                file_within(memory, 0x7f00_0000_0000, 0x7f00_0000_2000),
                None
            );
        }
    }

    #[test]
    fn this_programs_own_code_is_a_file() {
        let code = files_are_told_from_memory as *const c_void;
        assert_eq!(refuse_file(code, 1), Err(hipError_t::hipErrorInvalidValue));
        let heap = Box::new(0u8);
        assert_eq!(refuse_file((&raw const *heap).cast(), 1), Ok(()));
    }
}
