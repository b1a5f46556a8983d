//! One device, with the sizes of a Hopper chip where kernels care.

use std::ffi::{c_char, c_int, c_uint};

use crate::allocation::device;
use crate::exports;
use crate::handles::Handle;
use crate::status::{Status, put};
use crate::{stream, work};

/// Shared memory of a block: without more ado, and at most.
pub(crate) const SHARED_BYTES: usize = 48 << 10;
pub(crate) const SHARED_BYTES_MAX: usize = 227 << 10;
pub(crate) const BLOCK_THREADS_MAX: u32 = 1024;
/// Blocks of a grid in y and in z.
pub(crate) const GRID_YZ_MAX: u32 = 65535;

/// The driver's version in CUDA's counting: 13.0.
const VERSION: c_int = 13_000;
const NAME: &[u8] = b"Hearth's stand-in for a GPU\0";

/// An attribute by CUDA's number; 0 for those that nobody asks a stand-in for.
fn attribute(number: c_int) -> c_int {
    match number {
        1..=3 => 1024,
        4 => 64,
        5 => c_int::MAX,
        6 | 7 => 65535,
        8 => 48 << 10,
        9 => 64 << 10,
        10 => 32,
        11 => c_int::MAX,
        12 | 82 => 65536,
        13 => 1_000_000,
        14 => 512,
        16 => 4,
        19 | 31 | 40 | 41 => 1,
        37 => 5120,
        38 => 50 << 20,
        39 => 2048,
        75 => 9,
        81 => 228 << 10,
        97 => 227 << 10,
        106 => 32,
        _ => 0,
    }
}

fn only(ordinal: c_int) -> Result<(), Status> {
    if ordinal == 0 {
        Ok(())
    } else {
        Err(Status::InvalidDevice)
    }
}

exports! {
    fn cuInit(_flags: c_uint) {
        Ok(())
    }

    fn cuDriverGetVersion(version: *mut c_int) {
        put(version, VERSION)
    }

    fn cuDeviceGetCount(count: *mut c_int) {
        put(count, 1)
    }

    fn cuDeviceGet(device: *mut c_int, ordinal: c_int) {
        only(ordinal)?;
        put(device, 0)
    }

    fn cuDeviceGetName(name: *mut c_char, len: c_int, ordinal: c_int) {
        only(ordinal)?;
        let room = usize::try_from(len).unwrap_or(0);
        if room < NAME.len() {
            return Err(Status::InvalidValue);
        }
        for (at, &byte) in NAME.iter().enumerate() {
            put(name.wrapping_add(at), byte.cast_signed())?;
        }
        Ok(())
    }

    fn cuDeviceGetUuid_v2(uuid: *mut [c_char; 16], ordinal: c_int) {
        only(ordinal)?;
        put(uuid, [0; 16])
    }

    fn cuDeviceTotalMem_v2(bytes: *mut usize, ordinal: c_int) {
        only(ordinal)?;
        put(bytes, device().total_bytes)
    }

    fn cuDeviceGetAttribute(value: *mut c_int, number: c_int, ordinal: c_int) {
        only(ordinal)?;
        put(value, attribute(number))
    }

    fn cuDeviceGetPCIBusId(_id: *mut c_char, _len: c_int, _device: c_int) {
        Err(Status::NotSupported)
    }

    fn cuDeviceCanAccessPeer(can: *mut c_int, _device: c_int, _peer: c_int) {
        put(can, 0)
    }

    fn cuDevicePrimaryCtxRetain(context: *mut Handle, ordinal: c_int) {
        only(ordinal)?;
        put(context, 1 as Handle)
    }

    fn cuCtxSetCurrent(_context: Handle) {
        Ok(())
    }

    fn cuCtxSynchronize() {
        stream::refuse_while_recording()?;
        work::run_everything();
        Ok(())
    }

    fn cuCtxGetStreamPriorityRange(least: *mut c_int, greatest: *mut c_int) {
        put(least, 0)?;
        put(greatest, 0)
    }
}
