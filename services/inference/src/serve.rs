//! One service from its bound socket to its last answer.
//!
//! The way down: readiness is withdrawn, new calls are refused with `UNAVAILABLE`, those under way may finish within the drain time-out, the rest is cancelled, and what has not ended even
//! then is cut off. Connections stay open until the last call has left, so that refusals are heard; only then are they told to go.

use std::{future::Future, time::Duration};

use engine::{Engine, EngineConfig, StartError, Stats};
use kernels::{Device, DeviceError};
use telemetry::{
    ServerTrace,
    metrics::{Requests, observe_engine},
};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet, spawn_blocking},
    time::{sleep, timeout},
};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    service::Routes,
    transport::{self, Server, server::TcpIncoming},
};
use tracing::{Span, info_span};

use crate::{
    Config, Listener,
    daemon::Daemon,
    device,
    error::Chain,
    faces,
    gate::Gate,
    generate::Generator,
    health::Readiness,
    inference_service::Inference,
    load::{Preloaded, Preparing},
    message_limit::MessageLimit,
    model_service::{DeviceFacts, ModelFace},
    models::Models,
    numbers::numbers,
    text_pool::TextPool,
};

/// How long those who were cancelled may take to hear of it.
const CANCEL_GRACE: Duration = Duration::from_secs(2);
/// How long idle connections may take to close; health watchers and reflection streams end only when they are cut off.
const CLOSE_GRACE: Duration = Duration::from_secs(1);
/// Time between two tries to attach a model of `--preload`.
const PRELOAD_RETRY: Duration = Duration::from_secs(1);
/// Time between two looks at whether the worker lives.
const WORKER_CHECK: Duration = Duration::from_millis(500);
/// Events of one request that may lie unread before it stands still.
const EVENT_CAPACITY: usize = 32;
/// Calls at a time on one connection; a gateway in front of us puts many clients on one.
const STREAMS_PER_CONNECTION: u32 = 1024;
/// A peer that vanished is found out within the sum of these.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the service could not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The device cannot be used.
    #[error("the device")]
    Device(#[from] DeviceError),
    /// The engine did not start.
    #[error("the engine")]
    Engine(#[from] StartError),
    /// The descriptors that were compiled in cannot be read.
    #[error("the reflection service")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The listener failed.
    #[error("the gRPC server")]
    Transport(#[from] transport::Error),
    /// A task of ours died: a bug.
    #[error("{what} ended by itself")]
    Lost {
        /// Which one.
        what: &'static str,
    },
}

/// Serves on `listener` until `shutdown` resolves, then drains for at most `config.drain_timeout` and a few seconds. Health answers from the first moment.
///
/// # Errors
/// [`ServeError`]; what was under way is then cancelled.
pub async fn serve(
    listener: impl Into<Listener>,
    config: Config,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    Prepared::new(config).await?.serve(listener, shutdown).await
}

/// A service that lacks nothing but its listener: the device is open, the engine runs, and the models of `--preload` are being attached. It reads no weight before it serves.
pub(crate) struct Prepared {
    config: Config,
    engine: Engine,
    gate: Gate,
    routes: Routes,
    readiness: Readiness,
    preloads: JoinSet<()>,
    /// Cancelled when it begins to serve.
    serving: CancellationToken,
}

// === impl Prepared ===

impl Prepared {
    /// Opens the device, starts the engine, and begins to attach what is to be preloaded. A GPU's driver takes its time: what attaching can do without the device it does meanwhile.
    ///
    /// # Errors
    /// [`ServeError`]
    pub(crate) async fn new(config: Config) -> Result<Prepared, ServeError> {
        let daemon = Daemon::new(config.loader_socket.clone(), &config.telemetry.instance);
        let preparing = config
            .preload
            .iter()
            .map(|model| Preparing::begin(&daemon, config.fetch_timeout, model))
            .collect();
        // Of its phases the last one, the ring, is the engine's threads' and goes on beside what follows.
        let opening = info_span!("device.open");
        let device = open_device(&config, opening.clone()).await?;
        let facts = DeviceFacts {
            kind: device.kind(),
            description: device.description(),
        };
        tracing::info!(kind = facts.kind, description = facts.description, "device");
        let engine = opening.in_scope(|| Engine::start(engine_config(&config, device)))?;
        drop(opening);
        let observed = engine.watch_stats();
        observe_engine(move || numbers(&observed.borrow()));

        let service = Service::new(&config, engine.clone(), daemon);
        let (readiness, health) = Readiness::new().await;
        let serving = CancellationToken::new();
        let preloads = preload(&service.models, preparing, &readiness, serving.clone());
        let routes = faces::routes(
            service.inference(&config),
            service.model_face(facts),
            health,
            config.max_message_bytes,
        )?;
        Ok(Prepared {
            config,
            engine,
            gate: service.gate,
            routes,
            readiness,
            preloads,
            serving,
        })
    }

    /// Serves as [`serve`] does.
    ///
    /// # Errors
    /// [`ServeError`]
    pub(crate) async fn serve(
        mut self,
        listener: impl Into<Listener>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        self.serving.cancel();
        let stop = CancellationToken::new();
        let mut server = start(listener.into(), self.routes, &self.config, stop.clone());
        let outcome = tokio::select! {
            () = shutdown => Ok(()),
            ended = &mut server => return ended.unwrap_or(Err(ServeError::Lost { what: "the gRPC server" })),
            () = worker_gone(self.engine.watch_stats()) => Err(ServeError::Lost { what: "the engine's worker" }),
        };
        self.preloads.abort_all();
        self.readiness.not_ready().await;
        drain(&self.gate, self.engine, self.config.drain_timeout).await;
        stop.cancel();
        if timeout(CLOSE_GRACE, &mut server).await.is_err() {
            tracing::debug!("cutting off connections that did not close");
            server.abort();
        }
        outcome
    }
}

/// The parts that calls are worked on with.
struct Service {
    gate: Gate,
    models: Models,
}

// === impl Service ===

impl Service {
    fn new(config: &Config, engine: Engine, daemon: Daemon) -> Service {
        // What the engine works on, what it queues, and as many again that are on their way to it: being tokenised, or waiting for a model.
        let requests = 2 * (config.max_running.get() + config.max_queued.get());
        Service {
            gate: Gate::new(requests),
            models: Models::new(engine, daemon, config.fetch_timeout, config.auto_attach),
        }
    }

    fn inference(&self, config: &Config) -> Inference {
        let generator = Generator {
            models: self.models.clone(),
            text: TextPool::new(config.text_threads),
            requests: Requests::new(),
        };
        Inference {
            gate: self.gate.clone(),
            generator,
        }
    }

    fn model_face(&self, device: DeviceFacts) -> ModelFace {
        ModelFace {
            gate: self.gate.clone(),
            models: self.models.clone(),
            device,
        }
    }
}

/// Opens the device on a thread that may block.
async fn open_device(config: &Config, span: Span) -> Result<Device, ServeError> {
    let config = config.clone();
    let opening = spawn_blocking(move || span.in_scope(|| device::open(&config)));
    let opened = opening.await.map_err(|_| ServeError::Lost {
        what: "opening the device",
    })?;
    Ok(opened?)
}

fn engine_config(config: &Config, device: Device) -> EngineConfig {
    let max_running = config.max_running.get();
    let prefill_chunk_tokens = device::prefill_chunk_tokens(config, &device);
    EngineConfig {
        kv_budget_bytes: device::kv_budget_bytes(config, &device),
        kv_type: device::kv_type(config, &device),
        device,
        weights_budget_bytes: config.weights_budget_bytes,
        parked: config.standby.is_some(),
        fetch_threads: config.fetch_threads,
        prefetch_window_bytes: config.prefetch_window_bytes,
        max_running,
        max_queued: config.max_queued.get(),
        prefill_chunk_tokens,
        step_target: config.step_target,
        max_batch_rows: prefill_chunk_tokens + max_running,
        event_capacity: EVENT_CAPACITY,
        slow_client_timeout: config.slow_client_timeout,
    }
}

fn start(
    listener: Listener,
    routes: Routes,
    config: &Config,
    stop: CancellationToken,
) -> JoinHandle<Result<(), ServeError>> {
    let limit_bytes = config.max_message_bytes;
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .layer(ServerTrace::new())
        .layer(MessageLimit { limit_bytes });
    tokio::spawn(async move {
        let stopped = stop.cancelled_owned();
        match listener {
            Listener::Tcp(listener) => {
                let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
                server
                    .serve_with_incoming_shutdown(routes, incoming, stopped)
                    .await?;
            }
            Listener::Unix(listener) => {
                let incoming = UnixListenerStream::new(listener);
                server
                    .serve_with_incoming_shutdown(routes, incoming, stopped)
                    .await?;
            }
        }
        Ok(())
    })
}

/// Attaches every model of `--preload`, however long it takes; once `serving` is cancelled, reports readiness and goes on to bring their weights in: a request that comes earlier has the ones it
/// needs fetched first.
fn preload(
    models: &Models,
    preparing: Vec<Preparing>,
    readiness: &Readiness,
    serving: CancellationToken,
) -> JoinSet<()> {
    let (models, readiness) = (models.clone(), readiness.clone());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut preloaded = Vec::new();
        for model in preparing {
            let name = model.model.clone();
            preloaded.push((name, attach_at_last(&models, model).await));
        }
        serving.cancelled().await;
        readiness.ready().await;
        tracing::info!("ready");
        for (name, model) in preloaded {
            if let Err(error) = model.fetch(&models).await {
                // It is attached, so it can be served: its layers come as steps need them.
                let cause = Chain(&error).to_string();
                tracing::warn!(
                    model = name,
                    cause,
                    "preload: not all weights are on the device"
                );
            }
        }
    });
    tasks
}

async fn attach_at_last(models: &Models, preparing: Preparing) -> Preloaded {
    let model = preparing.model.clone();
    let mut outcome = preparing.attach(models).await;
    loop {
        match outcome {
            Ok(preloaded) => return preloaded,
            Err(error) => {
                let cause = Chain(&error).to_string();
                tracing::warn!(model, cause, "preload failed; trying again");
            }
        }
        sleep(PRELOAD_RETRY).await;
        outcome = Preloaded::attach(models, &model).await;
    }
}

/// Resolves when the worker has ended: nothing can be served any more, and whoever watches over this process should start another.
async fn worker_gone(stats: watch::Receiver<Stats>) {
    // Looked at now and then: to be woken by every snapshot would cost a switch of threads for each step.
    while stats.has_changed().is_ok() {
        sleep(WORKER_CHECK).await;
    }
}

async fn drain(gate: &Gate, engine: Engine, drain_timeout: Duration) {
    gate.drain();
    tracing::info!(calls = gate.inside(), ?drain_timeout, "draining");
    if timeout(drain_timeout, gate.empty()).await.is_err() {
        tracing::warn!(
            calls = gate.inside(),
            "cancelling what did not finish in time"
        );
    }
    gate.close();
    if timeout(CANCEL_GRACE, engine.shutdown()).await.is_err() {
        tracing::warn!("the engine's worker is still in a step");
    }
    if timeout(CANCEL_GRACE, gate.empty()).await.is_err() {
        tracing::warn!(calls = gate.inside(), "cutting off what did not end");
    }
}
