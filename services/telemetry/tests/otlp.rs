//! Spans and metrics as a collector receives them: an rpc with a remote parent, a request below it, a link to a load.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::{
    collections::HashMap,
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame};
use opentelemetry_proto::tonic::{
    collector::{
        metrics::v1::{
            ExportMetricsServiceRequest, ExportMetricsServiceResponse,
            metrics_service_server::{MetricsService, MetricsServiceServer},
        },
        trace::v1::{
            ExportTraceServiceRequest, ExportTraceServiceResponse,
            trace_service_server::{TraceService, TraceServiceServer},
        },
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};
use telemetry::{Config, ServerTrace, metrics};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tower::{Layer as _, Service as _, service_fn};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";

/// A collector that keeps what it is sent.
#[derive(Clone, Default)]
struct Collector {
    traces: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    metrics: Arc<Mutex<Vec<ExportMetricsServiceRequest>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        self.traces.lock().unwrap().push(request.into_inner());
        Ok(tonic::Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, tonic::Status> {
        self.metrics.lock().unwrap().push(request.into_inner());
        Ok(tonic::Response::new(Default::default()))
    }
}

impl Collector {
    async fn start() -> (Collector, SocketAddr) {
        let collector = Collector::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(collector.clone()))
            .add_service(MetricsServiceServer::new(collector.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        (collector, address)
    }

    fn spans(&self) -> Vec<Span> {
        let traces = self.traces.lock().unwrap();
        traces
            .iter()
            .flat_map(|request| &request.resource_spans)
            .flat_map(|resource| &resource.scope_spans)
            .flat_map(|scope| scope.spans.clone())
            .collect()
    }

    fn span(&self, name: &str) -> Span {
        let mut found: Vec<Span> = self
            .spans()
            .into_iter()
            .filter(|span| span.name == name)
            .collect();
        assert_eq!(found.len(), 1, "spans named {name:?}: {found:#?}");
        found.remove(0)
    }

    fn resource(&self) -> HashMap<String, String> {
        let traces = self.traces.lock().unwrap();
        let resource = traces[0].resource_spans[0].resource.clone().unwrap();
        attributes(&resource.attributes)
    }

    fn metric_names(&self) -> Vec<String> {
        let metrics = self.metrics.lock().unwrap();
        metrics
            .iter()
            .flat_map(|request| &request.resource_metrics)
            .flat_map(|resource| &resource.scope_metrics)
            .flat_map(|scope| scope.metrics.iter().map(|metric| metric.name.clone()))
            .collect()
    }
}

fn attributes(list: &[KeyValue]) -> HashMap<String, String> {
    let text = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    list.iter()
        .map(|item| {
            let value = item.value.as_ref().and_then(|value| value.value.as_ref());
            (item.key.clone(), value.map(text).unwrap_or_default())
        })
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A body of trailers alone.
struct Trailers(Option<HeaderMap>);

impl Body for Trailers {
    type Data = &'static [u8];
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<&'static [u8]>, Infallible>>> {
        Poll::Ready(self.0.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }
}

fn ending_with(code: &'static str) -> Response<Trailers> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(code));
    Response::new(Trailers(Some(trailers)))
}

/// Calls `path` on a server whose handler runs `handle`, and reads the answer unless the client gives up first.
async fn call(
    trace: &ServerTrace,
    path: &str,
    read_answer: bool,
    handle: fn() -> Response<Trailers>,
) {
    let mut service = trace.layer(service_fn(move |_request: Request<()>| async move {
        Ok::<_, Infallible>(handle())
    }));
    let request = Request::builder()
        .uri(path)
        .header("traceparent", PARENT)
        .body(())
        .unwrap();
    let mut body = service.call(request).await.unwrap().into_body();
    if read_answer {
        std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
    }
}

fn generate() -> Response<Trailers> {
    let load = tracing::info_span!(parent: None, "model.load", cold_bytes = 4096_u64);
    let request = tracing::info_span!(
        "generate",
        model = "tiny",
        prompt_tokens = tracing::field::Empty
    );
    telemetry::link(&request, telemetry::span_context(&load).unwrap());
    request.record("prompt_tokens", 7_u64);
    ending_with("0")
}

fn config(endpoint: SocketAddr) -> Config {
    Config {
        otlp_endpoint: Some(format!("http://{endpoint}")),
        instance: "test-1".to_owned(),
        metrics_interval: Duration::from_secs(60),
        ..Config::logs_only()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_sees_the_whole_tree() {
    let (collector, address) = Collector::start().await;
    let guard = telemetry::init(&config(address), "hearth-test").unwrap();
    let trace = ServerTrace::new();
    metrics::observe_engine(metrics::EngineNumbers::default);

    call(&trace, "/pkg.Service/Generate", true, generate).await;
    call(&trace, "/pkg.Service/Fails", true, || ending_with("13")).await;
    call(&trace, "/pkg.Service/Refuses", true, || ending_with("5")).await;
    call(&trace, "/pkg.Service/GivesUp", false, || ending_with("0")).await;
    call(&trace, "/grpc.health.v1.Health/Check", true, || {
        ending_with("0")
    })
    .await;
    tokio::task::spawn_blocking(|| guard.shutdown())
        .await
        .unwrap();

    check_request_tree(&collector);
    let code = |name: &str| {
        attributes(&collector.span(name).attributes)["rpc.response.status_code"].clone()
    };
    assert_eq!(code("pkg.Service/Fails"), "INTERNAL");
    assert_eq!(code("pkg.Service/Refuses"), "NOT_FOUND");
    assert_eq!(code("pkg.Service/GivesUp"), "CANCELLED");
    let is_error = |name: &str| {
        collector
            .span(name)
            .status
            .is_some_and(|status| status.code() == StatusCode::Error)
    };
    assert!(is_error("pkg.Service/Fails"));
    assert!(
        !is_error("pkg.Service/Refuses"),
        "a client's mistake is no error of the server"
    );
    assert!(
        !collector
            .spans()
            .iter()
            .any(|span| span.name.contains("Health")),
        "probes are not traced"
    );

    let resource = collector.resource();
    assert_eq!(resource["service.name"], "hearth-test");
    assert_eq!(resource["service.instance.id"], "test-1");
    assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
    let metrics = collector.metric_names();
    for name in ["rpc.server.call.duration", "hearth.requests.queued"] {
        assert!(metrics.iter().any(|sent| sent == name), "{metrics:?}");
    }
}

fn check_request_tree(collector: &Collector) {
    let rpc = collector.span("pkg.Service/Generate");
    assert_eq!(hex(&rpc.trace_id), TRACE_ID, "the caller's trace goes on");
    assert_eq!(hex(&rpc.parent_span_id), "b7ad6b7169203331");
    assert_eq!(rpc.kind(), SpanKind::Server);
    let rpc_attributes = attributes(&rpc.attributes);
    assert_eq!(rpc_attributes["rpc.system.name"], "grpc");
    assert_eq!(rpc_attributes["rpc.method"], "pkg.Service/Generate");
    assert_eq!(rpc_attributes["rpc.response.status_code"], "OK");

    let request = collector.span("text_completion tiny");
    assert_eq!(request.trace_id, rpc.trace_id);
    assert_eq!(request.parent_span_id, rpc.span_id);
    let request_attributes = attributes(&request.attributes);
    assert_eq!(request_attributes["gen_ai.request.model"], "tiny");
    assert_eq!(request_attributes["gen_ai.usage.input_tokens"], "7");

    let load = collector.span("model.load");
    assert_ne!(load.trace_id, rpc.trace_id);
    assert_eq!(
        attributes(&load.attributes)["model.load.cold_bytes"],
        "4096"
    );
    assert_eq!(request.links.len(), 1);
    assert_eq!(request.links[0].span_id, load.span_id);
}
