//! Domain names become OpenTelemetry names on the way to the exporter.

use std::time::Duration;

use opentelemetry::{Array, KeyValue, StringValue, Value, trace::SpanKind};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{SpanData, SpanExporter},
};

use crate::names;

/// An exporter that renames spans and attributes as [`names`] says, then hands them on.
#[derive(Debug)]
pub(crate) struct Renaming<E>(pub(crate) E);

impl<E: SpanExporter> SpanExporter for Renaming<E> {
    async fn export(&self, mut batch: Vec<SpanData>) -> OTelSdkResult {
        batch.iter_mut().for_each(rename);
        self.0.export(batch).await
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.0.set_resource(resource);
    }
}

fn rename(span: &mut SpanData) {
    for attribute in &mut span.attributes {
        rename_attribute(attribute);
    }
    for event in &mut span.events.events {
        event.attributes.iter_mut().for_each(rename_attribute);
    }
    if span.name == names::SPAN_RPC {
        span.span_kind = SpanKind::Server;
        span.attributes
            .push(KeyValue::new(names::RPC_SYSTEM_NAME, "grpc"));
        if let Some(method) = text(span, names::RPC_METHOD) {
            span.name = method.into();
        }
    }
    if span.name == names::SPAN_GENERATE {
        span.attributes
            .push(KeyValue::new(names::GEN_AI_OPERATION, names::OPERATION));
        span.attributes
            .push(KeyValue::new(names::GEN_AI_PROVIDER, names::PROVIDER));
        span.name = match text(span, names::GEN_AI_REQUEST_MODEL) {
            Some(model) => format!("{} {model}", names::OPERATION).into(),
            None => names::OPERATION.into(),
        };
    }
}

/// An attribute as text.
fn text(span: &SpanData, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|a| a.key.as_str() == key);
    found.map(|attribute| attribute.value.to_string())
}

fn rename_attribute(attribute: &mut KeyValue) {
    let field = attribute.key.as_str();
    if names::is_number(field)
        && let Value::String(text) = &attribute.value
        && let Ok(number) = text.as_str().parse::<i64>()
    {
        attribute.value = Value::I64(number);
    }
    let Some(name) = names::attribute(field) else {
        return;
    };
    attribute.key = name.into();
    if names::LISTS.contains(&name)
        && let Value::String(value) = &attribute.value
    {
        attribute.value = Value::Array(Array::String(vec![StringValue::clone(value)]));
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{Span as _, Tracer as _, TracerProvider as _};
    use opentelemetry_sdk::trace::SdkTracerProvider;

    use super::*;
    use crate::memory::Spans;

    fn exported(name: &'static str, attributes: Vec<KeyValue>) -> SpanData {
        let memory = Spans::default();
        let provider = SdkTracerProvider::builder()
            .with_simple_exporter(Renaming(memory.clone()))
            .build();
        provider
            .tracer("test")
            .span_builder(name)
            .with_attributes(attributes)
            .start(&provider.tracer("test"))
            .end();
        memory.take().remove(0)
    }

    fn value(span: &SpanData, key: &str) -> Option<Value> {
        span.attributes
            .iter()
            .find(|attribute| attribute.key.as_str() == key)
            .map(|attribute| attribute.value.clone())
    }

    #[test]
    fn a_request_leaves_under_genai_names() {
        let attributes = vec![
            KeyValue::new("model", "tiny"),
            KeyValue::new("prompt_tokens", 7),
            KeyValue::new("finish_reason", "stop"),
            KeyValue::new("extent", 3),
            KeyValue::new("cold_bytes", "4096"),
            KeyValue::new("request_id", "4096"),
        ];
        let span = exported(names::SPAN_GENERATE, attributes);
        assert_eq!(span.name, "text_completion tiny");
        assert_eq!(value(&span, "gen_ai.request.model"), Some("tiny".into()));
        assert_eq!(value(&span, "gen_ai.usage.input_tokens"), Some(7.into()));
        assert_eq!(
            value(&span, "gen_ai.response.finish_reasons"),
            Some(Value::Array(Array::String(vec!["stop".into()])))
        );
        assert_eq!(value(&span, "gen_ai.provider.name"), Some("hearth".into()));
        assert_eq!(
            value(&span, "extent"),
            Some(3.into()),
            "unlisted fields keep their name"
        );
        assert_eq!(value(&span, "model"), None);
        assert_eq!(
            value(&span, "model.load.cold_bytes"),
            Some(Value::I64(4096)),
            "a number that came as text"
        );
        let id = value(&span, "gen_ai.response.id");
        assert_eq!(id, Some("4096".into()), "an id is text");
    }

    #[test]
    fn an_rpc_leaves_under_rpc_names() {
        let span = exported(
            names::SPAN_RPC,
            vec![
                KeyValue::new("method", "a.B/C"),
                KeyValue::new("code", "OK"),
            ],
        );
        assert_eq!(
            (span.name.as_ref(), &span.span_kind),
            ("a.B/C", &SpanKind::Server)
        );
        assert_eq!(value(&span, "rpc.method"), Some("a.B/C".into()));
        assert_eq!(value(&span, "rpc.response.status_code"), Some("OK".into()));
        assert_eq!(value(&span, "rpc.system.name"), Some("grpc".into()));
    }
}
