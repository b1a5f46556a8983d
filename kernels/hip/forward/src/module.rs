//! Images, functions and launches.

use std::collections::HashSet;
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::ptr;
use std::sync::{LazyLock, PoisonError, RwLock};

use hip_runtime_sys::{
    hipDeviceptr_t, hipError_t, hipFunction_attribute, hipFunction_t, hipJitOption, hipModule_t,
    hipStream_t,
};

use crate::cuda::Handle;
use crate::device::{MAX_SHARED_BYTES_OPT_IN, cuda_attribute};
use crate::driver::{current_ordinal, ready};
use crate::memory::pointer;
use crate::status::{Outcome, put};
use crate::{cu, exports};

/// CUDA's attributes of a function: static shared memory, and the limit of dynamic shared memory.
const STATIC_SHARED_BYTES: c_int = 1;
const MAX_DYNAMIC_SHARED_BYTES: c_int = 8;

/// The words of a list of packed arguments: buffer and size have the same numbers in both, the end does not.
const PACKED_POINTER: usize = 1;
const PACKED_SIZE: usize = 2;
const HIP_END: usize = 3;

/// Functions whose limit of dynamic shared memory was raised.
static RAISED: LazyLock<RwLock<HashSet<usize>>> = LazyLock::new(RwLock::default);

/// Lets a function use all the shared memory that a block of this device may have.
fn raise_shared_limit(function: Handle) -> Outcome {
    let known = RAISED.read().unwrap_or_else(PoisonError::into_inner);
    if known.contains(&function.addr()) {
        return Ok(());
    }
    drop(known);
    let most = cuda_attribute(ready()?, MAX_SHARED_BYTES_OPT_IN, current_ordinal())?;
    let mut taken = 0;
    cu!(cuFuncGetAttribute(
        &raw mut taken,
        STATIC_SHARED_BYTES,
        function
    ))?;
    cu!(cuFuncSetAttribute(
        function,
        MAX_DYNAMIC_SHARED_BYTES,
        most - taken
    ))?;
    let mut known = RAISED.write().unwrap_or_else(PoisonError::into_inner);
    known.insert(function.addr());
    Ok(())
}

/// Buffer and size out of a list of packed arguments.
fn packed(extra: *mut *mut c_void) -> Result<(*mut c_void, *mut c_void), hipError_t> {
    let mut found = (ptr::null_mut(), ptr::null_mut());
    // Two pairs and the end, in any order.
    for at in [0, 2] {
        // SAFETY: the caller's list, which goes on until its end was seen.
        let word = unsafe { extra.add(at).read() }.addr();
        if word == HIP_END {
            break;
        }
        // SAFETY: as above; a word that is not the end is followed by its value.
        let value = unsafe { extra.add(at + 1).read() };
        match word {
            PACKED_POINTER => found.0 = value,
            PACKED_SIZE => found.1 = value,
            _ => return Err(hipError_t::hipErrorInvalidValue),
        }
    }
    if found.0.is_null() || found.1.is_null() {
        return Err(hipError_t::hipErrorInvalidValue);
    }
    Ok(found)
}

exports! {
    fn hipModuleLoad(module: *mut hipModule_t, path: *const c_char) {
        cu!(cuModuleLoad(module.cast(), path))
    }

    fn hipModuleLoadData(module: *mut hipModule_t, image: *const c_void) {
        cu!(cuModuleLoadData(module.cast(), image))
    }

    /// Options are for AMD's compiler and are not looked at.
    fn hipModuleLoadDataEx(module: *mut hipModule_t, image: *const c_void, _count: c_uint, _options: *mut hipJitOption, _values: *mut *mut c_void) {
        cu!(cuModuleLoadData(module.cast(), image))
    }

    fn hipModuleUnload(module: hipModule_t) {
        // A function that is loaded later may have the address of one that goes now.
        RAISED.write().unwrap_or_else(PoisonError::into_inner).clear();
        cu!(cuModuleUnload(module.cast()))
    }

    fn hipModuleGetFunction(function: *mut hipFunction_t, module: hipModule_t, name: *const c_char) {
        cu!(cuModuleGetFunction(function.cast(), module.cast(), name))
    }

    fn hipModuleGetGlobal(address: *mut hipDeviceptr_t, bytes: *mut usize, module: hipModule_t, name: *const c_char) {
        let mut found = 0;
        cu!(cuModuleGetGlobal(&raw mut found, bytes, module.cast(), name))?;
        put(address, pointer(found))
    }

    /// The attributes have the same numbers.
    fn hipFuncGetAttribute(value: *mut c_int, attribute: hipFunction_attribute, function: hipFunction_t) {
        let attribute = c_int::try_from(attribute as c_uint).unwrap_or(-1);
        cu!(cuFuncGetAttribute(value, attribute, function.cast()))
    }

    fn hipModuleLaunchKernel(
        function: hipFunction_t,
        grid_x: c_uint, grid_y: c_uint, grid_z: c_uint,
        block_x: c_uint, block_y: c_uint, block_z: c_uint,
        shared_bytes: c_uint,
        stream: hipStream_t,
        arguments: *mut *mut c_void,
        extra: *mut *mut c_void
    ) {
        if shared_bytes > 0 {
            raise_shared_limit(function.cast())?;
        }
        // The same list with CUDA's end.
        let mut list = match extra.is_null() {
            true => None,
            false => {
                let (buffer, size) = packed(extra)?;
                Some([PACKED_POINTER as *mut c_void, buffer, PACKED_SIZE as *mut c_void, size, ptr::null_mut()])
            }
        };
        let cuda_extra = list.as_mut().map_or(ptr::null_mut(), |list| list.as_mut_ptr());
        cu!(cuLaunchKernel(
            function.cast(), grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes, stream.cast(), arguments, cuda_extra
        ))
    }

    fn hipModuleOccupancyMaxActiveBlocksPerMultiprocessor(blocks: *mut c_int, function: hipFunction_t, block_threads: c_int, shared_bytes: usize) {
        if shared_bytes > 0 {
            raise_shared_limit(function.cast())?;
        }
        cu!(cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks, function.cast(), block_threads, shared_bytes))
    }
}
