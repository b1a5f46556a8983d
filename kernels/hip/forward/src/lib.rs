//! A HIP library whose devices are NVIDIA's: the functions that Hearth and its like call, over the CUDA driver.
//!
//! # Why this exists
//! One executable reaches AMD's and NVIDIA's GPUs by the same path. The real HIP library knows AMD's alone, and HIP's own way to NVIDIA needs CUDA's headers when a program is compiled. So this
//! library has the real one's function names and signatures (each is compared with `hip-runtime-sys` when it is compiled), opens `libcuda.so.1` when it is first called, and says what the real
//! one would say. It is how Hearth is run and measured on NVIDIA hardware, and how its HIP path runs in CI: there `libcuda.so.1` is `kernels/hip/emulate`, a stand-in on the CPU.
//!
//! # Where CUDA differs
//! - A block may use more than 48 KiB of dynamic shared memory only after its function's limit was raised; HIP has no such limit, so the first launch of a function raises it (`module`).
//! - A copy from ordinary host memory may return before it has arrived; HIP's has arrived (`copy`).
//! - A thread has no context until it makes one current; HIP's threads begin with device 0 (`driver`).
//! - CUDA has error codes that HIP's enum lacks; each becomes one that it has (`status`).
//! - The end of a list of packed launch arguments is 0 in CUDA and 3 in HIP (`module`).
//!
//! # On the stand-in
//! Copies from and to the host take page-locked memory only, and every other pointer is refused, in particular one into a mapped file: what would be slow or stop the device on AMD's hardware is
//! an error in CI (`host_pointers`).
//!
//! # Safety
//! The contract of each function is HIP's for the function of that name.
//!
//! # Globals
//! A C library of handles has them: the opened driver, one context for each device, and for each thread its device and its last error.

#![expect(
    unsafe_code,
    reason = "functions of C's calling convention over functions of C's; each block says why it is sound"
)]
#![expect(
    unreachable_pub,
    reason = "these functions are found by name, at run time"
)]
#![expect(non_snake_case, reason = "HIP's and CUDA's names")]

mod cuda;
mod driver;
mod host_pointers;
mod status;

mod copy;
mod device;
mod errors;
mod event;
mod graph;
mod memory;
mod module;
mod properties;
mod stream;

/// Defines functions of the library. A body gives `Ok(())` or the status that the function returns; failures are also kept for `hipGetLastError`.
macro_rules! exports {
    ($( $(#[$attribute:meta])* fn $name:ident($($arg:ident: $type:ty),* $(,)?) $body:block )*) => { $(
        #[doc = concat!("HIP's `", stringify!($name), "`.")]
        $(#[$attribute])*
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($arg: $type),*) -> hip_runtime_sys::hipError_t {
            crate::status::returned(|| $body)
        }
        // The real library's signature.
        const _: [unsafe extern "C" fn($($type),*) -> hip_runtime_sys::hipError_t; 2] = [hip_runtime_sys::$name, $name];
    )* };
}

/// Calls a function of the CUDA driver with the calling thread's device current.
macro_rules! cu {
    ($name:ident($($argument:expr),* $(,)?)) => {{
        let driver = crate::driver::ready()?;
        // SAFETY: the driver's function has this signature; handles and pointers are those that the caller of the HIP function gave, whose contract for them is CUDA's for this call, or point to
        // variables that outlive it.
        crate::status::check(unsafe { (driver.cuda.$name)($($argument),*) })
    }};
}

use cu;
use exports;
