//! Page-locked memory of the host: the only kind that copies take.

use std::ffi::c_void;
use std::fmt;
use std::slice;
use std::sync::Arc;

use memmap2::MmapMut;

use super::{Event, Gpu, Keep};
use crate::hip::HipError;

/// A page-locked buffer. Allocating one costs about half a millisecond per mebibyte: they are made once and used again.
pub struct Pinned {
    gpu: Arc<Gpu>,
    address: *mut u8,
    len: usize,
    /// The memory, where it is the process's own and only locked by HIP.
    own: Option<MmapMut>,
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
            own: None,
        })
    }

    /// As [`Pinned::allocate`], of zeros, for large buffers that several threads allocate at once. Most of the time goes into getting the pages, which each thread does here for itself; HIP allocates in
    /// turn. (24 buffers of 4 MiB by 8 threads: 12 ms, and 40 to 60 ms the other way.)
    ///
    /// # Errors
    /// [`HipError::HostMemory`], or the call that failed.
    pub fn allocate_large(gpu: &Arc<Gpu>, len: usize) -> Result<Pinned, HipError> {
        let table = gpu.table()?;
        let mut own =
            MmapMut::map_anon(len.max(1)).map_err(|_| HipError::HostMemory { bytes: len })?;
        // A page is there once it was written to.
        own.fill(0);
        let address = own.as_mut_ptr();
        // SAFETY: the map is anonymous and begins a page; it is unmapped after it was unregistered.
        unsafe { table.host_register(address.cast(), own.len()) }?;
        Ok(Pinned {
            gpu: gpu.clone(),
            address,
            len,
            own: Some(own),
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
        // SAFETY: `len` bytes that HIP allocated or that `own` maps, alive while `self` is, written by nobody while this borrow lasts: a copy under way would own this value.
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
        let Ok(table) = self.gpu.table() else {
            return;
        };
        let _ = match self.own {
            // SAFETY: the address is `host_malloc`'s and is freed here alone; an `InFlight` holds this value until its copy is done.
            None => unsafe { table.host_free(self.address.cast()) },
            // SAFETY: it was registered when it was made and is unregistered here alone; for copies as above.
            Some(_) => unsafe { table.host_unregister(self.address.cast()) },
        };
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
