//! The daemon, from bound sockets to the last call.

use std::{io, path::Path, sync::Arc, time::Duration};

use proto::loader::v1::loader_service_server::{LoaderServiceServer, SERVICE_NAME};
use tokio::{
    net::{TcpListener, UnixListener},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tonic::{service::Routes, transport::Server};
use tonic_health::{ServingStatus, server::HealthReporter};
use weights::handoff::{HandoffLimits, HandoffServer};

use crate::{
    book::Book,
    clock::Clock,
    config::Config,
    follow::{FollowError, Follower},
    gate::Gate,
    listen::{Listen, connections},
    node::Node,
    pins::{Pins, look_after},
    service::Service,
};

/// The largest request: ids, tokens and names only.
const REQUEST_BYTES_MAX: usize = 64 << 10;
const STREAMS_PER_CONNECTION: u32 = 256;
/// A peer that does not answer within these is gone.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the transport, and the hand-off server, get to say goodbye once the last call has ended.
const GOODBYE: Duration = Duration::from_secs(1);

/// Bound sockets to serve on.
#[derive(Debug)]
pub struct Listeners {
    /// The daemon's own socket.
    pub unix: UnixListener,
    /// The TCP port, where asked for.
    pub tcp: Option<TcpListener>,
}

/// Why the daemon could not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Threads or random numbers could not be had.
    #[error("starting: {0}")]
    Start(#[source] io::Error),
    /// The hand-off socket could not be bound.
    #[error("hand-off socket: {0}")]
    Handoff(#[source] io::Error),
    /// The model directory could not be taken in.
    #[error("{0}")]
    Models(String),
    /// The reflection service refused the descriptor set.
    #[error("reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The transport failed.
    #[error("transport: {0}")]
    Transport(#[from] tonic::transport::Error),
}

// === impl Listeners ===

impl From<UnixListener> for Listeners {
    fn from(unix: UnixListener) -> Listeners {
        Listeners { unix, tcp: None }
    }
}

/// Serves until `shutdown` resolves, then drains.
///
/// Health answers at once; calls wait until the model directory has been walked. The drain lets calls finish for `config.drain_timeout`, cuts off the rest, and ends within two seconds more.
///
/// # Errors
/// [`ServeError`], if it cannot begin to serve or the transport fails.
pub async fn serve(
    listeners: impl Into<Listeners>,
    config: Config,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    serve_with(listeners, config, Clock::system(), shutdown).await
}

/// The same, with the time taken from elsewhere.
///
/// # Errors
/// As [`serve`].
pub async fn serve_with(
    listeners: impl Into<Listeners>,
    config: Config,
    clock: Clock,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let daemon = Daemon::start(&config, clock).await?;
    let stop = CancellationToken::new();
    let mut servers = daemon.serve(listeners.into(), &config, &stop)?;
    let mut tasks = daemon.background(&config, &stop);

    let outcome = tokio::select! {
        () = shutdown => Ok(()),
        Some(ended) = servers.join_next() => ended.unwrap_or(Ok(())).map_err(ServeError::from),
        Some(ended) = tasks.join_next() => ended.unwrap_or(Err(FollowError::Died)).map_err(|error| ServeError::Models(error.to_string())),
    };
    daemon
        .drain(config.drain_timeout, &stop, servers, tasks)
        .await;
    outcome
}

type Servers = JoinSet<Result<(), tonic::transport::Error>>;
type Tasks = JoinSet<Result<(), FollowError>>;

#[derive(Debug)]
struct Daemon {
    node: Arc<Node>,
    pins: Arc<Pins>,
    gate: Gate,
    health: HealthReporter,
    handoff: HandoffServer,
}

// === impl Daemon ===

impl Daemon {
    async fn start(config: &Config, clock: Clock) -> Result<Daemon, ServeError> {
        let node = Arc::new(Node::new(config, clock).map_err(ServeError::Start)?);
        let observed = Arc::downgrade(&node);
        telemetry::metrics::observe_loader(move || {
            observed
                .upgrade()
                .map(|node| node.numbers())
                .unwrap_or_default()
        });
        let book = Arc::new(Book(Arc::clone(&node)));
        let handoff = HandoffServer::bind(&config.handoff_socket, book, HandoffLimits::NODE)
            .map_err(ServeError::Handoff)?;
        let health = HealthReporter::new();
        health
            .set_service_status(SERVICE_NAME, ServingStatus::NotServing)
            .await;
        Ok(Daemon {
            node,
            pins: Arc::default(),
            gate: Gate::new(),
            health,
            handoff,
        })
    }

    /// Begins to answer on every listener, until `stop`.
    fn serve(
        &self,
        listeners: Listeners,
        config: &Config,
        stop: &CancellationToken,
    ) -> Result<Servers, ServeError> {
        let handoff_name = file_name(&config.handoff_socket);
        let service = Service::new(
            Arc::clone(&self.node),
            Arc::clone(&self.pins),
            self.gate.clone(),
            handoff_name,
            config.lease_ttl,
        );
        let service =
            LoaderServiceServer::new(service).max_decoding_message_size(REQUEST_BYTES_MAX);
        let health = tonic_health::pb::health_server::HealthServer::new(
            tonic_health::server::HealthService::from_health_reporter(self.health.clone()),
        );
        let routes = Routes::new(service)
            .add_service(health)
            .add_service(reflection().build_v1()?)
            .add_service(reflection().build_v1alpha()?);
        let mut servers = Servers::new();
        servers.spawn(answer(routes.clone(), listeners.unix, stop.clone()));
        if let Some(tcp) = listeners.tcp {
            servers.spawn(answer(routes, tcp, stop.clone()));
        }
        Ok(servers)
    }

    /// Everything that goes on besides calls. Only following the directory can fail.
    fn background(&self, config: &Config, stop: &CancellationToken) -> Tasks {
        let mut tasks = Tasks::new();
        tasks.spawn(Follower::new(Arc::clone(&self.node)).run(config.rescan_every, stop.clone()));
        let care = look_after(
            Arc::clone(&self.node),
            Arc::clone(&self.pins),
            config.pin_check_every,
            stop.clone(),
        );
        tasks.spawn(endless(care, stop.clone()));
        tasks.spawn(endless(expire_leases(Arc::clone(&self.node)), stop.clone()));
        let (node, health) = (Arc::clone(&self.node), self.health.clone());
        let ready = async move {
            node.registry.ready().await;
            health
                .set_service_status(SERVICE_NAME, ServingStatus::Serving)
                .await;
            tracing::info!(models = node.registry.all().len(), "serving");
            std::future::pending().await
        };
        tasks.spawn(endless(ready, stop.clone()));
        tasks
    }

    /// Ends: first the calls in their own time, then whatever is left.
    async fn drain(
        self,
        patience: Duration,
        stop: &CancellationToken,
        mut servers: Servers,
        mut tasks: Tasks,
    ) {
        tracing::info!("draining");
        self.health
            .set_service_status(SERVICE_NAME, ServingStatus::NotServing)
            .await;
        self.gate.drain();
        if timeout(patience, self.gate.empty()).await.is_err() {
            tracing::warn!(?patience, "calls cut off at the end of the drain");
        }
        stop.cancel();
        // Reads are given up first: connections that wait for one could not end otherwise.
        let (node, handoff) = (self.node, self.handoff);
        let closing = tokio::task::spawn_blocking(move || {
            node.stop();
            handoff.shutdown();
        });
        let goodbye = async {
            while servers.join_next().await.is_some() {}
            while tasks.join_next().await.is_some() {}
        };
        if timeout(GOODBYE, goodbye).await.is_err() {
            tracing::debug!("connections cut off");
        }
        if timeout(GOODBYE, closing).await.is_err() {
            tracing::warn!("a read does not come back; leaving without it");
        }
    }
}

/// Answers calls that come in on one listener, until `stop`.
async fn answer(
    routes: Routes,
    listener: impl Listen,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    Server::builder()
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .http2_keepalive_interval(Some(KEEPALIVE_EVERY))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .layer(telemetry::ServerTrace::new())
        .add_routes(routes)
        .serve_with_incoming_shutdown(connections(listener), stop.cancelled_owned())
        .await
}

/// Reflection of what is served here, not of everything that the descriptor set knows.
fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name(SERVICE_NAME)
        .with_service_name("grpc.health.v1.Health")
}

async fn endless(
    work: impl Future<Output = ()>,
    stop: CancellationToken,
) -> Result<(), FollowError> {
    tokio::select! {
        () = work => {}
        () = stop.cancelled() => {}
    }
    Ok(())
}

/// Ends leases when their time is up, even if nobody looks at the table.
async fn expire_leases(node: Arc<Node>) {
    const AT_LEAST: Duration = Duration::from_millis(5);
    loop {
        let next = {
            let leases = node.leases();
            leases
                .table
                .next_expiry()
                .map(|at| at.saturating_duration_since(leases.now))
        };
        match next {
            Some(wait) => tokio::select! {
                () = tokio::time::sleep(wait.max(AT_LEAST)) => {}
                () = node.lease_offered.notified() => {}
            },
            None => node.lease_offered.notified().await,
        }
    }
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}
