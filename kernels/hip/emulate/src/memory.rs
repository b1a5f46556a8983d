//! Memory of the device and page-locked memory of the host.

use std::alloc::{Layout, alloc, dealloc};
use std::collections::BTreeMap;
use std::ffi::{c_char, c_uint, c_void};
use std::sync::{Mutex, PoisonError};

use crate::allocation::device;
use crate::exports;
use crate::handles::Handle;
use crate::status::{Status, put};
use crate::stream::refuse_while_recording;
use crate::work;

const PAGE_BYTES: usize = 4096;

/// What fresh page-locked memory holds: nothing that anybody wrote.
const POISON: u8 = 0xfe;

/// Page-locked allocations: their length by their address.
static LOCKED: Mutex<BTreeMap<usize, Layout>> = Mutex::new(BTreeMap::new());

exports! {
    fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) {
        let device = device();
        put(free, device.total_bytes - device.used_bytes)?;
        put(total, device.total_bytes)
    }

    fn cuMemAlloc_v2(address: *mut u64, bytes: usize) {
        refuse_while_recording()?;
        let found = device().allocate(bytes)?;
        put(address, found as u64)
    }

    /// Waits for the device first, as the driver does: work that was enqueued may use it.
    fn cuMemFree_v2(address: u64) {
        refuse_while_recording()?;
        work::run_everything();
        device().free(number(address))
    }

    fn cuMemAllocAsync(_address: *mut u64, _bytes: usize, _stream: Handle) {
        Err(Status::NotSupported)
    }

    fn cuMemFreeAsync(_address: u64, _stream: Handle) {
        Err(Status::NotSupported)
    }

    fn cuMemGetAddressRange_v2(base: *mut u64, bytes: *mut usize, address: u64) {
        let (first, len) = device().around(number(address), 0)?;
        put(base, first as u64)?;
        put(bytes, len)
    }

    fn cuMemHostAlloc(address: *mut *mut c_void, bytes: usize, _flags: c_uint) {
        refuse_while_recording()?;
        let layout = Layout::from_size_align(bytes.max(1), PAGE_BYTES).map_err(|_| Status::OutOfMemory)?;
        // SAFETY: the layout is not empty.
        let found = unsafe { alloc(layout) };
        if found.is_null() {
            return Err(Status::OutOfMemory);
        }
        // SAFETY: all of what was just allocated.
        unsafe { found.write_bytes(POISON, layout.size()) };
        LOCKED.lock().unwrap_or_else(PoisonError::into_inner).insert(found.addr(), layout);
        put(address, found.cast())
    }

    fn cuMemFreeHost(address: *mut c_void) {
        refuse_while_recording()?;
        work::run_everything();
        let layout = LOCKED.lock().unwrap_or_else(PoisonError::into_inner).remove(&address.addr());
        let layout = layout.ok_or(Status::InvalidValue)?;
        // SAFETY: allocated with this layout, and freed once: it was in the map.
        unsafe { dealloc(address.cast(), layout) };
        Ok(())
    }

    /// Nothing to do: all memory is the host's.
    fn cuMemHostRegister_v2(address: *mut c_void, _bytes: usize, _flags: c_uint) {
        if address.is_null() { Err(Status::InvalidValue) } else { Ok(()) }
    }

    fn cuMemHostUnregister(_address: *mut c_void) {
        Ok(())
    }

    fn cuMemHostGetDevicePointer_v2(device: *mut u64, host: *mut c_void, _flags: c_uint) {
        put(device, host.addr() as u64)
    }

    fn cuIpcGetMemHandle(_handle: *mut [c_char; 64], _address: u64) {
        Err(Status::NotSupported)
    }

    fn cuIpcOpenMemHandle_v2(_address: *mut u64, _handle: IpcHandle, _flags: c_uint) {
        Err(Status::NotSupported)
    }

    fn cuIpcCloseMemHandle(_address: u64) {
        Err(Status::NotSupported)
    }
}

/// `CUipcMemHandle`, passed by value.
#[derive(Debug)]
#[repr(C)]
pub struct IpcHandle([c_char; 64]);

/// A device's address as the host's: they are the same.
pub(crate) fn number(address: u64) -> usize {
    usize::try_from(address).unwrap_or(usize::MAX)
}
