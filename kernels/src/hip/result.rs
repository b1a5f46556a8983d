//! The library's functions with their status as an error. Handles are still raw: `safe` owns them.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;

use hip_runtime_sys::*;

use super::error::{HipError, check, check_ready};
use super::sys::Table;

/// Calls a function of the table that is given nothing but values and pointers to variables of ours, and checks its status.
macro_rules! ask {
    ($table:ident.$name:ident($($argument:expr),* $(,)?)) => {{
        // SAFETY: the table holds HIP's functions with HIP's signatures; every pointer among the arguments is to a variable that outlives the call, and no handle of ours is used.
        let status = unsafe { ($table.$name)($($argument),*) };
        check(stringify!($name), status)
    }};
}

/// Calls a function of the table that is given handles or addresses.
macro_rules! tell {
    ($table:ident.$name:ident($($argument:expr),* $(,)?)) => {{
        // SAFETY: the caller vouches for the handles and addresses; other pointers are to variables that outlive the call.
        let status = unsafe { ($table.$name)($($argument),*) };
        check(stringify!($name), status)
    }};
}

/// Questions to the device.
impl Table {
    pub(super) fn init(&self) -> Result<(), HipError> {
        ask!(self.hipInit(0))
    }

    pub(super) fn device_count(&self) -> Result<usize, HipError> {
        let mut count = 0;
        ask!(self.hipGetDeviceCount(&raw mut count))?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    pub(super) fn driver_version(&self) -> Result<c_int, HipError> {
        let mut version = 0;
        ask!(self.hipDriverGetVersion(&raw mut version))?;
        Ok(version)
    }

    pub(super) fn runtime_version(&self) -> Result<c_int, HipError> {
        let mut version = 0;
        ask!(self.hipRuntimeGetVersion(&raw mut version))?;
        Ok(version)
    }

    /// Makes a device the calling thread's own: what it creates from now on lives there.
    pub(super) fn set_device(&self, ordinal: c_int) -> Result<(), HipError> {
        ask!(self.hipSetDevice(ordinal))
    }

    pub(super) fn device_name(&self, ordinal: c_int) -> Result<String, HipError> {
        let mut name: [c_char; 256] = [0; 256];
        ask!(self.hipDeviceGetName(name.as_mut_ptr(), 255, ordinal))?;
        Ok(text(&name))
    }

    pub(super) fn attribute(
        &self,
        attribute: hipDeviceAttribute_t,
        ordinal: c_int,
    ) -> Result<usize, HipError> {
        let mut value = 0;
        ask!(self.hipDeviceGetAttribute(&raw mut value, attribute, ordinal))?;
        Ok(usize::try_from(value).unwrap_or(0))
    }

    /// Free and total bytes of the calling thread's device.
    pub(super) fn memory_info(&self) -> Result<(usize, usize), HipError> {
        let (mut free, mut total) = (0, 0);
        ask!(self.hipMemGetInfo(&raw mut free, &raw mut total))?;
        Ok((free, total))
    }

    /// The architecture's name, such as `gfx942:sramecc+:xnack-`.
    ///
    /// Libraries since ROCm 6 know two layouts of the properties, each filled by a function of its own; where the name lies in them is all that is taken from either.
    pub(super) fn architecture(&self, ordinal: c_int) -> Result<String, HipError> {
        /// Room for any layout known, several times over.
        const ROOM_BYTES: usize = 8192;
        const NAME_BYTES: usize = 256;
        const OFFSET_R0600: usize = 1160;
        const OFFSET: usize = 396;
        // Words, so that the structure which the library sees is aligned.
        let mut room = [0u64; ROOM_BYTES / 8];
        let properties: *mut c_void = room.as_mut_ptr().cast();
        let (offset, asked) = match self.hipGetDevicePropertiesR0600 {
            // SAFETY: the room is larger than the 1472 bytes that this function fills, aligned for them, and outlives the call.
            Some(fill) => (
                OFFSET_R0600,
                check("hipGetDevicePropertiesR0600", unsafe {
                    fill(properties, ordinal)
                }),
            ),
            None => (
                OFFSET,
                ask!(self.hipGetDeviceProperties(properties.cast(), ordinal)),
            ),
        };
        asked?;
        let name: &[c_char] = bytemuck::cast_slice(&room);
        Ok(text(&name[offset..offset + NAME_BYTES]))
    }
}

/// Memory and copies.
impl Table {
    pub(super) fn malloc(&self, bytes: usize) -> Result<*mut c_void, HipError> {
        let mut address = ptr::null_mut();
        ask!(self.hipMalloc(&raw mut address, bytes))?;
        Ok(address)
    }

    /// # Safety
    /// The address is one of [`Table::malloc`], not freed yet, and nothing uses its memory any more.
    pub(super) unsafe fn free(&self, address: *mut c_void) -> Result<(), HipError> {
        tell!(self.hipFree(address))
    }

    /// Page-locked memory of the host, portable to all devices.
    pub(super) fn host_malloc(&self, bytes: usize) -> Result<*mut c_void, HipError> {
        let mut address = ptr::null_mut();
        ask!(self.hipHostMalloc(&raw mut address, bytes, hipHostMallocPortable))?;
        Ok(address)
    }

    /// Locks pages that the process has, for all devices.
    ///
    /// # Safety
    /// The range is whole pages of memory that no file backs, and stays mapped until it is unregistered.
    pub(super) unsafe fn host_register(
        &self,
        address: *mut c_void,
        bytes: usize,
    ) -> Result<(), HipError> {
        tell!(self.hipHostRegister(address, bytes, hipHostRegisterPortable))
    }

    /// # Safety
    /// The address is one that [`Table::host_register`] was given, not unregistered yet, and no device uses its memory any more.
    pub(super) unsafe fn host_unregister(&self, address: *mut c_void) -> Result<(), HipError> {
        tell!(self.hipHostUnregister(address))
    }

    /// # Safety
    /// The address is one of [`Table::host_malloc`], not freed yet, and nothing uses its memory any more.
    pub(super) unsafe fn host_free(&self, address: *mut c_void) -> Result<(), HipError> {
        tell!(self.hipHostFree(address))
    }

    /// # Safety
    /// Both ranges are valid, the source is page-locked, and neither is freed nor the source written before the stream has passed this point.
    pub(super) unsafe fn copy_to_device(
        &self,
        to: hipDeviceptr_t,
        from: *const c_void,
        bytes: usize,
        stream: hipStream_t,
    ) -> Result<(), HipError> {
        tell!(self.hipMemcpyHtoDAsync(to, from.cast_mut(), bytes, stream))
    }

    /// # Safety
    /// Both ranges are valid, the destination is page-locked, and neither is freed nor the destination looked at before the stream has passed this point.
    pub(super) unsafe fn copy_to_host(
        &self,
        to: *mut c_void,
        from: hipDeviceptr_t,
        bytes: usize,
        stream: hipStream_t,
    ) -> Result<(), HipError> {
        tell!(self.hipMemcpyDtoHAsync(to, from, bytes, stream))
    }

    /// # Safety
    /// Both ranges are valid, do not overlap, and are not freed before the stream has passed this point.
    pub(super) unsafe fn copy_on_device(
        &self,
        to: hipDeviceptr_t,
        from: hipDeviceptr_t,
        bytes: usize,
        stream: hipStream_t,
    ) -> Result<(), HipError> {
        tell!(self.hipMemcpyDtoDAsync(to, from, bytes, stream))
    }

    /// # Safety
    /// The range is valid and is not freed before the stream has passed this point.
    pub(super) unsafe fn fill(
        &self,
        to: hipDeviceptr_t,
        value: u8,
        bytes: usize,
        stream: hipStream_t,
    ) -> Result<(), HipError> {
        tell!(self.hipMemsetD8Async(to, value, bytes, stream))
    }
}

/// Streams and events.
impl Table {
    /// A stream that does not wait for the device's default stream.
    pub(super) fn stream_create(&self) -> Result<hipStream_t, HipError> {
        let mut stream = ptr::null_mut();
        ask!(self.hipStreamCreateWithFlags(&raw mut stream, hipStreamNonBlocking))?;
        Ok(stream)
    }

    /// # Safety
    /// The stream is valid and is not used again.
    pub(super) unsafe fn stream_destroy(&self, stream: hipStream_t) -> Result<(), HipError> {
        tell!(self.hipStreamDestroy(stream))
    }

    /// # Safety
    /// The stream is valid.
    pub(super) unsafe fn stream_synchronize(&self, stream: hipStream_t) -> Result<(), HipError> {
        tell!(self.hipStreamSynchronize(stream))
    }

    /// # Safety
    /// Stream and event are valid.
    pub(super) unsafe fn stream_wait(
        &self,
        stream: hipStream_t,
        event: hipEvent_t,
    ) -> Result<(), HipError> {
        tell!(self.hipStreamWaitEvent(stream, event, 0))
    }

    /// Only the calling thread is restricted while the stream captures: others may allocate and copy.
    ///
    /// # Safety
    /// The stream is valid.
    pub(super) unsafe fn begin_capture(&self, stream: hipStream_t) -> Result<(), HipError> {
        tell!(self.hipStreamBeginCapture(
            stream,
            hipStreamCaptureMode::hipStreamCaptureModeThreadLocal
        ))
    }

    /// # Safety
    /// The stream is valid.
    pub(super) unsafe fn end_capture(&self, stream: hipStream_t) -> Result<hipGraph_t, HipError> {
        let mut graph = ptr::null_mut();
        tell!(self.hipStreamEndCapture(stream, &raw mut graph))?;
        Ok(graph)
    }

    /// `timed`: whether [`Table::event_elapsed_ms`] may be asked of it; such an event costs more.
    pub(super) fn event_create(&self, timed: bool) -> Result<hipEvent_t, HipError> {
        let flags = if timed {
            hipEventDefault
        } else {
            hipEventDisableTiming
        };
        let mut event = ptr::null_mut();
        ask!(self.hipEventCreateWithFlags(&raw mut event, flags))?;
        Ok(event)
    }

    /// # Safety
    /// The event is valid and is not used again.
    pub(super) unsafe fn event_destroy(&self, event: hipEvent_t) -> Result<(), HipError> {
        tell!(self.hipEventDestroy(event))
    }

    /// # Safety
    /// Event and stream are valid.
    pub(super) unsafe fn event_record(
        &self,
        event: hipEvent_t,
        stream: hipStream_t,
    ) -> Result<(), HipError> {
        tell!(self.hipEventRecord(event, stream))
    }

    /// Whether the stream has passed the event.
    ///
    /// # Safety
    /// The event is valid.
    pub(super) unsafe fn event_query(&self, event: hipEvent_t) -> Result<bool, HipError> {
        // SAFETY: the caller vouches for the event.
        check_ready("hipEventQuery", unsafe { (self.hipEventQuery)(event) })
    }

    /// # Safety
    /// The event is valid.
    pub(super) unsafe fn event_synchronize(&self, event: hipEvent_t) -> Result<(), HipError> {
        tell!(self.hipEventSynchronize(event))
    }

    /// # Safety
    /// Both events are valid.
    pub(super) unsafe fn event_elapsed_ms(
        &self,
        start: hipEvent_t,
        end: hipEvent_t,
    ) -> Result<f32, HipError> {
        let mut milliseconds = 0.0;
        tell!(self.hipEventElapsedTime(&raw mut milliseconds, start, end))?;
        Ok(milliseconds)
    }
}

/// What a launch is given besides its function and stream.
pub(super) struct Launch {
    pub(super) blocks: [u32; 3],
    pub(super) threads: [u32; 3],
    pub(super) shared_bytes: u32,
    /// One pointer to each argument.
    pub(super) arguments: *mut *mut c_void,
}

/// Modules, functions and graphs.
impl Table {
    /// # Safety
    /// The image is a code object that was made for this, whole, and stays where it is until the module is unloaded.
    pub(super) unsafe fn module_load(&self, image: *const c_void) -> Result<hipModule_t, HipError> {
        let mut module = ptr::null_mut();
        tell!(self.hipModuleLoadData(&raw mut module, image))?;
        Ok(module)
    }

    /// # Safety
    /// The module is valid, none of its functions is used again, and none runs.
    pub(super) unsafe fn module_unload(&self, module: hipModule_t) -> Result<(), HipError> {
        tell!(self.hipModuleUnload(module))
    }

    /// # Safety
    /// The module is valid.
    pub(super) unsafe fn module_function(
        &self,
        module: hipModule_t,
        name: &CStr,
    ) -> Result<hipFunction_t, HipError> {
        let mut function = ptr::null_mut();
        tell!(self.hipModuleGetFunction(&raw mut function, module, name.as_ptr()))?;
        Ok(function)
    }

    /// Blocks of a function that one multiprocessor holds at once.
    ///
    /// # Safety
    /// The function is valid.
    pub(super) unsafe fn occupancy(
        &self,
        function: hipFunction_t,
        block_threads: c_int,
        shared_bytes: usize,
    ) -> Result<usize, HipError> {
        let mut blocks = 0;
        tell!(self.hipModuleOccupancyMaxActiveBlocksPerMultiprocessor(
            &raw mut blocks,
            function,
            block_threads,
            shared_bytes
        ))?;
        Ok(usize::try_from(blocks).unwrap_or(0))
    }

    /// # Safety
    /// Function and stream are valid; there is a pointer to a value of the right type for each of the function's arguments; what the function reads and writes through them is valid until the
    /// stream has passed this point.
    pub(super) unsafe fn launch(
        &self,
        function: hipFunction_t,
        launch: &Launch,
        stream: hipStream_t,
    ) -> Result<(), HipError> {
        let [grid_x, grid_y, grid_z] = launch.blocks;
        let [block_x, block_y, block_z] = launch.threads;
        tell!(self.hipModuleLaunchKernel(
            function,
            grid_x,
            grid_y,
            grid_z,
            block_x,
            block_y,
            block_z,
            launch.shared_bytes,
            stream,
            launch.arguments,
            ptr::null_mut(),
        ))
    }

    /// # Safety
    /// The graph is valid.
    pub(super) unsafe fn graph_instantiate(
        &self,
        graph: hipGraph_t,
    ) -> Result<hipGraphExec_t, HipError> {
        let mut executable = ptr::null_mut();
        tell!(self.hipGraphInstantiate(
            &raw mut executable,
            graph,
            ptr::null_mut(),
            ptr::null_mut(),
            0
        ))?;
        Ok(executable)
    }

    /// # Safety
    /// Graph and stream are valid; what the graph's kernels read and write is valid until the stream has passed this point.
    pub(super) unsafe fn graph_launch(
        &self,
        executable: hipGraphExec_t,
        stream: hipStream_t,
    ) -> Result<(), HipError> {
        tell!(self.hipGraphLaunch(executable, stream))
    }

    /// # Safety
    /// The executable graph is valid, is not used again, and does not run.
    pub(super) unsafe fn graph_exec_destroy(
        &self,
        executable: hipGraphExec_t,
    ) -> Result<(), HipError> {
        tell!(self.hipGraphExecDestroy(executable))
    }

    /// # Safety
    /// The graph is valid and is not used again.
    pub(super) unsafe fn graph_destroy(&self, graph: hipGraph_t) -> Result<(), HipError> {
        tell!(self.hipGraphDestroy(graph))
    }
}

/// The characters before the first zero, with whatever is not UTF-8 replaced.
fn text(characters: &[c_char]) -> String {
    let bytes: &[u8] = bytemuck::cast_slice(characters);
    let end = bytes
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
