//! GPUs through HIP: AMD's through ROCm, NVIDIA's through the forwarding library in `kernels/hip/forward`.
//!
//! Three levels: `sys` is the library's functions as they are, `result` turns their status into an error, `safe` owns what they hand out. Only `safe` leaves this module. The library is opened at
//! run time: without one, or without a GPU, [`Library::open`] says so and nothing else is touched.
//!
//! # Rules
//! - **No file-backed pointer reaches HIP.** Copies take [`Pinned`] memory, and nothing else of the host's. (Elsewhere the runtime would lock the pages of the file; on AMD that stops the queues
//!   of the whole device for milliseconds.)
//! - **A view keeps its memory alive**, and a stream keeps what was enqueued alive until it has passed it (see [`Stream`]). A range goes back to its arena once, when its last view is gone.
//! - **Nothing waits for the device** but what says so: [`Event::synchronize`], [`InFlight::wait`], [`Stream::synchronize`] and dropping a [`Stream`].

#![expect(
    unsafe_code,
    reason = "calls into the HIP library; each block says why it is sound"
)]

mod activations;
mod device;
mod error;
mod images;
mod index;
pub mod launch;
mod ops;
mod readback;
mod result;
mod routing;
mod safe;
mod store;
mod sys;
mod weight;

pub(crate) use activations::Activations;
pub use device::{Hip, HipOptions, HipPhase};
pub use error::HipError;
pub use images::image_for;
pub(crate) use index::{IndexMemory, Lists};
pub(crate) use readback::{PickMemory, RowReader};
pub(crate) use routing::{MATRICES, RoutingMemory};
pub use safe::{
    Arena, Args, Event, Function, Gpu, Graph, Grid, InFlight, Library, Memory, Module, Pinned,
    Place, Ranges, Ring, RingWorker, Stream, Unstarted, View,
};
pub(crate) use store::KvMemory;
pub(crate) use weight::Weight;
