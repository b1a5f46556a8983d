//! What a device is.

use std::ffi::{c_char, c_int};

use hip_runtime_sys::{hipDevice_t, hipDeviceAttribute_t, hipError_t, hipUUID};

use crate::driver::{Driver, opened};
use crate::exports;
use crate::status::{check, put};

/// CUDA's attributes that are asked for elsewhere, by their numbers.
pub(crate) const MAX_SHARED_BYTES_OPT_IN: c_int = 97;
const COMPUTE_CAPABILITY_MAJOR: c_int = 75;
const COMPUTE_CAPABILITY_MINOR: c_int = 76;

/// One of CUDA's attributes of a device.
pub(crate) fn cuda_attribute(
    driver: &Driver,
    attribute: c_int,
    ordinal: c_int,
) -> Result<c_int, hipError_t> {
    let device = driver.device(ordinal)?;
    let mut value = 0;
    // SAFETY: the place outlives the call.
    check(unsafe { (driver.cuda.cuDeviceGetAttribute)(&raw mut value, attribute, device) })?;
    Ok(value)
}

pub(crate) fn compute_capability(
    driver: &Driver,
    ordinal: c_int,
) -> Result<(c_int, c_int), hipError_t> {
    let major = cuda_attribute(driver, COMPUTE_CAPABILITY_MAJOR, ordinal)?;
    let minor = cuda_attribute(driver, COMPUTE_CAPABILITY_MINOR, ordinal)?;
    Ok((major, minor))
}

/// What a device runs, as `gcnArchName` says it: `sm_90`, or `cpu` on the stand-in.
pub(crate) fn architecture(driver: &Driver, ordinal: c_int) -> Result<String, hipError_t> {
    if driver.is_stand_in {
        return Ok("cpu".to_owned());
    }
    let (major, minor) = compute_capability(driver, ordinal)?;
    Ok(format!("sm_{major}{minor}"))
}

pub(crate) fn total_bytes(driver: &Driver, ordinal: c_int) -> Result<usize, hipError_t> {
    let device = driver.device(ordinal)?;
    let mut bytes = 0;
    // SAFETY: the place outlives the call.
    check(unsafe { (driver.cuda.cuDeviceTotalMem)(&raw mut bytes, device) })?;
    Ok(bytes)
}

/// The number of CUDA's attribute that means the same as HIP's.
///
/// Shared memory of a block is what a function may be raised to, since this library raises it.
#[rustfmt::skip]
fn cuda_number(attribute: hipDeviceAttribute_t) -> Option<c_int> {
    use hipDeviceAttribute_t::*;
    Some(match attribute {
        hipDeviceAttributeMaxThreadsPerBlock => 1,
        hipDeviceAttributeMaxBlockDimX | hipDeviceAttributeMaxThreadsDim => 2,
        hipDeviceAttributeMaxBlockDimY => 3,
        hipDeviceAttributeMaxBlockDimZ => 4,
        hipDeviceAttributeMaxGridDimX => 5,
        hipDeviceAttributeMaxGridDimY => 6,
        hipDeviceAttributeMaxGridDimZ => 7,
        hipDeviceAttributeTotalConstantMemory => 9,
        hipDeviceAttributeWarpSize => 10,
        hipDeviceAttributeMaxPitch => 11,
        hipDeviceAttributeMaxRegistersPerBlock => 12,
        hipDeviceAttributeClockRate => 13,
        hipDeviceAttributeTextureAlignment => 14,
        hipDeviceAttributeDeviceOverlap => 15,
        hipDeviceAttributeMultiprocessorCount | hipDeviceAttributePhysicalMultiProcessorCount => 16,
        hipDeviceAttributeKernelExecTimeout => 17,
        hipDeviceAttributeIntegrated => 18,
        hipDeviceAttributeCanMapHostMemory => 19,
        hipDeviceAttributeComputeMode => 20,
        hipDeviceAttributeSurfaceAlignment => 30,
        hipDeviceAttributeConcurrentKernels => 31,
        hipDeviceAttributePciBusId => 33,
        hipDeviceAttributePciDeviceId => 34,
        hipDeviceAttributeTccDriver => 35,
        hipDeviceAttributeMemoryClockRate => 36,
        hipDeviceAttributeMemoryBusWidth => 37,
        hipDeviceAttributeL2CacheSize => 38,
        hipDeviceAttributeMaxThreadsPerMultiProcessor => 39,
        hipDeviceAttributeAsyncEngineCount => 40,
        hipDeviceAttributeUnifiedAddressing => 41,
        hipDeviceAttributePciDomainID => 50,
        hipDeviceAttributeTexturePitchAlignment => 51,
        hipDeviceAttributeComputeCapabilityMajor => COMPUTE_CAPABILITY_MAJOR,
        hipDeviceAttributeComputeCapabilityMinor => COMPUTE_CAPABILITY_MINOR,
        hipDeviceAttributeStreamPrioritiesSupported => 78,
        hipDeviceAttributeGlobalL1CacheSupported => 79,
        hipDeviceAttributeLocalL1CacheSupported => 80,
        hipDeviceAttributeSharedMemPerMultiprocessor | hipDeviceAttributeMaxSharedMemoryPerMultiprocessor => 81,
        hipDeviceAttributeMaxRegistersPerMultiprocessor => 82,
        hipDeviceAttributeManagedMemory => 83,
        hipDeviceAttributeIsMultiGpuBoard => 84,
        hipDeviceAttributeMultiGpuBoardGroupID => 85,
        hipDeviceAttributeHostNativeAtomicSupported => 86,
        hipDeviceAttributeSingleToDoublePrecisionPerfRatio => 87,
        hipDeviceAttributePageableMemoryAccess => 88,
        hipDeviceAttributeConcurrentManagedAccess => 89,
        hipDeviceAttributeComputePreemptionSupported => 90,
        hipDeviceAttributeCanUseHostPointerForRegisteredMem => 91,
        hipDeviceAttributeCooperativeLaunch => 95,
        hipDeviceAttributeMaxSharedMemoryPerBlock | hipDeviceAttributeSharedMemPerBlockOptin => MAX_SHARED_BYTES_OPT_IN,
        hipDeviceAttributePageableMemoryAccessUsesHostPageTables => 100,
        hipDeviceAttributeDirectManagedMemAccessFromHost => 101,
        hipDeviceAttributeVirtualMemoryManagementSupported => 102,
        hipDeviceAttributeMaxBlocksPerMultiProcessor => 106,
        hipDeviceAttributePersistingL2CacheMaxSize => 108,
        hipDeviceAttributeAccessPolicyMaxWindowSize => 109,
        hipDeviceAttributeReservedSharedMemPerBlock => 111,
        hipDeviceAttributeMemoryPoolsSupported => 115,
        _ => return None,
    })
}

exports! {
    fn hipDeviceGetAttribute(value: *mut c_int, attribute: hipDeviceAttribute_t, ordinal: c_int) {
        let number = cuda_number(attribute).ok_or(hipError_t::hipErrorInvalidValue)?;
        put(value, cuda_attribute(opened()?, number, ordinal)?)
    }

    fn hipDeviceComputeCapability(major: *mut c_int, minor: *mut c_int, device: hipDevice_t) {
        let (found_major, found_minor) = compute_capability(opened()?, device)?;
        put(major, found_major)?;
        put(minor, found_minor)
    }

    fn hipDeviceGetName(name: *mut c_char, len: c_int, device: hipDevice_t) {
        let driver = opened()?;
        let device = driver.device(device)?;
        // SAFETY: the caller's buffer and its length.
        check(unsafe { (driver.cuda.cuDeviceGetName)(name, len, device) })
    }

    fn hipDeviceGetUuid(uuid: *mut hipUUID, device: hipDevice_t) {
        let driver = opened()?;
        let device = driver.device(device)?;
        // SAFETY: both are sixteen bytes in the caller's place.
        check(unsafe { (driver.cuda.cuDeviceGetUuid)(uuid.cast(), device) })
    }

    fn hipDeviceTotalMem(bytes: *mut usize, device: hipDevice_t) {
        put(bytes, total_bytes(opened()?, device)?)
    }

    fn hipDeviceGetPCIBusId(id: *mut c_char, len: c_int, ordinal: c_int) {
        let driver = opened()?;
        let device = driver.device(ordinal)?;
        // SAFETY: the caller's buffer and its length.
        check(unsafe { (driver.cuda.cuDeviceGetPCIBusId)(id, len, device) })
    }

    fn hipDeviceCanAccessPeer(can: *mut c_int, ordinal: c_int, peer: c_int) {
        let driver = opened()?;
        let (device, peer) = (driver.device(ordinal)?, driver.device(peer)?);
        // SAFETY: the caller's place.
        check(unsafe { (driver.cuda.cuDeviceCanAccessPeer)(can, device, peer) })
    }
}
