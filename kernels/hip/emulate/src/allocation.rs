//! The device's memory: the host's, with guards and poison.

use std::alloc::{Layout, alloc, dealloc};
use std::collections::BTreeMap;
use std::slice;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use crate::status::{Outcome, Status};

/// What fresh and freed memory holds.
const POISON: u8 = 0xff;
const GUARD: u8 = 0x5a;
const GUARD_BYTES: usize = 256;
const ALIGN_BYTES: usize = 256;
const DEVICE_BYTES: usize = 4 << 30;

/// The device's memory.
pub(crate) static DEVICE: LazyLock<Mutex<Memory>> = LazyLock::new(|| {
    let asked = std::env::var("HEARTH_EMULATE_MEMORY").ok();
    Mutex::new(Memory {
        total_bytes: asked
            .and_then(|asked| asked.parse().ok())
            .unwrap_or(DEVICE_BYTES),
        used_bytes: 0,
        guard_bytes: if under_address_sanitizer() {
            0
        } else {
            GUARD_BYTES
        },
        allocations: BTreeMap::new(),
    })
});

/// Allocations by the address that was handed out.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) total_bytes: usize,
    pub(crate) used_bytes: usize,
    /// The sanitizer guards what the allocator gives: no guard of ours lies between then.
    guard_bytes: usize,
    allocations: BTreeMap<usize, Allocation>,
}

/// One allocation: guard, bytes, guard.
#[derive(Debug)]
struct Allocation {
    /// Where the first guard begins.
    start: *mut u8,
    layout: Layout,
    bytes: usize,
}

// SAFETY: the memory belongs to no thread; it is touched under the lock of `DEVICE` or by the work that runs.
unsafe impl Send for Allocation {}

impl Memory {
    pub(crate) fn allocate(&mut self, bytes: usize) -> Result<usize, Status> {
        let wanted = bytes
            .checked_add(2 * self.guard_bytes)
            .ok_or(Status::OutOfMemory)?;
        if bytes == 0 {
            return Err(Status::InvalidValue);
        }
        if bytes > self.total_bytes - self.used_bytes {
            return Err(Status::OutOfMemory);
        }
        let layout =
            Layout::from_size_align(wanted, ALIGN_BYTES).map_err(|_| Status::OutOfMemory)?;
        // SAFETY: the layout is not empty.
        let start = unsafe { alloc(layout) };
        if start.is_null() {
            return Err(Status::OutOfMemory);
        }
        // SAFETY: all of what was just allocated.
        unsafe { start.write_bytes(GUARD, wanted) };
        let address = start.wrapping_add(self.guard_bytes);
        // SAFETY: between the guards.
        unsafe { address.write_bytes(POISON, bytes) };
        self.used_bytes += bytes;
        let allocation = Allocation {
            start,
            layout,
            bytes,
        };
        self.allocations.insert(address.addr(), allocation);
        Ok(address.addr())
    }

    pub(crate) fn free(&mut self, address: usize) -> Outcome {
        let allocation = self
            .allocations
            .remove(&address)
            .ok_or(Status::InvalidValue)?;
        self.used_bytes -= allocation.bytes;
        // SAFETY: all of the allocation, which nothing uses any more. Poisoned, so that a stale pointer reads nonsense until the allocator gives it away again.
        unsafe {
            allocation
                .start
                .write_bytes(POISON, allocation.layout.size())
        };
        // SAFETY: allocated with this layout, and freed once: it was in the map.
        unsafe { dealloc(allocation.start, allocation.layout) };
        Ok(())
    }

    /// The allocation that has all of a range: its first address and its length.
    pub(crate) fn around(&self, address: usize, bytes: usize) -> Result<(usize, usize), Status> {
        let below = self.allocations.range(..=address).next_back();
        let (&first, allocation) = below.ok_or(Status::InvalidValue)?;
        let end = address.checked_add(bytes).ok_or(Status::InvalidValue)?;
        if end > first + allocation.bytes {
            return Err(Status::InvalidValue);
        }
        Ok((first, allocation.bytes))
    }

    /// An allocation one of whose guards was written over: its first address, its length, and whether it was the guard behind it.
    pub(crate) fn broken(&self) -> Option<(usize, usize, bool)> {
        self.allocations.iter().find_map(|(&address, allocation)| {
            let behind = self.guard_bytes + allocation.bytes;
            [0, behind].iter().find_map(|&at| {
                // SAFETY: a guard of a live allocation.
                let guard = unsafe {
                    slice::from_raw_parts(allocation.start.wrapping_add(at), self.guard_bytes)
                };
                let broken = guard.iter().any(|&byte| byte != GUARD);
                broken.then_some((address, allocation.bytes, at > 0))
            })
        })
    }
}

/// The device's memory, for as long as the guard lives.
pub(crate) fn device() -> MutexGuard<'static, Memory> {
    DEVICE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn under_address_sanitizer() -> bool {
    // SAFETY: a name, and the handle that stands for the whole process.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__asan_init".as_ptr()) };
    !found.is_null()
}
