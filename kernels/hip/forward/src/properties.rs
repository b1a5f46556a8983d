//! The properties of a device in one structure, in the two layouts that HIP has had.

use std::ffi::{c_char, c_int, c_void};
use std::mem::{offset_of, zeroed};

use hip_runtime_sys::{hipDeviceProp_t, hipError_t};

use crate::device::{architecture, compute_capability, cuda_attribute, total_bytes};
use crate::driver::{Driver, opened};
use crate::exports;
use crate::status::{check, put};

/// The layout since HIP 6.0, of which what is filled here is named; the rest stays zero. Source: the size and the places that AMD's header gives.
#[repr(C)]
struct PropertiesR0600 {
    name: [c_char; 256],
    uuid: [c_char; 16],
    luid: [c_char; 8],
    luid_device_node_mask: u32,
    total_global_bytes: usize,
    shared_bytes_per_block: usize,
    registers_per_block: c_int,
    warp_size: c_int,
    pitch_bytes: usize,
    max_threads_per_block: c_int,
    max_threads: [c_int; 3],
    max_grid: [c_int; 3],
    clock_khz: c_int,
    total_constant_bytes: usize,
    major: c_int,
    minor: c_int,
    texture_alignment: usize,
    texture_pitch_alignment: usize,
    device_overlap: c_int,
    multiprocessor_count: c_int,
    rest: [u8; 768],
    architecture: [c_char; 256],
    tail: [u8; 56],
}

const _: () = assert!(
    size_of::<PropertiesR0600>() == 1472 && offset_of!(PropertiesR0600, architecture) == 1160
);
const _: () =
    assert!(size_of::<hipDeviceProp_t>() == 792 && offset_of!(hipDeviceProp_t, gcnArchName) == 396);

/// Copies characters and a zero.
fn write_text(place: &mut [c_char], text: &[u8]) {
    let room = place.len() - 1;
    for (to, &from) in place[..room].iter_mut().zip(text) {
        *to = from.cast_signed();
    }
}

fn name(driver: &Driver, ordinal: c_int, place: &mut [c_char; 256]) -> Result<(), hipError_t> {
    let device = driver.device(ordinal)?;
    // SAFETY: a buffer of 256 characters that outlives the call.
    check(unsafe { (driver.cuda.cuDeviceGetName)(place.as_mut_ptr(), 255, device) })
}

fn filled_r0600(driver: &Driver, ordinal: c_int) -> Result<PropertiesR0600, hipError_t> {
    let attribute = |number| cuda_attribute(driver, number, ordinal);
    let size = |number| Ok(usize::try_from(attribute(number)?).unwrap_or(0));
    // SAFETY: numbers alone, for which zero is a value.
    let mut properties: PropertiesR0600 = unsafe { zeroed() };
    name(driver, ordinal, &mut properties.name)?;
    properties.total_global_bytes = total_bytes(driver, ordinal)?;
    properties.shared_bytes_per_block = size(97)?;
    properties.registers_per_block = attribute(12)?;
    properties.warp_size = attribute(10)?;
    properties.pitch_bytes = size(11)?;
    properties.max_threads_per_block = attribute(1)?;
    properties.max_threads = [attribute(2)?, attribute(3)?, attribute(4)?];
    properties.max_grid = [attribute(5)?, attribute(6)?, attribute(7)?];
    properties.total_constant_bytes = size(9)?;
    (properties.major, properties.minor) = compute_capability(driver, ordinal)?;
    properties.multiprocessor_count = attribute(16)?;
    write_text(
        &mut properties.architecture,
        architecture(driver, ordinal)?.as_bytes(),
    );
    Ok(properties)
}

fn filled(driver: &Driver, ordinal: c_int) -> Result<hipDeviceProp_t, hipError_t> {
    let newer = filled_r0600(driver, ordinal)?;
    let attribute = |number| cuda_attribute(driver, number, ordinal);
    // SAFETY: numbers alone, for which zero is a value.
    let mut properties: hipDeviceProp_t = unsafe { zeroed() };
    properties.name = newer.name;
    properties.totalGlobalMem = newer.total_global_bytes;
    properties.sharedMemPerBlock = newer.shared_bytes_per_block;
    properties.regsPerBlock = newer.registers_per_block;
    properties.warpSize = newer.warp_size;
    properties.maxThreadsPerBlock = newer.max_threads_per_block;
    properties.maxThreadsDim = newer.max_threads;
    properties.maxGridSize = newer.max_grid;
    properties.totalConstMem = newer.total_constant_bytes;
    properties.major = newer.major;
    properties.minor = newer.minor;
    properties.multiProcessorCount = newer.multiprocessor_count;
    properties.l2CacheSize = attribute(38)?;
    properties.maxThreadsPerMultiProcessor = attribute(39)?;
    properties.concurrentKernels = attribute(31)?;
    properties.pciBusID = attribute(33)?;
    properties.pciDeviceID = attribute(34)?;
    properties.pciDomainID = attribute(50)?;
    properties.canMapHostMemory = attribute(19)?;
    properties.integrated = attribute(18)?;
    properties.gcnArchName = newer.architecture;
    Ok(properties)
}

exports! {
    fn hipGetDeviceProperties(properties: *mut hipDeviceProp_t, ordinal: c_int) {
        put(properties, filled(opened()?, ordinal)?)
    }
}

/// HIP's `hipGetDevicePropertiesR0600`, which is what headers since HIP 6.0 call by the shorter name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hipGetDevicePropertiesR0600(
    properties: *mut c_void,
    ordinal: c_int,
) -> hipError_t {
    crate::status::returned(|| put(properties.cast(), filled_r0600(opened()?, ordinal)?))
}
