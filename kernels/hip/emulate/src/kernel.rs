//! A kernel of the host library, and running it.

use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use libloading::os::unix::Library;

use crate::allocation::device;
use crate::device::{BLOCK_THREADS_MAX, GRID_YZ_MAX, SHARED_BYTES, SHARED_BYTES_MAX};
use crate::status::{Outcome, Status, fail};

/// What the host library exports for each kernel: `HostKernel` of `fibers.h`.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct HostKernel {
    body: Option<unsafe extern "C" fn(*const c_void)>,
    /// Size of the one structure that the kernel takes.
    args_bytes: u32,
    /// Threads of a block, at most.
    threads_max: u32,
}

/// `hearth_run` of `fibers.h`: runs one launch and returns when it is complete.
pub(crate) type Run = unsafe extern "C" fn(
    kernel: *const HostKernel,
    args: *const c_void,
    blocks: *const u32,
    threads: *const u32,
    shared_bytes: u32,
);

/// A kernel that somebody asked a module for.
#[derive(Debug)]
pub(crate) struct Kernel {
    name: String,
    entry: *const HostKernel,
    run: Run,
    /// Dynamic shared memory that a launch may ask for.
    pub(crate) shared_limit: AtomicUsize,
    #[expect(
        dead_code,
        reason = "keeps the library open that `entry` and `run` point into"
    )]
    library: Arc<Library>,
}

// SAFETY: the entry is a constant of the library, and `run` is callable from any thread.
unsafe impl Send for Kernel {}
// SAFETY: as above.
unsafe impl Sync for Kernel {}

/// A launch with its arguments copied.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    kernel: Arc<Kernel>,
    /// Words, so that the structure of the arguments is aligned.
    args: Vec<u128>,
    blocks: [u32; 3],
    threads: [u32; 3],
    shared_bytes: u32,
}

impl Kernel {
    pub(crate) fn new(
        name: String,
        entry: *const HostKernel,
        run: Run,
        library: Arc<Library>,
    ) -> Kernel {
        Kernel {
            name,
            entry,
            run,
            shared_limit: AtomicUsize::new(SHARED_BYTES),
            library,
        }
    }

    fn entry(&self) -> &HostKernel {
        // SAFETY: a constant of a library that is open while `self` lives.
        unsafe { &*self.entry }
    }

    pub(crate) fn threads_max(&self) -> u32 {
        self.entry().threads_max
    }

    pub(crate) fn raise_shared_limit(&self, bytes: usize) -> Outcome {
        if bytes > SHARED_BYTES_MAX {
            return Err(Status::InvalidValue);
        }
        self.shared_limit.store(bytes, Ordering::Relaxed);
        Ok(())
    }
}

impl Launch {
    /// Checks the sizes as a driver does, and copies the one argument.
    pub(crate) fn new(
        kernel: Arc<Kernel>,
        blocks: [u32; 3],
        threads: [u32; 3],
        shared_bytes: u32,
        argument: *const c_void,
    ) -> Result<Launch, Status> {
        let block_threads = threads
            .iter()
            .try_fold(1u32, |product, &n| product.checked_mul(n));
        let block_threads = block_threads.ok_or(Status::InvalidValue)?;
        let empty = blocks.contains(&0) || block_threads == 0;
        let too_wide = blocks[1] > GRID_YZ_MAX || blocks[2] > GRID_YZ_MAX;
        let too_much = shared_bytes as usize > kernel.shared_limit.load(Ordering::Relaxed);
        if empty || too_wide || too_much || block_threads > BLOCK_THREADS_MAX || argument.is_null()
        {
            return Err(Status::InvalidValue);
        }
        if block_threads > kernel.threads_max() {
            return Err(Status::LaunchOutOfResources);
        }
        let bytes = kernel.entry().args_bytes as usize;
        let mut args = vec![0u128; bytes.div_ceil(size_of::<u128>())];
        // SAFETY: the caller's argument is as long as the kernel says; the words have at least that many bytes.
        unsafe {
            args.as_mut_ptr()
                .cast::<u8>()
                .copy_from_nonoverlapping(argument.cast(), bytes)
        };
        Ok(Launch {
            kernel,
            args,
            blocks,
            threads,
            shared_bytes,
        })
    }

    pub(crate) fn run(&self) {
        let kernel = &self.kernel;
        // SAFETY: the library's own function and constant, while it is open; arguments, blocks and threads were checked and outlive the call. What the kernel does is the caller's business.
        unsafe {
            (kernel.run)(
                kernel.entry,
                self.args.as_ptr().cast(),
                self.blocks.as_ptr(),
                self.threads.as_ptr(),
                self.shared_bytes,
            );
        };
        if let Some((address, bytes, behind)) = device().broken() {
            let side = if behind { "behind" } else { "before" };
            fail(&format!(
                "kernel {} with blocks {:?} of {:?} threads wrote {side} the {bytes} bytes at {address:#x}",
                kernel.name, self.blocks, self.threads
            ));
        }
    }
}
