//! The functions of the HIP library, found when it is opened.
//!
//! # Why a table of our own
//! Linking against the library would write one of its major versions into the executable, which then starts neither beside another version nor on a machine without a GPU. Types and constants
//! come from `hip-runtime-sys`; each function's signature is proven against that crate's when this file compiles, and then declared to return its status as a plain number: newer libraries
//! answer with codes which that crate's enum does not have, and an enum with an unknown value is undefined behaviour.

use std::ffi::{c_char, c_int, c_uint, c_void};

use hip_runtime_sys::*;
use libloading::os::unix::Library;

/// Declares the table, its loading, and the proof of each signature.
macro_rules! table {
    ($( fn $name:ident($($arg:ident: $type:ty),* $(,)?); )*) => {
        /// Addresses of the library's functions, by HIP's own names. All of them exist since ROCm 5.2.
        #[derive(Debug)]
        #[expect(non_snake_case, reason = "HIP's names")]
        pub(super) struct Table {
            $( pub(super) $name: unsafe extern "C" fn($($arg: $type),*) -> u32, )*
            /// Fills the properties as newer libraries lay them out; absent from older ones.
            pub(super) hipGetDevicePropertiesR0600: Option<unsafe extern "C" fn(prop: *mut c_void, deviceId: c_int) -> u32>,
        }

        // Nothing is called here, and so nothing is linked: a coercion that compiles is the proof.
        $( const _: unsafe extern "C" fn($($type),*) -> hipError_t = hip_runtime_sys::$name; )*

        impl Table {
            /// Finds every function, or names the first one that is missing.
            ///
            /// # Safety
            /// The library's functions of these names have HIP's signatures: it is a HIP library.
            pub(super) unsafe fn find(library: &Library) -> Result<Table, &'static str> {
                Ok(Table {
                    $( $name: {
                        // SAFETY: the signature is HIP's, by the proof above and the caller's word.
                        let symbol = unsafe { library.get(concat!(stringify!($name), "\0").as_bytes()) };
                        *symbol.map_err(|_| stringify!($name))?
                    }, )*
                    hipGetDevicePropertiesR0600: {
                        // SAFETY: the header of ROCm 6 declares it as the older one, with another layout behind the pointer.
                        let symbol = unsafe { library.get(b"hipGetDevicePropertiesR0600\0") };
                        symbol.ok().map(|symbol| *symbol)
                    },
                })
            }
        }
    };
}

table! {
    fn hipInit(flags: c_uint);
    fn hipDriverGetVersion(version: *mut c_int);
    fn hipRuntimeGetVersion(version: *mut c_int);
    fn hipGetDeviceCount(count: *mut c_int);
    fn hipSetDevice(device: c_int);
    fn hipDeviceGetName(name: *mut c_char, len: c_int, device: hipDevice_t);
    fn hipDeviceGetAttribute(value: *mut c_int, attribute: hipDeviceAttribute_t, device: c_int);
    fn hipGetDeviceProperties(properties: *mut hipDeviceProp_t, device: c_int);

    fn hipMemGetInfo(free: *mut usize, total: *mut usize);
    fn hipMalloc(address: *mut *mut c_void, bytes: usize);
    fn hipFree(address: *mut c_void);
    fn hipHostMalloc(address: *mut *mut c_void, bytes: usize, flags: c_uint);
    fn hipHostFree(address: *mut c_void);
    fn hipHostRegister(address: *mut c_void, bytes: usize, flags: c_uint);
    fn hipHostUnregister(address: *mut c_void);
    fn hipMemcpyHtoDAsync(to: hipDeviceptr_t, from: *mut c_void, bytes: usize, stream: hipStream_t);
    fn hipMemcpyDtoHAsync(to: *mut c_void, from: hipDeviceptr_t, bytes: usize, stream: hipStream_t);
    fn hipMemcpyDtoDAsync(to: hipDeviceptr_t, from: hipDeviceptr_t, bytes: usize, stream: hipStream_t);
    fn hipMemsetD8Async(to: hipDeviceptr_t, value: u8, bytes: usize, stream: hipStream_t);

    fn hipStreamCreateWithFlags(stream: *mut hipStream_t, flags: c_uint);
    fn hipStreamDestroy(stream: hipStream_t);
    fn hipStreamSynchronize(stream: hipStream_t);
    fn hipStreamWaitEvent(stream: hipStream_t, event: hipEvent_t, flags: c_uint);
    fn hipStreamBeginCapture(stream: hipStream_t, mode: hipStreamCaptureMode);
    fn hipStreamEndCapture(stream: hipStream_t, graph: *mut hipGraph_t);
    fn hipEventCreateWithFlags(event: *mut hipEvent_t, flags: c_uint);
    fn hipEventDestroy(event: hipEvent_t);
    fn hipEventRecord(event: hipEvent_t, stream: hipStream_t);
    fn hipEventQuery(event: hipEvent_t);
    fn hipEventSynchronize(event: hipEvent_t);
    fn hipEventElapsedTime(milliseconds: *mut f32, start: hipEvent_t, end: hipEvent_t);

    fn hipModuleLoadData(module: *mut hipModule_t, image: *const c_void);
    fn hipModuleUnload(module: hipModule_t);
    fn hipModuleGetFunction(function: *mut hipFunction_t, module: hipModule_t, name: *const c_char);
    fn hipModuleLaunchKernel(
        function: hipFunction_t,
        grid_x: c_uint, grid_y: c_uint, grid_z: c_uint,
        block_x: c_uint, block_y: c_uint, block_z: c_uint,
        shared_bytes: c_uint,
        stream: hipStream_t,
        arguments: *mut *mut c_void,
        extra: *mut *mut c_void,
    );
    fn hipModuleOccupancyMaxActiveBlocksPerMultiprocessor(blocks: *mut c_int, function: hipFunction_t, block_threads: c_int, shared_bytes: usize);

    fn hipGraphInstantiate(executable: *mut hipGraphExec_t, graph: hipGraph_t, error_node: *mut hipGraphNode_t, log: *mut c_char, log_bytes: usize);
    fn hipGraphLaunch(executable: hipGraphExec_t, stream: hipStream_t);
    fn hipGraphExecDestroy(executable: hipGraphExec_t);
    fn hipGraphDestroy(graph: hipGraph_t);
}
