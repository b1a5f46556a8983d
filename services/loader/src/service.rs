//! `hearth.loader.v1.LoaderService`.

mod lease;
mod prefetch;
mod read;
mod watch;

use std::{sync::Arc, time::Duration};

use proto::loader::v1::{self, loader_service_server::LoaderService};
use tonic::{Request, Response, Status, metadata::MetadataMap};

use crate::{
    answer::{Answers, answer},
    deadline::Deadline,
    error::Error,
    gate::{Gate, Slots},
    message,
    node::Node,
    pins::Pins,
};

/// A directory larger than this is no model's; nobody should be made to take it in.
const DIRECTORY_BYTES_MAX: usize = 64 << 20;
const WATCHERS_MAX: usize = 256;
const PREFETCHES_MAX: usize = 16;
const READS_MAX: usize = 128;

/// The gRPC face of a [`Node`].
#[derive(Clone, Debug)]
pub(crate) struct Service {
    node: Arc<Node>,
    pins: Arc<Pins>,
    gate: Gate,
    /// File name of the hand-off socket.
    handoff_name: String,
    lease_ttl: Duration,
    watchers: Slots,
    prefetches: Slots,
    reads: Slots,
}

// === impl Service ===

impl Service {
    pub(crate) fn new(
        node: Arc<Node>,
        pins: Arc<Pins>,
        gate: Gate,
        handoff_name: String,
        lease_ttl: Duration,
    ) -> Service {
        Service {
            node,
            pins,
            gate,
            handoff_name,
            lease_ttl,
            watchers: Slots::new("watchers", WATCHERS_MAX),
            prefetches: Slots::new("prefetches at a time", PREFETCHES_MAX),
            reads: Slots::new("tensor reads at a time", READS_MAX),
        }
    }

    /// Answers a call with one message, by its deadline and not before the models are known.
    async fn once<T>(
        &self,
        metadata: &MetadataMap,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<Response<T>, Status> {
        let _pass = self.gate.enter()?;
        let work = async {
            self.node.registry.ready().await;
            work.await
        };
        let answer = Deadline::of(metadata).bound(work).await?;
        Ok(Response::new(answer))
    }

    /// Answers a call with a stream, by its deadline and not before the models are known.
    fn stream<T, W, F>(
        &self,
        metadata: &MetadataMap,
        work: W,
    ) -> Result<Response<Answers<T>>, Status>
    where
        T: Send + 'static,
        W: FnOnce(crate::answer::Sink<T>) -> F,
        F: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let pass = self.gate.enter()?;
        let node = Arc::clone(&self.node);
        let answers = answer(pass, Deadline::of(metadata), |sink| {
            let work = work(sink);
            async move {
                node.registry.ready().await;
                work.await
            }
        });
        Ok(Response::new(answers))
    }

    async fn directory(
        &self,
        request: v1::GetDirectoryRequest,
    ) -> Result<v1::GetDirectoryResponse, Error> {
        let model = self.node.registry.get(&request.model)?;
        let weights = Arc::clone(model.weights()?);
        // A large vocabulary takes a while to print.
        let message = blocking(move || {
            message::directory(weights.directory(), model.generation, request.omit_metadata)
        })
        .await?;
        let bytes = prost::Message::encoded_len(&message);
        if bytes > DIRECTORY_BYTES_MAX {
            return Err(Error::AnswerTooLong {
                bytes,
                limit: DIRECTORY_BYTES_MAX,
            });
        }
        Ok(message)
    }

    async fn residency(
        &self,
        request: v1::GetResidencyRequest,
    ) -> Result<v1::GetResidencyResponse, Error> {
        let model = self.node.registry.get(&request.model)?;
        let weights = Arc::clone(model.weights()?);
        let residency = blocking(move || weights.residency()).await?;
        let residency = residency.map_err(|source| Error::Residency {
            model: model.id.clone(),
            source,
        })?;
        Ok(v1::GetResidencyResponse {
            resident_bytes: residency.resident_bytes,
            total_bytes: residency.total_bytes,
            source: residency.source.name().to_owned(),
        })
    }
}

/// Runs what may block where it may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Error::WorkerDied)
}

#[tonic::async_trait]
impl LoaderService for Service {
    type PrefetchStream = Answers<v1::PrefetchResponse>;
    type ReadTensorStream = Answers<v1::ReadTensorResponse>;
    type WatchModelsStream = Answers<v1::WatchModelsResponse>;

    async fn list_models(
        &self,
        request: Request<v1::ListModelsRequest>,
    ) -> Result<Response<v1::ListModelsResponse>, Status> {
        let list = async {
            let models = self.node.registry.all();
            Ok(v1::ListModelsResponse {
                models: models
                    .iter()
                    .map(|model| message::model(&self.node, model))
                    .collect(),
            })
        };
        self.once(request.metadata(), list).await
    }

    async fn get_model(
        &self,
        request: Request<v1::GetModelRequest>,
    ) -> Result<Response<v1::GetModelResponse>, Status> {
        let get = async {
            let model = self.node.registry.get(&request.get_ref().model)?;
            Ok(v1::GetModelResponse {
                model: Some(message::model(&self.node, &model)),
            })
        };
        self.once(request.metadata(), get).await
    }

    async fn get_directory(
        &self,
        request: Request<v1::GetDirectoryRequest>,
    ) -> Result<Response<v1::GetDirectoryResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.once(&metadata, self.directory(request)).await
    }

    async fn acquire_lease(
        &self,
        request: Request<v1::AcquireLeaseRequest>,
    ) -> Result<Response<v1::AcquireLeaseResponse>, Status> {
        let (metadata, extensions, request) = request.into_parts();
        self.once(&metadata, self.acquire(&extensions, request))
            .await
    }

    async fn release_lease(
        &self,
        request: Request<v1::ReleaseLeaseRequest>,
    ) -> Result<Response<v1::ReleaseLeaseResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.once(&metadata, self.release(&request.token)).await
    }

    async fn prefetch(
        &self,
        request: Request<v1::PrefetchRequest>,
    ) -> Result<Response<Self::PrefetchStream>, Status> {
        let (metadata, _, request) = request.into_parts();
        let slot = self.prefetches.take()?;
        let (node, pins) = (Arc::clone(&self.node), Arc::clone(&self.pins));
        self.stream(&metadata, |sink| {
            prefetch::prefetch(node, pins, request, sink, slot)
        })
    }

    async fn get_residency(
        &self,
        request: Request<v1::GetResidencyRequest>,
    ) -> Result<Response<v1::GetResidencyResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.once(&metadata, self.residency(request)).await
    }

    async fn read_tensor(
        &self,
        request: Request<v1::ReadTensorRequest>,
    ) -> Result<Response<Self::ReadTensorStream>, Status> {
        let (metadata, _, request) = request.into_parts();
        let slot = self.reads.take()?;
        let node = Arc::clone(&self.node);
        self.stream(&metadata, |sink| read::read(node, request, sink, slot))
    }

    async fn watch_models(
        &self,
        request: Request<v1::WatchModelsRequest>,
    ) -> Result<Response<Self::WatchModelsStream>, Status> {
        let slot = self.watchers.take()?;
        let (node, draining) = (Arc::clone(&self.node), self.gate.draining());
        self.stream(request.metadata(), |sink| {
            watch::watch(node, draining, sink, slot)
        })
    }
}
