//! The loader daemon, as a gRPC client sees it.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use proto::loader::v1::{
    AcquireLeaseRequest, GetModelRequest, ListModelsRequest, Model, PrefetchRequest,
    PrefetchResponse, loader_service_client::LoaderServiceClient,
};
use telemetry::propagate::Inject;
use tokio::net::UnixStream;
use tonic::{
    Code, Request, Status, Streaming,
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;
use tower::service_fn;

use crate::error::{DaemonError, Error};

/// How long the daemon may take to accept a connection on its own node.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long it may take to answer; only Prefetch takes longer.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer: a list of a hundred thousand models.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// The daemon of this node. Cheap to clone; connects when it is first asked, and again after it was away.
#[derive(Clone, Debug)]
pub(crate) struct Daemon {
    client: LoaderServiceClient<InterceptedService<Channel, Inject>>,
    socket: PathBuf,
    name: String,
}

/// A token, and where to present it.
#[derive(Debug)]
pub(crate) struct Lease {
    /// Presented once.
    pub(crate) token: Vec<u8>,
    /// The hand-off socket.
    pub(crate) handoff_socket: PathBuf,
}

// === impl Daemon ===

impl Daemon {
    /// The daemon that listens on `socket`; `name` is what we call ourselves in its log. Nothing is connected yet. Needs a tokio runtime.
    pub(crate) fn new(socket: PathBuf, name: &str) -> Daemon {
        let path = socket.clone();
        let connect = service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        // The name is only what the protocol's `:authority` says.
        let channel = Endpoint::from_static("http://loader.hearth")
            .connect_timeout(CONNECT_TIMEOUT)
            .connect_with_connector_lazy(connect);
        let client = LoaderServiceClient::with_interceptor(channel, Inject)
            .max_decoding_message_size(MESSAGE_BYTES_MAX);
        Daemon {
            client,
            socket,
            name: name.chars().take(128).collect(),
        }
    }

    /// Asks for a lease on `model`.
    ///
    /// # Errors
    /// [`Error::UnknownModel`] with the models that the daemon has; [`Error::Daemon`].
    pub(crate) async fn acquire_lease(&self, model: &str) -> Result<Lease, Error> {
        let request = AcquireLeaseRequest {
            model: model.to_owned(),
            client: self.name.clone(),
        };
        let answer = self.client.clone().acquire_lease(timed(request)).await;
        let answer = answer
            .map_err(|status| self.refusal(model, &status))?
            .into_inner();
        let name = Path::new(&answer.handoff_socket);
        // A plain name: the daemon's word must not lead anywhere but beside its own socket.
        if name.file_name() != Some(name.as_os_str()) {
            let what = "the hand-off socket is no plain file name";
            return Err(DaemonError::Malformed { what }.into());
        }
        Ok(Lease {
            token: answer.token,
            handoff_socket: self.socket.with_file_name(name),
        })
    }

    /// All models that the daemon publishes.
    ///
    /// # Errors
    /// [`Error::Daemon`].
    pub(crate) async fn list_models(&self) -> Result<Vec<Model>, Error> {
        let answer = self
            .client
            .clone()
            .list_models(timed(ListModelsRequest {}))
            .await;
        Ok(answer
            .map_err(|status| self.refusal("", &status))?
            .into_inner()
            .models)
    }

    /// One model.
    ///
    /// # Errors
    /// As [`Daemon::acquire_lease`].
    pub(crate) async fn get_model(&self, model: &str) -> Result<Model, Error> {
        let request = GetModelRequest {
            model: model.to_owned(),
        };
        let answer = self.client.clone().get_model(timed(request)).await;
        let answer = answer
            .map_err(|status| self.refusal(model, &status))?
            .into_inner();
        let what = "a model without a model";
        answer
            .model
            .ok_or_else(|| DaemonError::Malformed { what }.into())
    }

    /// Brings a model into the page cache.
    ///
    /// # Errors
    /// As [`Daemon::acquire_lease`].
    pub(crate) async fn prefetch(&self, model: &str) -> Result<Prefetching, Error> {
        let request = PrefetchRequest {
            model: model.to_owned(),
            pin: false,
        };
        let answer = self.client.clone().prefetch(Request::new(request)).await;
        let progress = answer
            .map_err(|status| self.refusal(model, &status))?
            .into_inner();
        Ok(Prefetching {
            daemon: self.clone(),
            model: model.to_owned(),
            progress,
        })
    }

    fn refusal(&self, model: &str, status: &Status) -> Error {
        match status.code() {
            Code::NotFound => Error::UnknownModel {
                model: model.to_owned(),
                known: known_models(status),
            },
            // A connection that fails or breaks shows as one of these, as does a daemon that is about to end.
            Code::Unavailable | Code::Unknown | Code::Cancelled => {
                let cause = std::error::Error::source(status)
                    .map(|cause| crate::error::Chain(cause).to_string());
                let reason = cause.unwrap_or_else(|| status.message().to_owned());
                let socket = self.socket.display().to_string();
                DaemonError::Away { socket, reason }.into()
            }
            code => {
                let message = status.message().to_owned();
                DaemonError::Refused { code, message }.into()
            }
        }
    }
}

/// A prefetch under way; dropping it ends our interest in it.
#[derive(Debug)]
pub(crate) struct Prefetching {
    daemon: Daemon,
    model: String,
    progress: Streaming<PrefetchResponse>,
}

impl Prefetching {
    /// The next word on how far it is; `None` when it is over.
    ///
    /// # Errors
    /// [`Error::Daemon`].
    pub(crate) async fn next(&mut self) -> Result<Option<PrefetchResponse>, Error> {
        let message = self.progress.message().await;
        message.map_err(|status| self.daemon.refusal(&self.model, &status))
    }
}

fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_TIMEOUT);
    request
}

/// The models that the daemon says it has.
fn known_models(status: &Status) -> Vec<String> {
    let details = status.get_error_details();
    let known = details
        .error_info()
        .and_then(|info| info.metadata.get("known_models"));
    known
        .map(|known| known.split_whitespace().map(str::to_owned).collect())
        .unwrap_or_default()
}
