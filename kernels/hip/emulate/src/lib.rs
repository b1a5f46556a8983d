//! A stand-in for the CUDA driver on the CPU: `libcuda.so.1` for tests on machines without a GPU.
//!
//! # Why this exists
//! With it the whole path from a tensor operation in Rust through `hip::safe`, the HIP table and the forwarding library to each kernel's source runs in CI. A module is the host library of the
//! kernels (`kernels/hip/fibers.h`), in which a block's threads are fibers.
//!
//! # It is harsher than a GPU
//! - **Streams are lazy.** What is enqueued runs when somebody waits for it, on the thread that waits, and not before: a missing wait reads what was there before, every time. A question
//!   (`cuEventQuery`) runs one piece of work and answers "not ready" first, so that polling moves on.
//! - **Memory is poisoned**: fresh and freed memory holds bytes of 0xff, which is NaN in every format of floating point and -1 in integers.
//! - **Memory is guarded**: there are guards on both sides of each allocation, looked at after each kernel. A kernel that wrote over one is named, and from then on every call fails with
//!   `CUDA_ERROR_ILLEGAL_ADDRESS`, as after a fault on a GPU. Under the address sanitizer its own guards take their place, and name the instruction.
//! - Copies and fills must lie in one allocation. A thread that records a stream may not allocate, free or wait meanwhile, as on a GPU.
//!
//! # What it is not
//! There is no concurrency on the device: one piece of work runs at a time. Time is the host's.
//!
//! `HEARTH_EMULATE_MEMORY` is the device's memory in bytes, 4 GiB without it.

#![expect(
    unsafe_code,
    reason = "functions of C's calling convention that hand out memory; each block says why it is sound"
)]
#![expect(
    unreachable_pub,
    reason = "these functions are found by name, at run time"
)]

mod handles;
mod status;

mod allocation;
mod device;
mod memory;

mod event;
mod kernel;
mod module;
mod stream;
mod work;

mod copy;
mod graph;

/// Says to the forwarding library that this is not the driver.
#[unsafe(no_mangle)]
pub static hearth_stand_in: u8 = 1;

/// Defines functions of the driver. A body gives `Ok(())` or the status that the function returns.
macro_rules! exports {
    ($( $(#[$attribute:meta])* fn $name:ident($($arg:ident: $type:ty),* $(,)?) $body:block )*) => { $(
        #[doc = concat!("CUDA's `", stringify!($name), "`.")]
        $(#[$attribute])*
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($arg: $type),*) -> u32 {
            crate::status::returned(|| $body)
        }
    )* };
}

use exports;
