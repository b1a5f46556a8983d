//! State of an inference service: queue, KV cache, resident weights, plan counters.

use std::sync::Arc;

use opentelemetry::{KeyValue, metrics::Meter};

use super::{
    meter,
    observe::{Number, PerModel, Source, counters, gauges},
};
use crate::names;

/// State of an engine at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EngineNumbers {
    /// Requests that wait for their first batch.
    pub queued_requests: u64,
    /// Sequences that are being worked on.
    pub running_requests: u64,
    /// Of these, sequences that stand still because their events are not read.
    pub parked_requests: u64,
    /// Times that a running sequence gave its KV cache to an older one, since the start.
    pub preemptions: u64,
    /// Bytes of KV cache in use.
    pub kv_used_bytes: u64,
    /// Bytes of KV cache that are only kept for reuse; they make room when it is needed.
    pub kv_kept_bytes: u64,
    /// Most bytes of KV cache.
    pub kv_budget_bytes: u64,
    /// Bytes of weights on the device.
    pub weights_resident_bytes: u64,
    /// Most bytes of weights kept on the device; 0 is unlimited.
    pub weights_budget_bytes: u64,
    /// The attached models.
    pub models: Vec<ModelNumbers>,
}

/// State of one attached model. All but the first two fields are counts since its plan was built.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelNumbers {
    /// Its id.
    pub model: String,
    /// Bytes of it on the device.
    pub resident_bytes: u64,
    /// Times a step found an extent resident.
    pub hits: u64,
    /// Times a step had to wait for an extent.
    pub misses: u64,
    /// Extents fetched.
    pub loads: u64,
    /// Extents evicted.
    pub evictions: u64,
    /// Fetches that failed.
    pub failures: u64,
    /// Bytes fetched from the storage device.
    pub cold_bytes: u64,
    /// Bytes fetched from the page cache.
    pub warm_bytes: u64,
    /// Bytes fetched from a file system that does not account for its reads.
    pub unknown_bytes: u64,
    /// Bytes that this process read because the daemon did not answer.
    pub self_read_bytes: u64,
    /// Forward passes.
    pub steps: u64,
    /// Prompt tokens of sequences that began, whether computed or found.
    pub prefix_queries: u64,
    /// Of these, tokens whose KV cache was found.
    pub prefix_hits: u64,
    /// KV blocks whose room was needed for others.
    pub kv_evictions: u64,
}

const GAUGES: &[Number<EngineNumbers>] = &[
    Number {
        name: names::REQUESTS_QUEUED,
        unit: "{request}",
        description: "Requests that wait for their first batch",
        of: |n| n.queued_requests,
    },
    Number {
        name: names::REQUESTS_RUNNING,
        unit: "{request}",
        description: "Sequences that are being worked on",
        of: |n| n.running_requests,
    },
    Number {
        name: names::REQUESTS_PARKED,
        unit: "{request}",
        description: "Sequences that stand still because their events are not read",
        of: |n| n.parked_requests,
    },
    Number {
        name: names::KV_USED,
        unit: "By",
        description: "Bytes of KV cache in use",
        of: |n| n.kv_used_bytes,
    },
    Number {
        name: names::KV_KEPT,
        unit: "By",
        description: "Bytes of KV cache that are only kept for reuse",
        of: |n| n.kv_kept_bytes,
    },
    Number {
        name: names::KV_BUDGET,
        unit: "By",
        description: "Most bytes of KV cache",
        of: |n| n.kv_budget_bytes,
    },
    Number {
        name: names::WEIGHTS_RESIDENT,
        unit: "By",
        description: "Bytes of weights on the device",
        of: |n| n.weights_resident_bytes,
    },
    Number {
        name: names::WEIGHTS_BUDGET,
        unit: "By",
        description: "Most bytes of weights kept on the device; 0 is unlimited",
        of: |n| n.weights_budget_bytes,
    },
];

const COUNTERS: &[Number<EngineNumbers>] = &[Number {
    name: names::PREEMPTIONS,
    unit: "{preemption}",
    description: "Times that a sequence gave its KV cache to an older one",
    of: |n| n.preemptions,
}];

const MODEL_GAUGES: &[Number<ModelNumbers>] = &[Number {
    name: names::MODEL_RESIDENT,
    unit: "By",
    description: "Bytes of a model on the device",
    of: |n| n.resident_bytes,
}];

const MODEL_COUNTERS: &[Number<ModelNumbers>] = &[
    Number {
        name: names::PLAN_HITS,
        unit: "{extent}",
        description: "Times a step found an extent resident",
        of: |n| n.hits,
    },
    Number {
        name: names::PLAN_MISSES,
        unit: "{extent}",
        description: "Times a step had to wait for an extent",
        of: |n| n.misses,
    },
    Number {
        name: names::PLAN_LOADS,
        unit: "{extent}",
        description: "Extents fetched",
        of: |n| n.loads,
    },
    Number {
        name: names::PLAN_EVICTIONS,
        unit: "{extent}",
        description: "Extents evicted",
        of: |n| n.evictions,
    },
    Number {
        name: names::PLAN_FAILURES,
        unit: "{fetch}",
        description: "Fetches that failed",
        of: |n| n.failures,
    },
    Number {
        name: names::STEPS,
        unit: "{step}",
        description: "Forward passes",
        of: |n| n.steps,
    },
    Number {
        name: names::PREFIX_QUERIES,
        unit: "{token}",
        description: "Prompt tokens of sequences that began, whether computed or found",
        of: |n| n.prefix_queries,
    },
    Number {
        name: names::PREFIX_HITS,
        unit: "{token}",
        description: "Prompt tokens whose KV cache was found instead of computed",
        of: |n| n.prefix_hits,
    },
    Number {
        name: names::KV_EVICTIONS,
        unit: "{block}",
        description: "KV blocks that were kept for reuse until their room was needed",
        of: |n| n.kv_evictions,
    },
    Number {
        name: names::SELF_READ,
        unit: "By",
        description: "Bytes that the service read because the daemon did not answer",
        of: |n| n.self_read_bytes,
    },
];

static MODELS: PerModel<EngineNumbers, ModelNumbers> = PerModel {
    models: |numbers| &numbers.models,
    id: |model| &model.model,
};

/// Registers every gauge and counter of an engine. Call it once, after [`crate::init`].
///
/// `numbers` is called once per instrument when an export is due, so it should be cheap.
pub fn observe_engine(numbers: impl Fn() -> EngineNumbers + Send + Sync + 'static) {
    observe_engine_on(&meter(), &(Arc::new(numbers) as Source<EngineNumbers>));
}

fn observe_engine_on(meter: &Meter, source: &Source<EngineNumbers>) {
    gauges(meter, source, GAUGES);
    counters(meter, source, COUNTERS);
    kv_utilization(meter, source);
    MODELS.gauges(meter, source, MODEL_GAUGES);
    MODELS.counters(meter, source, MODEL_COUNTERS);
    fetched_bytes(meter, source);
}

fn kv_utilization(meter: &Meter, source: &Source<EngineNumbers>) {
    let source = Arc::clone(source);
    let callback = move |gauge: &dyn opentelemetry::metrics::AsyncInstrument<f64>| {
        gauge.observe(kv_share(&source()), &[])
    };
    meter
        .f64_observable_gauge(names::KV_UTILIZATION)
        .with_unit("1")
        .with_description("Share of the KV cache in use, from 0 to 1")
        .with_callback(callback)
        .build();
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a share needs no more than 52 bits"
)]
fn kv_share(numbers: &EngineNumbers) -> f64 {
    if numbers.kv_budget_bytes == 0 {
        return 0.0;
    }
    numbers.kv_used_bytes as f64 / numbers.kv_budget_bytes as f64
}

fn fetched_bytes(meter: &Meter, source: &Source<EngineNumbers>) {
    let source = Arc::clone(source);
    let callback = move |counter: &dyn opentelemetry::metrics::AsyncInstrument<u64>| {
        for model in source().models {
            let name = KeyValue::new(names::GEN_AI_REQUEST_MODEL, model.model);
            for (kind, bytes) in [
                ("cold", model.cold_bytes),
                ("warm", model.warm_bytes),
                ("unknown", model.unknown_bytes),
            ] {
                counter.observe(
                    bytes,
                    &[name.clone(), KeyValue::new(names::LOAD_KIND, kind)],
                );
            }
        }
    };
    meter
        .u64_observable_counter(names::FETCHED)
        .with_unit("By")
        .with_description("Bytes of weights fetched, by where they came from")
        .with_callback(callback)
        .build();
}

#[cfg(test)]
mod tests {
    use opentelemetry::metrics::MeterProvider as _;
    use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};

    use super::*;
    use crate::memory::Points;

    fn exported(numbers: EngineNumbers) -> Vec<String> {
        let points = Points::default();
        let reader = PeriodicReader::builder(points.clone()).build();
        let provider = SdkMeterProvider::builder().with_reader(reader).build();
        observe_engine_on(
            &provider.meter("test"),
            &(Arc::new(move || numbers.clone()) as Source<EngineNumbers>),
        );
        provider.force_flush().unwrap();
        points.take()
    }

    #[test]
    fn numbers_leave_under_their_names() {
        let model = ModelNumbers {
            model: "tiny".to_owned(),
            hits: 5,
            cold_bytes: 100,
            ..ModelNumbers::default()
        };
        let lines = exported(EngineNumbers {
            queued_requests: 3,
            models: vec![model],
            ..EngineNumbers::default()
        });
        assert!(
            lines.contains(&"hearth.requests.queued{} 3".to_owned()),
            "{lines:#?}"
        );
        assert!(
            lines.contains(&"hearth.plan.hits{tiny} 5".to_owned()),
            "{lines:#?}"
        );
        assert!(
            lines
                .iter()
                .any(|line| line.starts_with("hearth.weights.fetched")
                    && line.contains("cold")
                    && line.ends_with(" 100")),
            "{lines:#?}"
        );
    }

    #[test]
    fn an_empty_cache_is_not_a_division() {
        assert_eq!(kv_share(&EngineNumbers::default()), 0.0);
        assert_eq!(
            kv_share(&EngineNumbers {
                kv_used_bytes: 1,
                kv_budget_bytes: 4,
                ..EngineNumbers::default()
            }),
            0.25
        );
    }
}
