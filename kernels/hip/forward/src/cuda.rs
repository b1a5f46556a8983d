//! The functions of the CUDA driver, by its own names, found when it is opened.
//!
//! Written from NVIDIA's documentation of the driver API. Where the driver has several versions of a function, the symbol is the one that CUDA 12's and 13's headers name.

use std::ffi::{c_char, c_int, c_uint, c_void};

use libloading::os::unix::Library;

/// `CUresult`, as a number: a newer driver may answer with codes that nobody here has heard of.
pub(crate) type Result = u32;
/// `CUdeviceptr`.
pub(crate) type DevicePointer = u64;
/// `CUdevice`.
pub(crate) type Device = c_int;
/// `CUcontext`, `CUstream` and so on.
pub(crate) type Handle = *mut c_void;
/// `CUuuid`.
pub(crate) type Uuid = [c_char; 16];
/// `CUipcMemHandle`, passed by value.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct IpcHandle(pub(crate) [c_char; 64]);
/// `CUhostFn`.
pub(crate) type HostFunction = unsafe extern "C" fn(*mut c_void);

macro_rules! table {
    ($( fn $name:ident($($arg:ident: $type:ty),* $(,)?) = $symbol:literal; )*) => {
        /// Addresses of the driver's functions.
        #[derive(Debug)]
        pub(crate) struct Cuda {
            $( pub(crate) $name: unsafe extern "C" fn($($arg: $type),*) -> Result, )*
        }

        impl Cuda {
            /// Finds every function, or names the first one that is missing.
            ///
            /// # Safety
            /// The library is a CUDA driver: its functions of these names have these signatures.
            pub(crate) unsafe fn find(library: &Library) -> std::result::Result<Cuda, &'static str> {
                Ok(Cuda {
                    $( $name: {
                        // SAFETY: the caller's word.
                        let symbol = unsafe { library.get(concat!($symbol, "\0").as_bytes()) };
                        *symbol.map_err(|_| $symbol)?
                    }, )*
                })
            }
        }
    };
}

table! {
    fn cuInit(flags: c_uint) = "cuInit";
    fn cuDriverGetVersion(version: *mut c_int) = "cuDriverGetVersion";
    fn cuDeviceGetCount(count: *mut c_int) = "cuDeviceGetCount";
    fn cuDeviceGet(device: *mut Device, ordinal: c_int) = "cuDeviceGet";
    fn cuDeviceGetName(name: *mut c_char, len: c_int, device: Device) = "cuDeviceGetName";
    fn cuDeviceGetUuid(uuid: *mut Uuid, device: Device) = "cuDeviceGetUuid_v2";
    fn cuDeviceTotalMem(bytes: *mut usize, device: Device) = "cuDeviceTotalMem_v2";
    fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_int, device: Device) = "cuDeviceGetAttribute";
    fn cuDeviceGetPCIBusId(id: *mut c_char, len: c_int, device: Device) = "cuDeviceGetPCIBusId";
    fn cuDeviceCanAccessPeer(can: *mut c_int, device: Device, peer: Device) = "cuDeviceCanAccessPeer";
    fn cuDevicePrimaryCtxRetain(context: *mut Handle, device: Device) = "cuDevicePrimaryCtxRetain";
    fn cuCtxSetCurrent(context: Handle) = "cuCtxSetCurrent";
    fn cuCtxSynchronize() = "cuCtxSynchronize";
    fn cuCtxGetStreamPriorityRange(least: *mut c_int, greatest: *mut c_int) = "cuCtxGetStreamPriorityRange";

    fn cuMemGetInfo(free: *mut usize, total: *mut usize) = "cuMemGetInfo_v2";
    fn cuMemAlloc(address: *mut DevicePointer, bytes: usize) = "cuMemAlloc_v2";
    fn cuMemFree(address: DevicePointer) = "cuMemFree_v2";
    fn cuMemAllocAsync(address: *mut DevicePointer, bytes: usize, stream: Handle) = "cuMemAllocAsync";
    fn cuMemFreeAsync(address: DevicePointer, stream: Handle) = "cuMemFreeAsync";
    fn cuMemGetAddressRange(base: *mut DevicePointer, bytes: *mut usize, address: DevicePointer) = "cuMemGetAddressRange_v2";
    fn cuMemHostAlloc(address: *mut *mut c_void, bytes: usize, flags: c_uint) = "cuMemHostAlloc";
    fn cuMemFreeHost(address: *mut c_void) = "cuMemFreeHost";
    fn cuMemHostRegister(address: *mut c_void, bytes: usize, flags: c_uint) = "cuMemHostRegister_v2";
    fn cuMemHostUnregister(address: *mut c_void) = "cuMemHostUnregister";
    fn cuMemHostGetDevicePointer(device: *mut DevicePointer, host: *mut c_void, flags: c_uint) = "cuMemHostGetDevicePointer_v2";
    fn cuIpcGetMemHandle(handle: *mut IpcHandle, address: DevicePointer) = "cuIpcGetMemHandle";
    fn cuIpcOpenMemHandle(address: *mut DevicePointer, handle: IpcHandle, flags: c_uint) = "cuIpcOpenMemHandle_v2";
    fn cuIpcCloseMemHandle(address: DevicePointer) = "cuIpcCloseMemHandle";

    fn cuMemcpyAsync(to: DevicePointer, from: DevicePointer, bytes: usize, stream: Handle) = "cuMemcpyAsync";
    fn cuMemcpyHtoDAsync(to: DevicePointer, from: *const c_void, bytes: usize, stream: Handle) = "cuMemcpyHtoDAsync_v2";
    fn cuMemcpyDtoHAsync(to: *mut c_void, from: DevicePointer, bytes: usize, stream: Handle) = "cuMemcpyDtoHAsync_v2";
    fn cuMemcpyDtoDAsync(to: DevicePointer, from: DevicePointer, bytes: usize, stream: Handle) = "cuMemcpyDtoDAsync_v2";
    fn cuMemsetD8Async(to: DevicePointer, value: u8, count: usize, stream: Handle) = "cuMemsetD8Async";
    fn cuMemsetD16Async(to: DevicePointer, value: u16, count: usize, stream: Handle) = "cuMemsetD16Async";
    fn cuMemsetD32Async(to: DevicePointer, value: c_uint, count: usize, stream: Handle) = "cuMemsetD32Async";

    fn cuStreamCreate(stream: *mut Handle, flags: c_uint) = "cuStreamCreate";
    fn cuStreamCreateWithPriority(stream: *mut Handle, flags: c_uint, priority: c_int) = "cuStreamCreateWithPriority";
    fn cuStreamDestroy(stream: Handle) = "cuStreamDestroy_v2";
    fn cuStreamSynchronize(stream: Handle) = "cuStreamSynchronize";
    fn cuStreamQuery(stream: Handle) = "cuStreamQuery";
    fn cuStreamWaitEvent(stream: Handle, event: Handle, flags: c_uint) = "cuStreamWaitEvent";
    fn cuStreamGetFlags(stream: Handle, flags: *mut c_uint) = "cuStreamGetFlags";
    fn cuStreamGetPriority(stream: Handle, priority: *mut c_int) = "cuStreamGetPriority";
    fn cuStreamBeginCapture(stream: Handle, mode: c_uint) = "cuStreamBeginCapture_v2";
    fn cuStreamEndCapture(stream: Handle, graph: *mut Handle) = "cuStreamEndCapture";
    fn cuStreamIsCapturing(stream: Handle, status: *mut c_uint) = "cuStreamIsCapturing";
    fn cuThreadExchangeStreamCaptureMode(mode: *mut c_uint) = "cuThreadExchangeStreamCaptureMode";
    fn cuLaunchHostFunc(stream: Handle, function: HostFunction, data: *mut c_void) = "cuLaunchHostFunc";

    fn cuEventCreate(event: *mut Handle, flags: c_uint) = "cuEventCreate";
    fn cuEventDestroy(event: Handle) = "cuEventDestroy_v2";
    fn cuEventRecord(event: Handle, stream: Handle) = "cuEventRecord";
    fn cuEventQuery(event: Handle) = "cuEventQuery";
    fn cuEventSynchronize(event: Handle) = "cuEventSynchronize";
    fn cuEventElapsedTime(milliseconds: *mut f32, start: Handle, end: Handle) = "cuEventElapsedTime";

    fn cuModuleLoad(module: *mut Handle, path: *const c_char) = "cuModuleLoad";
    fn cuModuleLoadData(module: *mut Handle, image: *const c_void) = "cuModuleLoadData";
    fn cuModuleUnload(module: Handle) = "cuModuleUnload";
    fn cuModuleGetFunction(function: *mut Handle, module: Handle, name: *const c_char) = "cuModuleGetFunction";
    fn cuModuleGetGlobal(address: *mut DevicePointer, bytes: *mut usize, module: Handle, name: *const c_char) = "cuModuleGetGlobal_v2";
    fn cuFuncGetAttribute(value: *mut c_int, attribute: c_int, function: Handle) = "cuFuncGetAttribute";
    fn cuFuncSetAttribute(function: Handle, attribute: c_int, value: c_int) = "cuFuncSetAttribute";
    fn cuLaunchKernel(
        function: Handle,
        grid_x: c_uint, grid_y: c_uint, grid_z: c_uint,
        block_x: c_uint, block_y: c_uint, block_z: c_uint,
        shared_bytes: c_uint,
        stream: Handle,
        arguments: *mut *mut c_void,
        extra: *mut *mut c_void,
    ) = "cuLaunchKernel";
    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks: *mut c_int, function: Handle, block_threads: c_int, shared_bytes: usize) = "cuOccupancyMaxActiveBlocksPerMultiprocessor";

    fn cuGraphInstantiate(executable: *mut Handle, graph: Handle, flags: u64) = "cuGraphInstantiateWithFlags";
    fn cuGraphUpload(executable: Handle, stream: Handle) = "cuGraphUpload";
    fn cuGraphLaunch(executable: Handle, stream: Handle) = "cuGraphLaunch";
    fn cuGraphExecDestroy(executable: Handle) = "cuGraphExecDestroy";
    fn cuGraphDestroy(graph: Handle) = "cuGraphDestroy";
}
