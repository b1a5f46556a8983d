//! The engine as its callers see it, on tiny random models whose weights lie in memory behind a source that can be slowed, failed and counted.

mod batching;
mod cold;
mod experts;
mod faults;
mod files;
mod model;
mod naive;
mod plan;
mod readers;
mod requests;
mod shutdown;
mod source;
mod spans;
mod support;
