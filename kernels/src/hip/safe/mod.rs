//! Owning types over the HIP library.

mod gpu;
mod library;

mod arena;
mod memory;
mod pinned;
mod ranges;

mod event;
mod graph;
mod module;
mod stream;

mod ring;

pub use arena::Arena;
pub use event::Event;
pub use gpu::Gpu;
pub use graph::Graph;
pub use library::{Library, Unstarted};
pub use memory::{Memory, View};
pub use module::{Args, Function, Grid, Module};
pub use pinned::{InFlight, Pinned};
pub use ranges::{Place, Ranges};
pub use ring::{Ring, RingWorker};
pub use stream::Stream;

/// Something that must live until a stream has passed the work that uses it.
type Keep = std::sync::Arc<dyn std::any::Any + Send + Sync>;
