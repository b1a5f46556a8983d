//! Modules: the host library of the kernels, loaded from its bytes.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::{fs, process, slice};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::device::SHARED_BYTES;
use crate::exports;
use crate::handles::{Handle, Handles};
use crate::kernel::{HostKernel, Kernel, Launch, Run};
use crate::status::{Status, put};
use crate::stream;
use crate::work::{self, Work};

static MODULES: Handles<Module> = Handles::new(0x10_0000_0000);
static FUNCTIONS: Handles<Arc<Kernel>> = Handles::new(0x20_0000_0000);

/// CUDA's numbers of a function's attributes.
const THREADS_MAX: c_int = 0;
const STATIC_SHARED_BYTES: c_int = 1;
const MAX_DYNAMIC_SHARED_BYTES: c_int = 8;

#[derive(Debug)]
struct Module {
    library: Arc<Library>,
    run: Run,
    #[expect(
        dead_code,
        reason = "keeps the library's path good: a report's symbolizer, a process of its own, opens it"
    )]
    file: Option<OwnedFd>,
}

impl Module {
    /// Opens the library at `path`, which leads to `file` if that is given.
    fn open(path: &Path, file: Option<OwnedFd>) -> Result<Module, Status> {
        // SAFETY: opening runs constructors: those of the kernels' host library, which the caller made.
        let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) };
        let library = library.map_err(|_| Status::InvalidImage)?;
        // SAFETY: the signature is the one that `fibers.h` declares.
        let run = unsafe { library.get::<Run>(b"hearth_run\0") };
        let run = *run.map_err(|_| Status::InvalidImage)?;
        Ok(Module {
            library: Arc::new(library),
            run,
            file,
        })
    }

    fn kernel(&self, name: &str) -> Result<Kernel, Status> {
        // SAFETY: what `fibers.h` exports under this name is a `HostKernel`.
        let entry = unsafe {
            self.library
                .get::<*const HostKernel>(format!("hearth_kernel_{name}\0").as_bytes())
        };
        let entry = entry.map_err(|_| Status::NotFound)?.into_raw();
        Ok(Kernel::new(
            name.to_owned(),
            entry.cast_const().cast(),
            self.run,
            self.library.clone(),
        ))
    }
}

/// Length of a shared object that lies in memory: where its table of sections ends.
///
/// # Safety
/// `image` points to a whole shared object, or to at least 64 bytes of something else.
unsafe fn object_bytes(image: *const u8) -> Result<usize, Status> {
    // SAFETY: the caller's word.
    let header = unsafe { slice::from_raw_parts(image, 64) };
    if header[..5] != *b"\x7fELF\x02" {
        return Err(Status::InvalidImage);
    }
    let number = |at: usize, len: usize| {
        let mut bytes = [0; 8];
        bytes[..len].copy_from_slice(&header[at..at + len]);
        usize::try_from(u64::from_le_bytes(bytes)).unwrap_or(usize::MAX)
    };
    let (table, entry_bytes, entries) = (number(0x28, 8), number(0x3a, 2), number(0x3c, 2));
    table
        .checked_add(entry_bytes * entries)
        .ok_or(Status::InvalidImage)
}

/// A file in memory that holds the object.
fn as_file(object: &[u8]) -> Result<OwnedFd, Status> {
    let made = memfd_create(c"kernels", MFdFlags::MFD_CLOEXEC).map_err(|_| Status::OutOfMemory)?;
    let mut file = fs::File::from(made);
    file.write_all(object).map_err(|_| Status::OutOfMemory)?;
    Ok(file.into())
}

fn text<'a>(name: *const c_char) -> Result<&'a str, Status> {
    if name.is_null() {
        return Err(Status::InvalidValue);
    }
    // SAFETY: the caller's string, which ends in a zero.
    let name = unsafe { CStr::from_ptr(name) };
    name.to_str().map_err(|_| Status::InvalidValue)
}

exports! {
    fn cuModuleLoad(module: *mut Handle, path: *const c_char) {
        let path = Path::new(text(path)?);
        if !path.exists() {
            return Err(Status::FileNotFound);
        }
        put(module, MODULES.add(Module::open(path, None)?))
    }

    fn cuModuleLoadData(module: *mut Handle, image: *const c_void) {
        stream::refuse_while_recording()?;
        if image.is_null() {
            return Err(Status::InvalidValue);
        }
        // SAFETY: the caller's image.
        let bytes = unsafe { object_bytes(image.cast()) }?;
        // SAFETY: the image is a whole object, whose last part is its table of sections.
        let object = unsafe { slice::from_raw_parts(image.cast(), bytes) };
        let file = as_file(object)?;
        let path = format!("/proc/{}/fd/{}", process::id(), file.as_raw_fd());
        put(module, MODULES.add(Module::open(Path::new(&path), Some(file))?))
    }

    fn cuModuleUnload(module: Handle) {
        stream::refuse_while_recording()?;
        work::run_everything();
        MODULES.remove(module)
    }

    fn cuModuleGetFunction(function: *mut Handle, module: Handle, name: *const c_char) {
        let kernel = MODULES.get(module)?.kernel(text(name)?)?;
        put(function, FUNCTIONS.add(Arc::new(kernel)))
    }

    fn cuModuleGetGlobal_v2(_address: *mut u64, _bytes: *mut usize, _module: Handle, _name: *const c_char) {
        Err(Status::NotSupported)
    }

    fn cuFuncGetAttribute(value: *mut c_int, attribute: c_int, function: Handle) {
        let kernel = FUNCTIONS.get(function)?;
        let found = match attribute {
            THREADS_MAX => kernel.threads_max() as usize,
            // Block memory that a kernel declares is not counted on the host.
            STATIC_SHARED_BYTES => 0,
            MAX_DYNAMIC_SHARED_BYTES => kernel.shared_limit.load(Ordering::Relaxed),
            _ => return Err(Status::NotSupported),
        };
        put(value, c_int::try_from(found).unwrap_or(c_int::MAX))
    }

    fn cuFuncSetAttribute(function: Handle, attribute: c_int, value: c_int) {
        let kernel = FUNCTIONS.get(function)?;
        let value = usize::try_from(value).map_err(|_| Status::InvalidValue)?;
        if attribute != MAX_DYNAMIC_SHARED_BYTES {
            return Err(Status::NotSupported);
        }
        kernel.raise_shared_limit(value.max(SHARED_BYTES))
    }

    /// Arguments come as pointers, of which our kernels take one; packed lists are refused.
    fn cuLaunchKernel(
        function: Handle,
        grid_x: c_uint, grid_y: c_uint, grid_z: c_uint,
        block_x: c_uint, block_y: c_uint, block_z: c_uint,
        shared_bytes: c_uint,
        stream: Handle,
        arguments: *mut *mut c_void,
        extra: *mut *mut c_void
    ) {
        if arguments.is_null() || !extra.is_null() {
            return Err(Status::NotSupported);
        }
        let kernel = FUNCTIONS.get(function)?;
        // SAFETY: the caller's list, which has the kernel's one argument.
        let argument = unsafe { arguments.read() };
        let launch = Launch::new(
            (*kernel).clone(),
            [grid_x, grid_y, grid_z],
            [block_x, block_y, block_z],
            shared_bytes,
            argument,
        )?;
        stream::enqueue(stream, Work::Launch(launch))
    }

    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks: *mut c_int, function: Handle, block_threads: c_int, _shared_bytes: usize) {
        FUNCTIONS.get(function)?;
        put(blocks, 2048 / block_threads.clamp(32, 1024))
    }
}
