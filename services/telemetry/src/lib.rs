//! Logs, traces and metrics of a Hearth process, and trace context over gRPC metadata.
//!
//! Other crates open `tracing` spans with short domain names (`model`, `prompt_tokens`, `cold_bytes`) and hand plain numbers to [`metrics`].
//! What those are called in OpenTelemetry is written once, in [`names`], and applied on the way out.
//!
//! Without an OTLP endpoint only the log exists: no exporter, no thread, no connection.

pub mod config;
mod export;
#[cfg(test)]
mod memory;
pub mod metrics;
pub mod names;
pub mod propagate;
mod rename;
pub mod server;

pub use config::{Config, Flags, LogFormat};
pub use export::{Error, Guard, init};
/// Identity of a span, for [`link`].
pub use opentelemetry::trace::SpanContext;
pub use propagate::{link, span_context};
pub use server::ServerTrace;
