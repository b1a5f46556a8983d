//! Calls served, by method and status.

use std::time::Duration;

use opentelemetry::{KeyValue, metrics::Histogram};
use tonic::Code;

use super::meter;
use crate::names;

/// Bounds of the duration buckets, seconds: the conventions' own, with two more for loads that take minutes.
const SECONDS: [f64; 16] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 60.0, 300.0,
];
/// What the conventions call a method that the server does not have.
const OTHER_METHOD: &str = "_OTHER";

/// The histogram of calls served.
#[derive(Clone, Debug)]
pub struct Calls {
    duration: Histogram<f64>,
}

// === impl Calls ===

impl Default for Calls {
    fn default() -> Calls {
        let duration = meter()
            .f64_histogram(names::RPC_SERVER_CALL_DURATION)
            .with_description("Duration of calls served")
            .with_unit("s")
            .with_boundaries(SECONDS.to_vec())
            .build();
        Calls { duration }
    }
}

impl Calls {
    pub(crate) fn record(&self, method: &str, code: Code, duration: Duration) {
        // A peer may invent method names; they must not become time series.
        let method = if code == Code::Unimplemented {
            OTHER_METHOD
        } else {
            method
        };
        let attributes = [
            KeyValue::new(names::RPC_SYSTEM_NAME, "grpc"),
            KeyValue::new(names::RPC_METHOD, method.to_owned()),
            KeyValue::new(names::RPC_STATUS_CODE, names::status_code(code)),
        ];
        self.duration.record(duration.as_secs_f64(), &attributes);
    }
}
