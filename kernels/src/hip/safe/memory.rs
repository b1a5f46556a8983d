//! Device memory: chunks and views of them.

use std::ffi::c_void;
use std::ops::Range;
use std::sync::Arc;

use super::arena::Lent;
use super::{Gpu, Keep};
use crate::hip::HipError;

/// A chunk of device memory of its own. It is freed when nothing refers to it.
#[derive(Debug)]
pub struct Memory {
    gpu: Arc<Gpu>,
    address: usize,
    len: usize,
}

impl Memory {
    /// Allocates `len` bytes, aligned to 256. What they hold is unknown.
    ///
    /// # Errors
    /// The call that failed; [`HipError::is_out_of_memory`] says whether the device is full.
    pub fn allocate(gpu: &Arc<Gpu>, len: usize) -> Result<Arc<Memory>, HipError> {
        // No bytes would be no address.
        let address = gpu.table()?.malloc(len.max(1))?;
        Ok(Arc::new(Memory {
            gpu: gpu.clone(),
            address: address.addr(),
            len,
        }))
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

    /// The GPU that it lies on.
    #[must_use]
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // An error here says that the device has failed, which the next call reports; there is nobody to tell it to.
        if let Ok(table) = self.gpu.table() {
            // SAFETY: the address is `malloc`'s and is freed here alone. Every view holds this chunk, and streams hold the views of work that they have not passed.
            let _ = unsafe { table.free(self.address as *mut c_void) };
        }
    }
}

/// A range of a chunk, which it keeps alive. Clones and slices are the same bytes.
#[derive(Debug, Clone)]
pub struct View {
    part: Arc<Part>,
    /// From the start of the chunk.
    offset: usize,
    len: usize,
}

/// What a view and all its slices hold together: the chunk, and the range to give back to its arena when the last of them is gone.
#[derive(Debug)]
struct Part {
    memory: Arc<Memory>,
    #[expect(dead_code, reason = "held for its drop, which gives the range back")]
    lent: Option<Lent>,
}

impl View {
    /// All of a chunk.
    #[must_use]
    pub fn whole(memory: &Arc<Memory>) -> View {
        View {
            len: memory.len,
            offset: 0,
            part: Arc::new(Part {
                memory: memory.clone(),
                lent: None,
            }),
        }
    }

    /// A range that an arena lends. It lies within the chunk.
    pub(super) fn lent(memory: Arc<Memory>, range: Range<usize>, lent: Lent) -> View {
        View {
            offset: range.start,
            len: range.len(),
            part: Arc::new(Part {
                memory,
                lent: Some(lent),
            }),
        }
    }

    /// A range of this view's bytes, for the same chunk.
    ///
    /// # Errors
    /// [`HipError::Range`] if the range leaves the view.
    pub fn slice(&self, range: Range<usize>) -> Result<View, HipError> {
        if range.start > range.end || range.end > self.len {
            return Err(HipError::Range {
                what: "slice of device memory",
                start: range.start,
                end: range.end,
                len: self.len,
            });
        }
        Ok(View {
            part: self.part.clone(),
            offset: self.offset + range.start,
            len: range.len(),
        })
    }

    /// Where it lies in the device's memory. A number to people: only launches and copies that hold the view may use it.
    #[must_use]
    pub fn address(&self) -> usize {
        self.part.memory.address + self.offset
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

    /// The GPU that it lies on.
    #[must_use]
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.part.memory.gpu
    }

    /// The address as HIP takes it.
    pub(super) fn pointer(&self) -> *mut c_void {
        self.address() as *mut c_void
    }

    /// What a stream holds for this view.
    pub(super) fn keep(&self) -> Keep {
        self.part.clone()
    }
}
