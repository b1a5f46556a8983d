//! The node's loader daemon: knows the models below one directory, keeps them in the page cache, and hands their descriptors to inference services.
//!
//! Two faces on one `node`: gRPC (`service`) and the hand-off socket (`book`). What decides is pure and knows no files, no clock and no threads: `id`, `lease`, `ledger`, `bucket`, the grouping in
//! `scan` and the comparison in `registry`. What acts is around it: `follow` walks the directory, `readers` read, `cache` drops, `pins` keep, `server` begins and ends.
//!
//! The daemon never sees a device, and no weight passes through it on its way to a service of this node: services map the same files, and the page cache is what they share.
//!
//! **Weights are brought in by the threads of `readers` alone**, so that the daemon's own cgroup is charged for the page cache and every byte is counted by the thread that read it. No read
//! and no walk happens on a runtime thread.

mod answer;
mod book;
mod bucket;
mod cache;
pub mod clock;
pub mod config;
mod deadline;
mod error;
mod follow;
mod gate;
pub mod id;
mod lease;
mod ledger;
mod listen;
mod message;
mod node;
mod peer;
mod pins;
mod prefetch;
mod readers;
mod registry;
mod run;
mod scan;
mod server;
mod service;
pub mod socket;
mod status;
mod token;

pub use clock::Clock;
pub use config::{Config, Flags};
pub use run::{main_from, main_with};
pub use server::{Listeners, ServeError, serve, serve_with};
