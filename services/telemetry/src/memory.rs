//! Exporters into memory, for tests.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use opentelemetry::KeyValue;
use opentelemetry_sdk::{
    error::OTelSdkResult,
    metrics::{
        Temporality,
        data::{AggregatedMetrics, MetricData, ResourceMetrics},
        exporter::PushMetricExporter,
    },
    trace::{SpanData, SpanExporter},
};

/// Keeps every exported span.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spans(Arc<Mutex<Vec<SpanData>>>);

/// Keeps every exported data point as `name{attribute values} value`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Points(Arc<Mutex<Vec<String>>>);

// === impl Spans ===

impl Spans {
    pub(crate) fn take(&self) -> Vec<SpanData> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl SpanExporter for Spans {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }
}

// === impl Points ===

impl Points {
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    fn add<'a>(
        &self,
        name: &str,
        attributes: impl Iterator<Item = &'a KeyValue>,
        value: impl ToString,
    ) {
        let attributes: Vec<String> = attributes.map(|a| a.value.to_string()).collect();
        let line = format!("{name}{{{}}} {}", attributes.join(","), value.to_string());
        self.0.lock().unwrap().push(line);
    }

    fn add_all<T: Copy + ToString>(&self, name: &str, data: &MetricData<T>) {
        match data {
            MetricData::Gauge(gauge) => gauge
                .data_points()
                .for_each(|p| self.add(name, p.attributes(), p.value())),
            MetricData::Sum(sum) => sum
                .data_points()
                .for_each(|p| self.add(name, p.attributes(), p.value())),
            MetricData::Histogram(histogram) => histogram
                .data_points()
                .for_each(|p| self.add(name, p.attributes(), p.count())),
            MetricData::ExponentialHistogram(_) => panic!("{name}: not one of ours"),
        }
    }
}

impl PushMetricExporter for Points {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        for metric in metrics.scope_metrics().flat_map(|scope| scope.metrics()) {
            match metric.data() {
                AggregatedMetrics::F64(data) => self.add_all(metric.name(), data),
                AggregatedMetrics::U64(data) => self.add_all(metric.name(), data),
                AggregatedMetrics::I64(data) => self.add_all(metric.name(), data),
            }
        }
        Ok(())
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn temporality(&self) -> Temporality {
        Temporality::Cumulative
    }
}
