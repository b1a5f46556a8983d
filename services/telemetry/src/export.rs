//! Setting up the log and, where an endpoint is given, the export of traces and metrics.

use std::{
    io::IsTerminal as _,
    sync::mpsc::{RecvTimeoutError, sync_channel},
    thread,
    time::Duration,
};

use opentelemetry::{KeyValue, trace::TracerProvider as _};
use opentelemetry_otlp::{ExporterBuildError, MetricExporter, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    metrics::{PeriodicReader, SdkMeterProvider},
    trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider},
};
use tokio::runtime::{Builder, Runtime};
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer, filter::filter_fn, fmt, layer::SubscriberExt as _, registry::LookupSpan,
    util::SubscriberInitExt as _,
};

use crate::{Config, LogFormat, rename::Renaming};

/// How long a process waits for its last spans and metrics to leave. A collector that is away must not keep a pod from ending.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);
/// How long one export may take.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long finished spans wait for company.
const BATCH_DELAY: Duration = Duration::from_millis(500);
/// Name of the tracer: the scope under which all spans leave.
const SCOPE: &str = "hearth";

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log filter does not parse.
    #[error("log filter {filter:?}")]
    Filter {
        /// What was given.
        filter: String,
        /// Why not.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// The OTLP exporter refused its settings.
    #[error("OTLP exporter for {endpoint}")]
    Exporter {
        /// The endpoint in question.
        endpoint: String,
        /// Why not.
        #[source]
        source: ExporterBuildError,
    },
    /// The exporter's thread could not be started.
    #[error("thread for the OTLP exporter")]
    Thread(#[source] std::io::Error),
    /// This process has set up its log before.
    #[error("telemetry is set up already")]
    AlreadySet(#[source] tracing_subscriber::util::TryInitError),
}

/// Sets up logs on stderr and, when `config.otlp_endpoint` is set, the export of traces and metrics under `service.name` = `service_name`.
///
/// Works inside and outside a tokio runtime: the exporter's connection lives on a thread of its own, so that spans still leave while the caller's runtime is busy or gone.
///
/// # Errors
/// [`Error::AlreadySet`] on the second call in a process; the other variants when a setting cannot be used.
pub fn init(config: &Config, service_name: &'static str) -> Result<Guard, Error> {
    let filter = config
        .log
        .parse::<EnvFilter>()
        .map_err(|source| Error::Filter {
            filter: config.log.clone(),
            source,
        })?;
    let export = config
        .otlp_endpoint
        .as_deref()
        .map(|endpoint| Export::start(endpoint, config, service_name))
        .transpose()?;
    let spans = export.as_ref().map(|export| {
        tracing_opentelemetry::layer()
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_target(false)
            .with_tracer(export.traces.tracer(SCOPE))
            .with_filter(filter_fn(is_exported))
    });
    tracing_subscriber::registry()
        .with(spans)
        .with(log_layer(config.log_format).with_filter(filter))
        .try_init()
        .map_err(Error::AlreadySet)?;
    if let Some(export) = &export {
        opentelemetry::global::set_meter_provider(export.metrics.clone());
    }
    Ok(Guard { export })
}

fn log_layer<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let layer = fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Text => layer.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => layer
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .boxed(),
    }
}

/// Our own spans and events leave; those of the transport, which also carries the export itself, do not.
fn is_exported(metadata: &Metadata<'_>) -> bool {
    const TRANSPORT: [&str; 6] = [
        "h2",
        "hyper",
        "hyper_util",
        "opentelemetry",
        "tonic",
        "tower",
    ];
    let root = metadata.target().split("::").next().unwrap_or_default();
    *metadata.level() <= Level::INFO && !TRANSPORT.iter().any(|name| root.starts_with(name))
}

/// Keeps the exporters. Dropping it flushes what is left, for at most three seconds.
#[derive(Debug)]
#[must_use = "dropping the guard ends the export"]
pub struct Guard {
    export: Option<Export>,
}

// === impl Guard ===

impl Guard {
    /// Flushes what is left, for at most three seconds, and ends the export. Blocks; the last thing that `main` does.
    pub fn shutdown(mut self) {
        self.finish();
    }

    fn finish(&mut self) {
        if let Some(export) = self.export.take() {
            export.shutdown(FLUSH_TIMEOUT);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.finish();
    }
}

#[derive(Debug)]
struct Export {
    traces: SdkTracerProvider,
    metrics: SdkMeterProvider,
    runtime: Runtime,
}

// === impl Export ===

impl Export {
    fn start(endpoint: &str, config: &Config, service_name: &'static str) -> Result<Export, Error> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("telemetry")
            .enable_all()
            .build()
            .map_err(Error::Thread)?;
        let refused = |source| Error::Exporter {
            endpoint: endpoint.to_owned(),
            source,
        };
        let (spans, metrics) = {
            // The channels are lazy, but they bind to the runtime that is entered when they are made.
            let _entered = runtime.enter();
            let spans = SpanExporter::builder()
                .with_tonic()
                .with_endpoint(endpoint)
                .with_timeout(EXPORT_TIMEOUT)
                .build()
                .map_err(refused)?;
            let metrics = MetricExporter::builder()
                .with_tonic()
                .with_endpoint(endpoint)
                .with_timeout(EXPORT_TIMEOUT)
                .build()
                .map_err(refused)?;
            (spans, metrics)
        };
        let resource = resource(config, service_name);
        let batches = BatchConfigBuilder::default()
            .with_scheduled_delay(BATCH_DELAY)
            .build();
        let traces = SdkTracerProvider::builder()
            .with_resource(resource.clone())
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(
                config.trace_ratio,
            ))))
            .with_span_processor(
                BatchSpanProcessor::builder(Renaming(spans))
                    .with_batch_config(batches)
                    .build(),
            )
            .build();
        let reader = PeriodicReader::builder(metrics)
            .with_interval(config.metrics_interval)
            .build();
        let metrics = SdkMeterProvider::builder()
            .with_resource(resource)
            .with_reader(reader)
            .build();
        Ok(Export {
            traces,
            metrics,
            runtime,
        })
    }

    /// The SDK's own time-outs differ by signal and do not add up to one, so both shut down on a thread that is waited for only so long.
    fn shutdown(self, timeout: Duration) {
        let Export {
            traces,
            metrics,
            runtime,
        } = self;
        let (done, finished) = sync_channel(1);
        let flush = move || {
            let outcome = traces
                .shutdown_with_timeout(timeout)
                .and(metrics.shutdown_with_timeout(timeout));
            let _gone_when_nobody_waits = done.send(outcome);
        };
        match thread::Builder::new()
            .name("telemetry-flush".to_owned())
            .spawn(flush)
            .map(|_| finished.recv_timeout(timeout))
        {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::warn!(%error, "the last telemetry was not delivered"),
            Ok(Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected)) => {
                tracing::warn!(?timeout, "the last telemetry was given up")
            }
            Err(error) => tracing::warn!(%error, "no thread to flush telemetry with"),
        }
        // Never blocks, so a guard may be dropped inside another runtime.
        runtime.shutdown_background();
    }
}

fn resource(config: &Config, service_name: &'static str) -> Resource {
    Resource::builder()
        .with_service_name(service_name)
        .with_attributes([
            KeyValue::new("service.namespace", "hearth"),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", config.instance.clone()),
            KeyValue::new("process.pid", i64::from(std::process::id())),
        ])
        .build()
}
