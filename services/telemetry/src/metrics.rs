//! Metric instruments, fed with plain numbers.
//!
//! Durations are recorded as they happen; everything that has a present value is read by a callback when an export is due, so an idle process does nothing. Before [`crate::init`], and without
//! an endpoint, every instrument is a no-op.

mod calls;
mod engine;
mod loader;
mod observe;
mod requests;

pub use calls::Calls;
pub use engine::{EngineNumbers, ModelNumbers, observe_engine};
pub use loader::{LoaderNumbers, observe_loader};
use opentelemetry::metrics::Meter;
pub use requests::{RequestOutcome, Requests};

/// Name of the meter: the scope under which all metrics leave.
const SCOPE: &str = "hearth";

fn meter() -> Meter {
    opentelemetry::global::meter(SCOPE)
}
