//! The device under test, and bytes to and from it.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use bytemuck::Pod;
use kernels::hip::launch::Kernels;
use kernels::hip::{Gpu, Library, Memory, Pinned, Stream, View};

/// The device: one for all tests of the process.
static DEVICE: LazyLock<(Arc<Gpu>, Arc<Kernels>)> = LazyLock::new(|| {
    let library = Library::open(Some(&library_path())).expect("the library has a device");
    let gpu = Gpu::open(&library, 0).expect("the first device");
    let kernels = Kernels::load(&gpu).expect("this build has an image for the device");
    (gpu, Arc::new(kernels))
});

/// The HIP library that the run is about.
pub(crate) fn library_path() -> PathBuf {
    let path = std::env::var_os("HEARTH_HIP_LIBRARY");
    PathBuf::from(path.expect("HEARTH_HIP_LIBRARY names the HIP library to test"))
}

pub(crate) fn gpu() -> Arc<Gpu> {
    DEVICE.0.clone()
}

pub(crate) fn kernels() -> Arc<Kernels> {
    DEVICE.1.clone()
}

/// Whether the device is the stand-in: lazy streams, poisoned memory, refused pointers.
pub(crate) fn on_stand_in() -> bool {
    gpu().architecture() == "cpu"
}

pub(crate) fn stream() -> Stream {
    Stream::new(&gpu()).expect("a stream")
}

/// Device memory of `len` bytes of its own, so that a guard lies behind its last byte.
pub(crate) fn memory(len: usize) -> View {
    View::whole(&Memory::allocate(&gpu(), len).expect("memory"))
}

/// Numbers that were copied to the device.
pub(crate) fn uploaded<T: Pod>(numbers: &[T]) -> View {
    let bytes: &[u8] = bytemuck::cast_slice(numbers);
    let view = memory(bytes.len());
    let mut pinned = Pinned::allocate(&gpu(), bytes.len()).expect("pinned memory");
    pinned.bytes_mut().copy_from_slice(bytes);
    let stream = stream();
    let flight = stream.upload(pinned, 0..bytes.len(), &view);
    flight.expect("enqueued").wait().expect("copied");
    view
}

/// What a view holds once `stream` has done its work.
pub(crate) fn downloaded<T: Pod>(stream: &Stream, view: &View) -> Vec<T> {
    let pinned = Pinned::allocate(&gpu(), view.len()).expect("pinned memory");
    let flight = stream.download(view, pinned, 0..view.len());
    let pinned = flight.expect("enqueued").wait().expect("copied");
    let mut numbers = vec![T::zeroed(); view.len() / size_of::<T>()];
    bytemuck::cast_slice_mut(&mut numbers).copy_from_slice(pinned.bytes());
    numbers
}

/// Bytes that differ from place to place.
pub(crate) fn pattern(len: usize, seed: usize) -> Vec<u8> {
    let byte = |i: usize| (i.wrapping_mul(31).wrapping_add(seed) ^ (i >> 8)).to_le_bytes()[0];
    (0..len).map(byte).collect()
}
