//! Page-locked memory of the host: the only kind that copies take.

use std::ffi::c_void;
use std::fmt;
use std::slice;
use std::sync::Arc;

use super::{Event, Gpu, Keep};
use crate::hip::HipError;

/// A page-locked buffer. Allocating one costs about half a millisecond per mebibyte: they are made once and used again.
pub struct Pinned {
    gpu: Arc<Gpu>,
    address: *mut u8,
    len: usize,
}

// SAFETY: the memory belongs to no thread. This value alone reads or writes it, under Rust's rules for `&` and `&mut`; the device does so while the value is inside an `InFlight`, which gives no
// access.
unsafe impl Send for Pinned {}
// SAFETY: as above; a shared buffer is only read.
unsafe impl Sync for Pinned {}

impl Pinned {
    /// Allocates `len` bytes. What they hold is unknown.
    ///
    /// # Errors
    /// The call that failed.
    pub fn allocate(gpu: &Arc<Gpu>, len: usize) -> Result<Pinned, HipError> {
        let address = gpu.table()?.host_malloc(len.max(1))?;
        Ok(Pinned {
            gpu: gpu.clone(),
            address: address.cast(),
            len,
        })
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `len` bytes that HIP allocated, alive while `self` is, written by nobody while this borrow lasts: a copy under way would own this value.
        unsafe { slice::from_raw_parts(self.address, self.len) }
    }

    /// The bytes, to write.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed alone.
        unsafe { slice::from_raw_parts_mut(self.address, self.len) }
    }

    pub(super) fn pointer(&self) -> *mut c_void {
        self.address.cast()
    }
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pinned").field("len", &self.len()).finish()
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // As for device memory: an error says that the device has failed, and there is nobody to tell it to.
        if let Ok(table) = self.gpu.table() {
            // SAFETY: the address is `host_malloc`'s and is freed here alone; an `InFlight` holds this value until its copy is done.
            let _ = unsafe { table.host_free(self.address.cast()) };
        }
    }
}

/// A buffer that a copy reads or writes, and the device memory on the other side. It comes back when the copy is done.
///
/// Dropping it waits for the copy: neither side may go before.
#[derive(Debug)]
pub struct InFlight {
    /// There until it is given back.
    pinned: Option<Pinned>,
    #[expect(dead_code, reason = "held while the copy is under way")]
    other: Keep,
    done: Event,
}

impl InFlight {
    /// Made before the copy is enqueued, so that nothing can fail between the two but the copy itself.
    pub(super) fn new(pinned: Pinned, other: Keep, done: Event) -> InFlight {
        InFlight {
            pinned: Some(pinned),
            other,
            done,
        }
    }

    /// The event that is recorded behind the copy.
    pub(super) fn done(&self) -> &Event {
        &self.done
    }

    /// Whether the copy is done, so that [`InFlight::wait`] will not wait.
    ///
    /// # Errors
    /// What the device failed with.
    pub fn is_done(&self) -> Result<bool, HipError> {
        self.done.query()
    }

    /// Waits for the copy and gives the buffer back.
    ///
    /// # Errors
    /// What the device failed with; the buffer is lost then.
    pub fn wait(mut self) -> Result<Pinned, HipError> {
        self.done.synchronize()?;
        Ok(self
            .pinned
            .take()
            .expect("given back once, as this value goes"))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.pinned.is_some() {
            // A device that has failed copies nothing any more.
            let _ = self.done.synchronize();
        }
    }
}
