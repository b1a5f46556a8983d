//! Tensor operations on [`Device`].
//!
//! # Why this crate exists
//! A transformer needs about a dozen operations. Each of them is written once per kind of device, and every kind must give the same answer: [`ops`] checks shapes, types, devices and indices
//! once, then matches on the device. What runs below may trust what it is given.
//!
//! - `reference` is the truth: float32 values, scalar loops, one obvious way to read each of them. `--device reference` answers "is it the kernel or the model?".
//! - `cpu` is fast: instructions chosen once at run time, a pool of threads, scratch memory that is used again.
//!
//! # Bit-reproducible
//! A row's result depends on that row alone: not on the rows beside it, the number of threads, tiles, or the chunks in which a prompt arrives. The order of every reduction follows from its
//! length and tensor type: tiles run over rows and columns, sums over `K` are never re-associated, attention splits every 256 positions and combines in index order.
//!
//! # Unsafe
//! In `hip`, whose library is C: its owning types are safe to use but for loading an image and launching a kernel. In the files of `cpu/arch` that call instructions which the compiler may not
//! assume: they give safe operations on a token that proves the instructions are there, and kernels are written in those, once for all instruction sets. And once in `cpu/workers/pool.rs`, where a task
//! that lives on the caller's stack is handed to threads which the caller waits for.
//!
//! # Where things are
//! A tensor type is `layout` (what its bytes mean) and one file under `cpu/formats` (how its rows are multiplied). An instruction set is one file under `cpu/arch`.

mod device;
mod error;
mod tensor;

mod index;
mod kv;
mod picks;
mod readout;
mod recording;
mod rope;
mod routing;

pub mod ops;

mod buffer;
mod layout;
mod operands;

pub mod cpu;
pub mod hip;
mod reference;

pub use device::{Device, DeviceError};
pub use error::OpError;
pub use hip::{HipOptions, HipPhase};
pub use index::{IndexLimits, RowIndex, RowPlace, StepRows, StepShape};
pub use kv::{KvShape, KvStore, KvType};
pub use ops::{Activation, AttentionParams, ExpertNetwork, Linear};
pub use picks::Picks;
pub use readout::Readout;
pub use recording::Recording;
pub use rope::{RopeKind, RopeParams, RopeScaling, RopeTable};
pub use routing::{Routing, RoutingParams, RoutingSize, Scoring};
pub use tensor::{Owner, Tensor};

/// Files are little-endian and are read as they lie in memory.
const _: () = assert!(
    cfg!(target_endian = "little"),
    "weights are used as they lie in the file, which is little-endian"
);
