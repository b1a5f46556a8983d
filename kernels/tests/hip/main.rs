//! The HIP path on whatever device HEARTH_HIP_LIBRARY's library has: the stand-in of CI, or a GPU.

mod support;

mod graphs;
mod memory;
mod refusals;
mod streams;
mod uploads;
