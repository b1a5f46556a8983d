//! State of a loader daemon: models, leases, page cache, bytes read.

use std::sync::Arc;

use opentelemetry::{KeyValue, metrics::Meter};

use super::{
    meter,
    observe::{Number, Source, counters, gauges},
};
use crate::names;

/// State of a daemon at one moment. The last five fields are counts since it began.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct LoaderNumbers {
    /// Models that can be leased.
    pub available_models: u64,
    /// Files that cannot be used.
    pub invalid_models: u64,
    /// Leases held.
    pub leases: u64,
    /// Bytes that the daemon keeps in the page cache.
    pub kept_bytes: u64,
    /// Of these, bytes of pinned models.
    pub pinned_bytes: u64,
    /// Most bytes to keep; 0 is unlimited.
    pub budget_bytes: u64,
    /// Bytes read from the storage device.
    pub cold_bytes: u64,
    /// Bytes found in the page cache.
    pub warm_bytes: u64,
    /// Bytes read from a file system that does not account for its reads.
    pub unknown_bytes: u64,
    /// Bytes dropped from the page cache.
    pub dropped_bytes: u64,
    /// Reads that failed.
    pub failures: u64,
}

const GAUGES: &[Number<LoaderNumbers>] = &[
    Number {
        name: names::LOADER_MODELS,
        unit: "{model}",
        description: "Models that can be leased",
        of: |n| n.available_models,
    },
    Number {
        name: names::LOADER_INVALID,
        unit: "{model}",
        description: "Model files that cannot be used",
        of: |n| n.invalid_models,
    },
    Number {
        name: names::LOADER_LEASES,
        unit: "{lease}",
        description: "Leases held",
        of: |n| n.leases,
    },
    Number {
        name: names::LOADER_KEPT,
        unit: "By",
        description: "Bytes kept in the page cache",
        of: |n| n.kept_bytes,
    },
    Number {
        name: names::LOADER_PINNED,
        unit: "By",
        description: "Bytes of pinned models in the page cache",
        of: |n| n.pinned_bytes,
    },
    Number {
        name: names::LOADER_BUDGET,
        unit: "By",
        description: "Most bytes to keep; 0 is unlimited",
        of: |n| n.budget_bytes,
    },
];

const COUNTERS: &[Number<LoaderNumbers>] = &[
    Number {
        name: names::LOADER_DROPPED,
        unit: "By",
        description: "Bytes dropped from the page cache",
        of: |n| n.dropped_bytes,
    },
    Number {
        name: names::LOADER_FAILURES,
        unit: "{read}",
        description: "Reads that failed",
        of: |n| n.failures,
    },
];

/// Registers every gauge and counter of a daemon. Call it once, after [`crate::init`].
///
/// `numbers` is called once per instrument when an export is due, so it should be cheap.
pub fn observe_loader(numbers: impl Fn() -> LoaderNumbers + Send + Sync + 'static) {
    let source: Source<LoaderNumbers> = Arc::new(numbers);
    let meter = meter();
    gauges(&meter, &source, GAUGES);
    counters(&meter, &source, COUNTERS);
    read_bytes(&meter, &source);
}

fn read_bytes(meter: &Meter, source: &Source<LoaderNumbers>) {
    let source = Arc::clone(source);
    let callback = move |counter: &dyn opentelemetry::metrics::AsyncInstrument<u64>| {
        let numbers = source();
        for (kind, bytes) in [
            ("cold", numbers.cold_bytes),
            ("warm", numbers.warm_bytes),
            ("unknown", numbers.unknown_bytes),
        ] {
            counter.observe(bytes, &[KeyValue::new(names::LOAD_KIND, kind)]);
        }
    };
    meter
        .u64_observable_counter(names::LOADER_READ)
        .with_unit("By")
        .with_description("Bytes brought into the page cache or found there")
        .with_callback(callback)
        .build();
}
