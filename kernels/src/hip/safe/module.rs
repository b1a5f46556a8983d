//! Kernels in an image, and what they are launched with.

use std::ffi::{CString, c_int, c_void};
use std::fmt;
use std::sync::Arc;

use bytemuck::NoUninit;
use hip_runtime_sys::{hipFunction_t, hipModule_t};

use super::{Gpu, Keep, View};
use crate::hip::HipError;

/// An image that was loaded onto a GPU. Clones are the same module.
#[derive(Debug, Clone)]
pub struct Module {
    loaded: Arc<Loaded>,
}

struct Loaded {
    gpu: Arc<Gpu>,
    handle: hipModule_t,
    /// The image: some libraries read parts of it only when a function is first asked for.
    #[expect(dead_code, reason = "held until the module is unloaded")]
    image: Vec<u64>,
}

// SAFETY: HIP's handles may be used on any thread, and by several at once.
unsafe impl Send for Loaded {}
// SAFETY: as above.
unsafe impl Sync for Loaded {}

impl Module {
    /// Loads an image: a code object or a bundle of them on AMD, a cubin or PTX text through the forwarding library, a shared object on the stand-in of CI.
    ///
    /// # Errors
    /// The call that failed, as for an image that has no code for this GPU.
    ///
    /// # Safety
    /// The image was made from this project's kernels: what it holds is run.
    pub unsafe fn load(gpu: &Arc<Gpu>, image: &[u8]) -> Result<Module, HipError> {
        let image = aligned(image);
        let table = gpu.table()?;
        // SAFETY: the image is whole by the caller's word, and stays where it is in `Loaded`: a vector's elements do not move with it.
        let handle = unsafe { table.module_load(image.as_ptr().cast()) }?;
        Ok(Module {
            loaded: Arc::new(Loaded {
                gpu: gpu.clone(),
                handle,
                image,
            }),
        })
    }

    /// A kernel of the image.
    ///
    /// # Errors
    /// [`HipError::Call`] if there is none of this name, [`HipError::Name`] if it cannot be one.
    pub fn function(&self, name: &str) -> Result<Function, HipError> {
        let c_name = CString::new(name).map_err(|_| HipError::Name {
            name: name.to_owned(),
        })?;
        let table = self.loaded.gpu.table()?;
        // SAFETY: the module is loaded while `self` lives.
        let handle = unsafe { table.module_function(self.loaded.handle, &c_name) }?;
        Ok(Function {
            module: self.loaded.clone(),
            handle,
        })
    }
}

/// A copy on whole words, with a zero after it: an object's header is aligned, and PTX text ends in one.
fn aligned(image: &[u8]) -> Vec<u64> {
    let mut words = vec![0u64; image.len() / 8 + 1];
    bytemuck::cast_slice_mut(&mut words)[..image.len()].copy_from_slice(image);
    words
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded")
            .field("gpu", &self.gpu.name())
            .finish()
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        if let Ok(table) = self.gpu.table() {
            // SAFETY: unloaded here alone; each function holds this value, and streams hold what they have not passed. An error says that the device has failed.
            let _ = unsafe { table.module_unload(self.handle) };
        }
    }
}

/// A kernel, which keeps its module loaded. Clones are the same kernel.
#[derive(Debug, Clone)]
pub struct Function {
    module: Arc<Loaded>,
    handle: hipFunction_t,
}

// SAFETY: HIP's handles may be used on any thread, and by several at once.
unsafe impl Send for Function {}
// SAFETY: as above.
unsafe impl Sync for Function {}

impl Function {
    /// How many blocks of this many threads and bytes of dynamic shared memory one multiprocessor holds at once.
    ///
    /// # Errors
    /// The call that failed.
    pub fn blocks_per_multiprocessor(
        &self,
        block_threads: u32,
        shared_bytes: u32,
    ) -> Result<usize, HipError> {
        let threads = c_int::try_from(block_threads).unwrap_or(c_int::MAX);
        let table = self.module.gpu.table()?;
        // SAFETY: the function is valid while its module is loaded.
        unsafe { table.occupancy(self.handle, threads, shared_bytes as usize) }
    }

    pub(super) fn handle(&self) -> hipFunction_t {
        self.handle
    }

    pub(super) fn keep(&self) -> Keep {
        self.module.clone()
    }
}

/// The size of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// Blocks in x, y and z.
    pub blocks: [u32; 3],
    /// Threads of a block in x, y and z.
    pub threads: [u32; 3],
    /// Dynamic shared memory of a block in bytes.
    pub shared_bytes: u32,
}

/// A kernel's arguments in their order.
///
/// Every argument is copied here with its alignment, and the launch is given a pointer to each: what HIP packs out of that is the kernel's own layout of parameters. Device memory is named by
/// its view alone, which the stream then keeps alive.
#[derive(Debug, Default)]
pub struct Args {
    /// The values; each begins on a slot of its own, so that any alignment is met.
    slots: Vec<Slot>,
    /// Index of each argument's first slot.
    starts: Vec<usize>,
    keep: Vec<Keep>,
}

/// Room and alignment for the largest vector that a kernel takes as an argument.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(16))]
struct Slot([u8; SLOT_BYTES]);

const SLOT_BYTES: usize = 16;

impl Args {
    /// No argument yet.
    #[must_use]
    pub fn new() -> Args {
        Args::default()
    }

    /// The address of a view.
    #[must_use]
    pub fn view(mut self, view: &View) -> Args {
        self.keep.push(view.keep());
        self.value(view.address())
    }

    /// The address of a view, or none: a null pointer.
    #[must_use]
    pub fn optional_view(self, view: Option<&View>) -> Args {
        match view {
            Some(view) => self.view(view),
            None => self.value(0usize),
        }
    }

    /// Keeps a view alive that the kernel reaches in another way, as through a table of addresses in device memory.
    #[must_use]
    pub fn holding(mut self, view: &View) -> Args {
        self.keep.push(view.keep());
        self
    }

    /// A number, or a structure of numbers that is laid out as the kernel's is.
    #[must_use]
    pub fn value<T: NoUninit>(mut self, value: T) -> Args {
        self.starts.push(self.slots.len());
        for part in bytemuck::bytes_of(&value).chunks(SLOT_BYTES) {
            let mut slot = Slot([0; SLOT_BYTES]);
            slot.0[..part.len()].copy_from_slice(part);
            self.slots.push(slot);
        }
        self
    }

    /// One pointer to each argument. They are good while `self` is not changed.
    pub(super) fn pointers(&mut self) -> Vec<*mut c_void> {
        let base: *mut Slot = self.slots.as_mut_ptr();
        let pointer = |&start: &usize| base.wrapping_add(start).cast();
        self.starts.iter().map(pointer).collect()
    }

    pub(super) fn take_keep(&mut self) -> Vec<Keep> {
        std::mem::take(&mut self.keep)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
    #[repr(C)]
    struct Wide {
        numbers: [u32; 5],
    }

    #[test]
    fn arguments_begin_on_slots_of_their_own() {
        let wide = Wide {
            numbers: [1, 2, 3, 4, 5],
        };
        let mut args = Args::new().value(7u8).value(wide).value(0.5f32);
        assert_eq!(args.starts, [0, 1, 3]);
        assert_eq!(args.slots[0].0[..2], [7, 0]);
        let second: [u8; 4] = args.slots[2].0[..4].try_into().expect("four bytes");
        assert_eq!(u32::from_le_bytes(second), 5);
        let pointers = args.pointers();
        assert_eq!(pointers.len(), 3);
        assert!(
            pointers
                .iter()
                .all(|pointer| pointer.addr() % SLOT_BYTES == 0)
        );
        assert_eq!(pointers[2].addr() - pointers[1].addr(), 2 * SLOT_BYTES);
    }

    #[test]
    fn an_image_is_followed_by_a_zero() {
        for len in [0, 1, 7, 8, 9] {
            let words = aligned(&vec![0xa5; len]);
            let bytes: &[u8] = bytemuck::cast_slice(&words);
            assert_eq!(bytes[..len], vec![0xa5; len]);
            assert_eq!(bytes[len], 0);
        }
    }
}
