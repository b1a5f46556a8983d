//! The opened driver, its devices' contexts, and which of them a thread uses.

use std::cell::Cell;
use std::ffi::{c_int, c_uint};
use std::ptr;
use std::sync::OnceLock;

use hip_runtime_sys::{hipDevice_t, hipError_t};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use crate::cuda::{Cuda, Device, Handle};
use crate::status::{check, put};
use crate::{cu, exports};

/// The CUDA driver of this machine.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) cuda: Cuda,
    /// Whether it is the stand-in of CI.
    pub(crate) is_stand_in: bool,
    devices: Vec<Device>,
    /// Each device's primary context, made when it is first used.
    contexts: Vec<OnceLock<Context>>,
}

/// A context that may be made current on any thread.
#[derive(Debug, Clone, Copy)]
struct Context(Handle);

// SAFETY: CUDA's handles may be used on any thread.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

static DRIVER: OnceLock<Result<Driver, hipError_t>> = OnceLock::new();

thread_local! {
    /// The calling thread's device: what `hipSetDevice` says, and 0 before that.
    static DEVICE: Cell<usize> = const { Cell::new(0) };
    /// The device whose context is current on the calling thread.
    static CURRENT: Cell<Option<usize>> = const { Cell::new(None) };
}

impl Driver {
    fn open() -> Result<Driver, hipError_t> {
        // SAFETY: opening runs the library's constructors; it is the CUDA driver by its name.
        let opened = unsafe { Library::open(Some("libcuda.so.1"), RTLD_NOW | RTLD_LOCAL) };
        let library = opened.map_err(|_| hipError_t::hipErrorNoDevice)?;
        // SAFETY: it is the CUDA driver, by its name.
        let found = unsafe { Cuda::find(&library) };
        let cuda = found.map_err(|_| hipError_t::hipErrorInsufficientDriver)?;
        // SAFETY: only asked whether it is there.
        let marker = unsafe { library.get::<*const u8>(b"hearth_stand_in\0") };
        let is_stand_in = marker.is_ok();
        // A driver has threads and exit handlers: it is never closed.
        std::mem::forget(library);
        let devices = devices(&cuda)?;
        Ok(Driver {
            cuda,
            is_stand_in,
            contexts: devices.iter().map(|_| OnceLock::new()).collect(),
            devices,
        })
    }

    /// CUDA's name of the device of this index.
    pub(crate) fn device(&self, ordinal: c_int) -> Result<Device, hipError_t> {
        let ordinal = usize::try_from(ordinal).ok();
        let device = ordinal.and_then(|ordinal| self.devices.get(ordinal));
        device.copied().ok_or(hipError_t::hipErrorInvalidDevice)
    }

    pub(crate) fn device_count(&self) -> usize {
        self.devices.len()
    }

    fn context(&self, ordinal: usize) -> Result<Context, hipError_t> {
        if let Some(&context) = self.contexts[ordinal].get() {
            return Ok(context);
        }
        let mut context = ptr::null_mut();
        let device = self.devices[ordinal];
        // SAFETY: the device is one that the driver counted; the place outlives the call. Threads that meet here are given the same context.
        check(unsafe { (self.cuda.cuDevicePrimaryCtxRetain)(&raw mut context, device) })?;
        Ok(*self.contexts[ordinal].get_or_init(|| Context(context)))
    }
}

fn devices(cuda: &Cuda) -> Result<Vec<Device>, hipError_t> {
    // SAFETY: takes no pointer.
    check(unsafe { (cuda.cuInit)(0) })?;
    let mut count = 0;
    // SAFETY: the place outlives the call.
    check(unsafe { (cuda.cuDeviceGetCount)(&raw mut count) })?;
    let device = |ordinal| {
        let mut device = 0;
        // SAFETY: the place outlives the call.
        check(unsafe { (cuda.cuDeviceGet)(&raw mut device, ordinal) })?;
        Ok(device)
    };
    (0..count).map(device).collect()
}

/// The driver, opened by whoever calls first.
pub(crate) fn opened() -> Result<&'static Driver, hipError_t> {
    DRIVER
        .get_or_init(Driver::open)
        .as_ref()
        .map_err(|&error| error)
}

/// The driver, with the calling thread's device current.
pub(crate) fn ready() -> Result<&'static Driver, hipError_t> {
    let driver = opened()?;
    let ordinal = DEVICE.get();
    if CURRENT.get() != Some(ordinal) {
        if ordinal >= driver.device_count() {
            return Err(hipError_t::hipErrorNoDevice);
        }
        let Context(context) = driver.context(ordinal)?;
        // SAFETY: a primary context, which is never released.
        check(unsafe { (driver.cuda.cuCtxSetCurrent)(context) })?;
        CURRENT.set(Some(ordinal));
    }
    Ok(driver)
}

/// Index of the calling thread's device.
pub(crate) fn current_ordinal() -> c_int {
    // It was a `c_int` when it was set.
    c_int::try_from(DEVICE.get()).unwrap_or(0)
}

exports! {
    fn hipInit(flags: c_uint) {
        if flags != 0 {
            return Err(hipError_t::hipErrorInvalidValue);
        }
        opened().map(|_| ())
    }

    fn hipDriverGetVersion(version: *mut c_int) {
        let driver = opened()?;
        let mut found = 0;
        // SAFETY: the place outlives the call.
        check(unsafe { (driver.cuda.cuDriverGetVersion)(&raw mut found) })?;
        put(version, found)
    }

    /// The version whose header this library follows, in HIP's counting: major · 10⁷ + minor · 10⁵ + patch.
    fn hipRuntimeGetVersion(version: *mut c_int) {
        put(version, 50_422_804)
    }

    fn hipGetDeviceCount(count: *mut c_int) {
        let devices = opened()?.device_count();
        if devices == 0 {
            return Err(hipError_t::hipErrorNoDevice);
        }
        put(count, c_int::try_from(devices).unwrap_or(c_int::MAX))
    }

    fn hipSetDevice(ordinal: c_int) {
        opened()?.device(ordinal)?;
        DEVICE.set(usize::try_from(ordinal).unwrap_or(0));
        Ok(())
    }

    fn hipGetDevice(ordinal: *mut c_int) {
        opened()?;
        put(ordinal, current_ordinal())
    }

    fn hipDeviceGet(device: *mut hipDevice_t, ordinal: c_int) {
        opened()?.device(ordinal)?;
        put(device, ordinal)
    }

    fn hipDeviceSynchronize() {
        cu!(cuCtxSynchronize())
    }
}
