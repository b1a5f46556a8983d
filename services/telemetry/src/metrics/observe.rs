//! Instruments that are read when an export is due.

use std::sync::Arc;

use opentelemetry::{KeyValue, metrics::Meter};

use crate::names;

/// Where the present numbers come from.
pub(super) type Source<T> = Arc<dyn Fn() -> T + Send + Sync>;

/// One number among those that a source gives.
pub(super) struct Number<T: 'static> {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) description: &'static str,
    pub(super) of: fn(&T) -> u64,
}

/// One number per item of a list, told apart by the model's id.
pub(super) struct PerModel<T: 'static, M: 'static> {
    pub(super) models: fn(&T) -> &[M],
    pub(super) id: fn(&M) -> &str,
}

/// Registers numbers that go up and down.
pub(super) fn gauges<T>(meter: &Meter, source: &Source<T>, numbers: &'static [Number<T>]) {
    for number in numbers {
        let source = Arc::clone(source);
        meter
            .u64_observable_gauge(number.name)
            .with_unit(number.unit)
            .with_description(number.description)
            .with_callback(move |gauge| gauge.observe((number.of)(&source()), &[]))
            .build();
    }
}

/// Registers numbers that only grow.
pub(super) fn counters<T>(meter: &Meter, source: &Source<T>, numbers: &'static [Number<T>]) {
    for number in numbers {
        let source = Arc::clone(source);
        meter
            .u64_observable_counter(number.name)
            .with_unit(number.unit)
            .with_description(number.description)
            .with_callback(move |counter| counter.observe((number.of)(&source()), &[]))
            .build();
    }
}

// === impl PerModel ===

impl<T, M> PerModel<T, M> {
    pub(super) fn gauges(
        &'static self,
        meter: &Meter,
        source: &Source<T>,
        numbers: &'static [Number<M>],
    ) {
        for number in numbers {
            let source = Arc::clone(source);
            meter
                .u64_observable_gauge(number.name)
                .with_unit(number.unit)
                .with_description(number.description)
                .with_callback(move |gauge| {
                    self.each(&source(), number.of, |value, id| {
                        gauge.observe(value, &[id])
                    });
                })
                .build();
        }
    }

    pub(super) fn counters(
        &'static self,
        meter: &Meter,
        source: &Source<T>,
        numbers: &'static [Number<M>],
    ) {
        for number in numbers {
            let source = Arc::clone(source);
            meter
                .u64_observable_counter(number.name)
                .with_unit(number.unit)
                .with_description(number.description)
                .with_callback(move |counter| {
                    self.each(&source(), number.of, |value, id| {
                        counter.observe(value, &[id])
                    });
                })
                .build();
        }
    }

    fn each(&self, numbers: &T, of: fn(&M) -> u64, mut observe: impl FnMut(u64, KeyValue)) {
        for model in (self.models)(numbers) {
            let id = (self.id)(model).to_owned();
            observe(of(model), KeyValue::new(names::GEN_AI_REQUEST_MODEL, id));
        }
    }
}
