//! Hearth's gRPC contract, generated from the `.proto` files beside this crate. Their comments are the documentation. Beside it, what every call says in its metadata: its caller's deadline.
#![allow(
    missing_docs,
    clippy::allow_attributes_without_reason,
    clippy::disallowed_methods,
    clippy::too_many_lines,
    reason = "generated code"
)]

mod deadline;

pub use deadline::time_left;

/// `hearth.inference.v1`: generation and the models of one device.
pub mod inference {
    pub mod v1 {
        tonic::include_proto!("hearth.inference.v1");
    }
}

/// `hearth.loader.v1`: the node's loader daemon.
pub mod loader {
    pub mod v1 {
        tonic::include_proto!("hearth.loader.v1");
    }
}

/// The descriptor set of every package above, for gRPC reflection.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hearth.binpb"));
