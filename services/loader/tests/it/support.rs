//! A daemon in a temporary directory, and tiny model files for it.

use std::{
    fs::{self, File},
    future::Future,
    io::Write as _,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::Duration,
};

use gguf::{TensorType, write::Writer};
use loader::{Clock, Config, Listeners, ServeError, clock::Hand, serve_with, socket};
use proto::loader::v1::{
    AcquireLeaseRequest, AcquireLeaseResponse, GetModelRequest, GetResidencyRequest,
    GetResidencyResponse, Model, PrefetchRequest, PrefetchResponse,
    loader_service_client::LoaderServiceClient,
};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use tonic::{
    Code, Status, Streaming,
    transport::{Channel, Endpoint},
};
use weights::{Weights, handoff::AcceptOptions};

/// No test waits longer for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) type Client = LoaderServiceClient<Channel>;

/// A running daemon.
pub(crate) struct Daemon {
    pub(crate) client: Client,
    pub(crate) channel: Channel,
    pub(crate) hand: Hand,
    pub(crate) tcp: Option<std::net::SocketAddr>,
    dirs: TempDir,
    shutdown: Option<oneshot::Sender<()>>,
    served: JoinHandle<Result<(), ServeError>>,
}

/// A temporary directory beside the build, which lies on a disk where `/tmp` may not.
pub(crate) fn tempdir() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

// === impl Daemon ===

impl Daemon {
    /// Starts a daemon on what `fill` puts into its model directory.
    pub(crate) async fn start(fill: impl FnOnce(&Path)) -> Daemon {
        Daemon::start_with(fill, |_| ()).await
    }

    /// The same, with other settings.
    pub(crate) async fn start_with(
        fill: impl FnOnce(&Path),
        change: impl FnOnce(&mut Config),
    ) -> Daemon {
        let dirs = tempdir();
        let models = dirs.path().join("models");
        fs::create_dir(&models).unwrap();
        fill(&models);
        let mut config = config(&models, &dirs.path().join("l.sock"));
        change(&mut config);

        let socket = config.socket.clone();
        let (unix, file) = socket::bind(&socket).unwrap();
        let tcp = match config.listen {
            Some(address) => Some(TcpListener::bind(address).await.unwrap()),
            None => None,
        };
        let tcp_address = tcp.as_ref().map(|tcp| tcp.local_addr().unwrap());
        let (clock, hand) = Clock::manual();
        let (shutdown, asked) = oneshot::channel::<()>();
        let served = tokio::spawn(async move {
            let _file = file;
            let asked = async {
                let _asked_or_dropped = asked.await;
            };
            serve_with(Listeners { unix, tcp }, config, clock, asked).await
        });
        let channel = connect(&socket).await;
        let client = LoaderServiceClient::new(channel.clone());
        Daemon {
            client,
            channel,
            hand,
            tcp: tcp_address,
            dirs,
            shutdown: Some(shutdown),
            served,
        }
    }

    pub(crate) fn models(&self) -> PathBuf {
        self.dirs.path().join("models")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dirs.path().join("l.sock")
    }

    pub(crate) fn handoff(&self) -> PathBuf {
        self.dirs.path().join("l.sock.handoff")
    }

    pub(crate) async fn model(&self, id: &str) -> Result<Model, Status> {
        let request = GetModelRequest {
            model: id.to_owned(),
        };
        self.client
            .clone()
            .get_model(request)
            .await
            .map(|answer| answer.into_inner().model.unwrap())
    }

    pub(crate) async fn acquire(&self, id: &str) -> Result<AcquireLeaseResponse, Status> {
        let request = AcquireLeaseRequest {
            model: id.to_owned(),
            client: "test".to_owned(),
        };
        self.client
            .clone()
            .acquire_lease(request)
            .await
            .map(tonic::Response::into_inner)
    }

    /// Takes a lease up as a service does.
    pub(crate) async fn accept(
        &self,
        token: Vec<u8>,
    ) -> Result<Weights, weights::handoff::AcceptError> {
        let handoff = self.handoff();
        tokio::task::spawn_blocking(move || {
            let options = AcceptOptions {
                fetch_timeout: PATIENCE,
                on_lost: None,
            };
            weights::handoff::accept(&handoff, &token, options)
        })
        .await
        .unwrap()
    }

    pub(crate) async fn prefetch(
        &self,
        id: &str,
        pin: bool,
    ) -> Result<Streaming<PrefetchResponse>, Status> {
        let request = PrefetchRequest {
            model: id.to_owned(),
            pin,
        };
        self.client
            .clone()
            .prefetch(request)
            .await
            .map(tonic::Response::into_inner)
    }

    /// Prefetches a model and returns the last message.
    pub(crate) async fn prefetched(&self, id: &str, pin: bool) -> Result<PrefetchResponse, Status> {
        let messages = all(self.prefetch(id, pin).await?).await?;
        Ok(messages.into_iter().last().unwrap())
    }

    pub(crate) async fn residency(&self, id: &str) -> Result<GetResidencyResponse, Status> {
        let request = GetResidencyRequest {
            model: id.to_owned(),
        };
        self.client
            .clone()
            .get_residency(request)
            .await
            .map(tonic::Response::into_inner)
    }

    /// Tells the daemon to end, without waiting for it.
    pub(crate) fn ask_to_end(&mut self) {
        drop(self.shutdown.take());
    }

    /// Tells the daemon to end, and waits until it has.
    pub(crate) async fn end(mut self) -> Result<(), ServeError> {
        self.ask_to_end();
        patiently(self.served).await.unwrap()
    }
}

/// Settings for tests: nothing happens by the clock.
pub(crate) fn config(models: &Path, socket: &Path) -> Config {
    Config {
        models: models.to_owned(),
        socket: socket.to_owned(),
        handoff_socket: socket.with_file_name("l.sock.handoff"),
        listen: None,
        cache_budget_bytes: None,
        pin: Vec::new(),
        fetch_threads: NonZeroUsize::new(4).unwrap(),
        read_rate_max: None,
        lease_ttl: Duration::from_secs(30),
        max_leases: NonZeroUsize::new(16).unwrap(),
        max_leases_per_peer: NonZeroUsize::new(8).unwrap(),
        rescan_every: None,
        pin_check_every: Duration::from_millis(20),
        drain_timeout: PATIENCE,
        telemetry: telemetry::Config::logs_only(),
    }
}

pub(crate) async fn connect(socket: &Path) -> Channel {
    Endpoint::from_shared(format!("unix:{}", socket.display()))
        .unwrap()
        .connect()
        .await
        .unwrap()
}

/// Fails a test that would hang.
pub(crate) async fn patiently<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work)
        .await
        .expect("it takes too long")
}

/// Every message of a stream.
pub(crate) async fn all<T>(mut stream: Streaming<T>) -> Result<Vec<T>, Status> {
    let mut messages = Vec::new();
    while let Some(message) = patiently(stream.message()).await? {
        messages.push(message);
    }
    Ok(messages)
}

/// Asks until the answer is as expected.
pub(crate) async fn until<F: Future<Output = bool>>(mut holds: impl FnMut() -> F) {
    patiently(async { while !holds().await {} }).await;
}

/// The reason of a status, after its code was checked.
pub(crate) fn reason(status: &Status, code: Code) -> String {
    use tonic_types::StatusExt as _;
    assert_eq!(status.code(), code, "{status:?}");
    status
        .get_error_details()
        .error_info()
        .expect("every status has a reason")
        .reason
        .clone()
}

/// A model file: tensors of so many floats, filled with bytes that differ from place to place.
pub(crate) fn gguf(tensors: &[(&str, u64)]) -> Vec<u8> {
    gguf_with(
        Writer::new().metadata("general.architecture", "llama"),
        tensors,
    )
}

pub(crate) fn gguf_with(writer: Writer, tensors: &[(&str, u64)]) -> Vec<u8> {
    let writer = tensors.iter().fold(writer, |writer, (name, len)| {
        writer.tensor(*name, &[*len], TensorType::F32)
    });
    let header = writer.finish().unwrap();
    let mut file = header.bytes;
    let mut state = 1_u32;
    while (file.len() as u64) < header.file_len {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        file.push((state >> 24) as u8);
    }
    file
}

/// A model of `count` tensors of a MiB each.
pub(crate) fn tensors(count: usize) -> Vec<u8> {
    let names: Vec<String> = (0..count).map(|n| format!("t{n}")).collect();
    let tensors: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 1 << 18)).collect();
    gguf(&tensors)
}

/// Writes a file to the disk itself: only clean pages can be dropped from the page cache.
pub(crate) fn write(path: &Path, bytes: &[u8]) {
    let mut file = File::create(path).unwrap();
    file.write_all(bytes).unwrap();
    file.sync_all().unwrap();
}

/// Puts a file in place in one step, as downloads should.
pub(crate) fn put(path: &Path, bytes: &[u8]) {
    let part = path.with_extension("part");
    write(&part, bytes);
    fs::rename(part, path).unwrap();
}

/// Drops a model from the page cache.
pub(crate) fn drop_cache(path: &Path) {
    let weights = Weights::open(path).unwrap();
    let count = weights.directory().extents().len() as u32;
    let extents: Vec<_> = (0..count).map(gguf::ExtentId).collect();
    weights.drop_page_cache(&extents).unwrap();
}
