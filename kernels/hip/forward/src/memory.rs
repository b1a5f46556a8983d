//! Memory of the device and page-locked memory of the host.

use std::ffi::{c_uint, c_void};

use hip_runtime_sys::{hipDeviceptr_t, hipIpcMemHandle_t, hipStream_t};

use crate::cuda::{DevicePointer, IpcHandle};
use crate::driver::ready;
use crate::status::put;
use crate::{cu, exports, host_pointers};

/// Flags that mean the same in both: portable, mapped, write-combined (io memory for registering) and, for registering, read-only. The others are AMD's hints.
const HOST_FLAGS: c_uint = 0xf;

/// A device's address as CUDA has it.
pub(crate) fn number(pointer: *mut c_void) -> DevicePointer {
    pointer.addr() as DevicePointer
}

/// A device's address as HIP has it.
pub(crate) fn pointer(number: DevicePointer) -> *mut c_void {
    number as *mut c_void
}

exports! {
    fn hipMemGetInfo(free: *mut usize, total: *mut usize) {
        cu!(cuMemGetInfo(free, total))
    }

    fn hipMalloc(address: *mut *mut c_void, bytes: usize) {
        if bytes == 0 {
            return put(address, std::ptr::null_mut());
        }
        let mut found = 0;
        cu!(cuMemAlloc(&raw mut found, bytes))?;
        put(address, pointer(found))
    }

    fn hipFree(address: *mut c_void) {
        if address.is_null() {
            return Ok(());
        }
        cu!(cuMemFree(number(address)))
    }

    fn hipMallocAsync(address: *mut *mut c_void, bytes: usize, stream: hipStream_t) {
        let mut found = 0;
        cu!(cuMemAllocAsync(&raw mut found, bytes, stream.cast()))?;
        put(address, pointer(found))
    }

    fn hipFreeAsync(address: *mut c_void, stream: hipStream_t) {
        cu!(cuMemFreeAsync(number(address), stream.cast()))
    }

    fn hipMemGetAddressRange(base: *mut hipDeviceptr_t, bytes: *mut usize, address: hipDeviceptr_t) {
        let mut found = 0;
        cu!(cuMemGetAddressRange(&raw mut found, bytes, number(address)))?;
        put(base, pointer(found))
    }

    fn hipHostMalloc(address: *mut *mut c_void, bytes: usize, flags: c_uint) {
        let mut found = std::ptr::null_mut();
        cu!(cuMemHostAlloc(&raw mut found, bytes, flags & (HOST_FLAGS >> 1)))?;
        if ready()?.is_stand_in {
            host_pointers::add(found, bytes);
        }
        put(address, found)
    }

    fn hipHostFree(address: *mut c_void) {
        if address.is_null() {
            return Ok(());
        }
        host_pointers::remove(address);
        cu!(cuMemFreeHost(address))
    }

    fn hipHostRegister(address: *mut c_void, bytes: usize, flags: c_uint) {
        if ready()?.is_stand_in {
            host_pointers::refuse_file(address, bytes)?;
        }
        cu!(cuMemHostRegister(address, bytes, flags & HOST_FLAGS))?;
        if ready()?.is_stand_in {
            host_pointers::add(address, bytes);
        }
        Ok(())
    }

    fn hipHostUnregister(address: *mut c_void) {
        host_pointers::remove(address);
        cu!(cuMemHostUnregister(address))
    }

    fn hipHostGetDevicePointer(device: *mut *mut c_void, host: *mut c_void, flags: c_uint) {
        let mut found = 0;
        cu!(cuMemHostGetDevicePointer(&raw mut found, host, flags))?;
        put(device, pointer(found))
    }

    fn hipIpcGetMemHandle(handle: *mut hipIpcMemHandle_t, address: *mut c_void) {
        cu!(cuIpcGetMemHandle(handle.cast(), number(address)))
    }

    /// The flag for lazy access to peers is the same.
    fn hipIpcOpenMemHandle(address: *mut *mut c_void, handle: hipIpcMemHandle_t, flags: c_uint) {
        let mut found = 0;
        cu!(cuIpcOpenMemHandle(&raw mut found, IpcHandle(handle.reserved), flags))?;
        put(address, pointer(found))
    }

    fn hipIpcCloseMemHandle(address: *mut c_void) {
        cu!(cuIpcCloseMemHandle(number(address)))
    }
}
