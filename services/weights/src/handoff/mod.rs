//! Handing a model's descriptors from the daemon to a client, and the connection that is the lease.
//!
//! gRPC cannot carry descriptors, so they travel over a second Unix socket. A client presents the one-time token that it got over gRPC ([`accept`]); the daemon's [`LeaseBook`] turns it into a
//! [`Grant`]; the descriptors follow, and the connection stays open: its end is the end of the lease. On it the client asks for extents and tells what it evicted ([`frame`]).
//!
//! Neither end trusts the other. Frames and descriptors are bounded, and anything unexpected ends the connection with every descriptor closed. Each receiver gets open file descriptions of
//! its own, because a shared one would let it change how the daemon reads. The client believes nothing about the files but what `fstat` and their headers say.

mod accept;
mod book;
mod connection;
mod endpoint;
pub mod frame;
mod lease;
mod server;
mod workers;

pub use accept::{AcceptError, AcceptOptions, accept};
pub use book::{FetchFailure, Grant, LeaseBook, PeerCredentials, Refusal};
pub use frame::PROTOCOL_VERSION;
pub(crate) use lease::LeaseHolder;
pub use server::{HandoffLimits, HandoffServer};
