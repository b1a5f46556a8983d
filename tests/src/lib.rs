//! What the whole-process tests share: a writer of small models, the two services as child processes, clients and oracle readers.
//!
//! Nothing here looks inside a service: everything goes through sockets, `/proc` and files, as a user or an operator would see it.

pub mod bench;
pub mod client;
pub mod collector;
pub mod model;
pub mod node;
pub mod oracle;
pub mod proc;
