//! What is refused, and how it is said.

#![expect(
    unsafe_code,
    reason = "calls the library's functions by hand, with pointers that the safe types never hand out"
)]

use std::ffi::{c_int, c_void};
use std::ptr;

use kernels::hip::{Args, Gpu, Grid, HipError, Library, Module, Pinned, image_for};
use libloading::os::unix::Library as Opened;

use super::support::{gpu, library_path, memory, on_stand_in, stream};

#[test]
fn a_device_that_is_not_there_is_counted() {
    let library = Library::open(Some(&library_path())).expect("opened");
    let refused = Gpu::open(&library, 99).expect_err("not a hundred devices");
    assert!(refused.is_no_gpu());
    assert!(
        refused.to_string().starts_with("no GPU 99: there are "),
        "{refused}"
    );
}

#[test]
fn an_image_of_something_else_is_refused() {
    // SAFETY: nothing of it is run, since it is refused.
    let refused = unsafe { Module::load(&gpu(), &[0u8; 4096]) };
    assert!(
        matches!(
            refused,
            Err(HipError::Call {
                call: "hipModuleLoadData",
                ..
            })
        ),
        "{refused:?}"
    );
}

#[test]
fn ranges_that_do_not_meet_are_refused() {
    let (stream, view) = (stream(), memory(100));
    let pinned = || Pinned::allocate(&gpu(), 100).expect("pinned memory");
    for range in [0..99, 1..101, 50..40] {
        let refused = stream.upload(pinned(), range.clone(), &view);
        assert!(matches!(refused, Err(HipError::Range { .. })), "{range:?}");
        let refused = stream.download(&view, pinned(), range.clone());
        assert!(matches!(refused, Err(HipError::Range { .. })), "{range:?}");
    }
}

type CopyToDevice = unsafe extern "C" fn(*mut c_void, *const c_void, usize, *mut c_void) -> u32;
type Register = unsafe extern "C" fn(*mut c_void, usize, u32) -> u32;
type SetDevice = unsafe extern "C" fn(c_int) -> u32;

/// A function of the library under test, by its name.
fn function<T: Copy>(name: &str) -> T {
    // SAFETY: opened before by `Library::open`, as the same library.
    let opened = unsafe { Opened::open(Some(library_path()), libloading::os::unix::RTLD_NOW) };
    let opened = opened.expect("opened");
    // SAFETY: the types above are HIP's signatures.
    let symbol = unsafe { opened.get::<T>(name.as_bytes()) };
    let found = *symbol.expect("HIP has it");
    std::mem::forget(opened);
    found
}

/// The planted violation: on AMD such a copy would lock the file's pages and stop the queues of the device.
#[test]
fn the_stand_in_refuses_pointers_into_files_and_unpinned_memory() {
    if !on_stand_in() {
        return;
    }
    const INVALID_VALUE: u32 = 1;
    const HOST_MEMORY_NOT_REGISTERED: u32 = 713;
    let view = memory(16);
    let to = || view.address() as *mut c_void;
    let set_device = function::<SetDevice>("hipSetDevice");
    // SAFETY: HIP's signature; device 0 is there.
    assert_eq!(unsafe { set_device(0) }, 0);
    let copy = function::<CopyToDevice>("hipMemcpyHtoDAsync");
    // This program's own code is a mapped file.
    let file = library_path as *const c_void;
    // SAFETY: HIP's signature and ranges of sixteen bytes; refused before it is enqueued.
    let refused = unsafe { copy(to(), file, 16, ptr::null_mut()) };
    assert_eq!(refused, INVALID_VALUE, "a pointer into a file");
    let heap = Box::new([0u8; 16]);
    // SAFETY: as above.
    let refused = unsafe { copy(to(), heap.as_ptr().cast(), 16, ptr::null_mut()) };
    assert_eq!(refused, HOST_MEMORY_NOT_REGISTERED, "memory of the heap");
    let register = function::<Register>("hipHostRegister");
    // SAFETY: HIP's signature; refused before anything is done.
    let refused = unsafe { register(file.cast_mut(), 16, 0) };
    assert_eq!(refused, INVALID_VALUE, "registering a file's pages");
}

#[test]
fn kernels_that_are_not_there_are_named() {
    let stream = stream();
    let image = image_for(gpu().architecture()).expect("this build has an image for the device");
    // SAFETY: this build's own kernels.
    let module = unsafe { Module::load(&gpu(), image) }.expect("loaded");
    let refused = module.function("no_such_kernel").expect_err("not there");
    assert!(
        matches!(
            refused,
            HipError::Call {
                call: "hipModuleGetFunction",
                ..
            }
        ),
        "{refused}"
    );
    let refused = module.function("a\0b").expect_err("not a name");
    assert!(matches!(refused, HipError::Name { .. }));
    let add = module.function("add").expect("a kernel");
    let grid = Grid {
        blocks: [1, 1, 1],
        threads: [1 << 20, 1, 1],
        shared_bytes: 0,
    };
    // SAFETY: refused before it runs: no device has blocks of so many threads.
    let refused = unsafe { stream.launch(&add, grid, Args::new().value([0u64; 16])) };
    assert!(
        matches!(
            refused,
            Err(HipError::Call {
                call: "hipModuleLaunchKernel",
                ..
            })
        ),
        "{refused:?}"
    );
}
