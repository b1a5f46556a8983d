//! The HIP path on whatever device HEARTH_HIP_LIBRARY's library has: the stand-in of CI, or a GPU.

#![expect(
    unsafe_code,
    reason = "launches that follow indices in device memory; each says why they exist"
)]

mod support;

#[path = "../ops/support.rs"]
#[allow(dead_code, reason = "shared with the tests of operations")]
mod cases;

mod attention;
mod experts;
mod few;
mod graphs;
mod memory;
mod products;
mod refusals;
mod rows;
mod streams;
mod uploads;
