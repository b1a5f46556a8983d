//! W3C trace context over gRPC metadata, and links between spans.

use http::HeaderMap;
use opentelemetry::{
    Context,
    propagation::{Extractor, Injector, TextMapPropagator as _},
    trace::{SpanContext, TraceContextExt as _},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tonic::metadata::{Ascii, MetadataKey, MetadataMap, MetadataValue};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// Writes the identity of `span` into outgoing metadata as `traceparent` and `tracestate`; nothing when the span is not recorded.
pub fn inject(metadata: &mut MetadataMap, span: &Span) {
    TraceContextPropagator::new().inject_context(&span.context(), &mut Metadata(metadata));
}

/// Reads the caller's trace context from incoming headers; an empty context when there is none or it is malformed.
#[must_use]
pub fn extract(headers: &HeaderMap) -> Context {
    // The propagator falls back to the current context, which on a server thread belongs to somebody else.
    TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(headers))
}

/// Identity of `span`; `None` when nothing is exported.
#[must_use]
pub fn span_context(span: &Span) -> Option<SpanContext> {
    let context = span.context().span().span_context().clone();
    context.is_valid().then_some(context)
}

/// Links `span` to `other`, as when many requests wait for one load.
pub fn link(span: &Span, other: SpanContext) {
    if other.is_valid() {
        span.add_link(other);
    }
}

/// A client interceptor that sends the current span along.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inject;

// === impl Inject ===

impl tonic::service::Interceptor for Inject {
    fn call(
        &mut self,
        mut request: tonic::Request<()>,
    ) -> Result<tonic::Request<()>, tonic::Status> {
        inject(request.metadata_mut(), &Span::current());
        Ok(request)
    }
}

struct Metadata<'a>(&'a mut MetadataMap);

impl Injector for Metadata<'_> {
    fn set(&mut self, key: &str, value: String) {
        // The propagator's own keys and values are ASCII; an empty `tracestate` says nothing.
        if value.is_empty() {
            return;
        }
        if let (Ok(key), Ok(value)) = (
            key.parse::<MetadataKey<Ascii>>(),
            value.parse::<MetadataValue<Ascii>>(),
        ) {
            self.0.insert(key, value);
        }
    }
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn headers(traceparent: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", traceparent.parse().unwrap());
        headers
    }

    #[test]
    fn a_caller_s_context_is_read() {
        let context = extract(&headers(PARENT));
        let span = context.span().span_context().clone();
        assert!(span.is_valid() && span.is_remote() && span.is_sampled());
        assert_eq!(
            span.trace_id().to_string(),
            "0af7651916cd43dd8448eb211c80319c"
        );
    }

    #[test]
    fn malformed_context_is_no_context() {
        for bad in [
            "",
            "00",
            "00-zz-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        ] {
            assert!(
                !extract(&headers(bad)).span().span_context().is_valid(),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn what_goes_out_comes_back_as_the_same_trace() {
        let provider = SdkTracerProvider::builder().build();
        let subscriber = tracing_subscriber::registry()
            .with(tracing_opentelemetry::layer().with_tracer(provider.tracer("test")));
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("rpc");
            span.set_parent(extract(&headers(PARENT))).unwrap();
            let mut metadata = MetadataMap::new();
            inject(&mut metadata, &span);
            let next = extract(&metadata.into_headers());
            let here = span_context(&span).unwrap();
            assert_eq!(
                next.span().span_context().trace_id().to_string(),
                "0af7651916cd43dd8448eb211c80319c"
            );
            assert_eq!(next.span().span_context().span_id(), here.span_id());
        });
    }

    #[test]
    fn without_an_exporter_nothing_is_sent() {
        let mut metadata = MetadataMap::new();
        inject(&mut metadata, &Span::none());
        assert!(metadata.is_empty());
        assert_eq!(span_context(&Span::none()), None);
    }
}
