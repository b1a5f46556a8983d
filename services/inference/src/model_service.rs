//! `hearth.inference.v1.ModelService`.

use proto::inference::v1::{
    DeviceInfo, GetModelRequest, GetModelResponse, ListModelsRequest, ListModelsResponse,
    LoadModelRequest, LoadModelResponse, UnloadModelRequest, UnloadModelResponse,
    model_service_server::ModelService,
};
use tonic::{Request, Response, Status};

use crate::{
    answers::Answers,
    deadline::Deadline,
    error::Error,
    gate::Gate,
    load::{self, Load},
    models::Models,
};

/// The models of this device.
#[derive(Clone, Debug)]
pub(crate) struct ModelFace {
    pub(crate) gate: Gate,
    pub(crate) models: Models,
    pub(crate) device: DeviceFacts,
}

/// What is told of the device.
#[derive(Clone, Debug)]
pub(crate) struct DeviceFacts {
    /// `cpu`, `reference` or `hip`.
    pub(crate) kind: &'static str,
    /// For people.
    pub(crate) description: String,
}

#[tonic::async_trait]
impl ModelService for ModelFace {
    type LoadModelStream = Answers<LoadModelResponse>;

    async fn list_models(
        &self,
        request: Request<ListModelsRequest>,
    ) -> Result<Response<ListModelsResponse>, Status> {
        let deadline = Deadline::of(request.metadata());
        let pass = self.gate.enter()?;
        let models = deadline.bound(pass.bound(self.models.list())).await?;
        Ok(Response::new(ListModelsResponse {
            models,
            device: Some(self.device()),
        }))
    }

    async fn get_model(
        &self,
        request: Request<GetModelRequest>,
    ) -> Result<Response<GetModelResponse>, Status> {
        let deadline = Deadline::of(request.metadata());
        let pass = self.gate.enter()?;
        let id = request.into_inner().model;
        let model = named(&id, self.models.get(&id));
        let model = deadline.bound(pass.bound(model)).await?;
        Ok(Response::new(GetModelResponse {
            model: Some(model),
            device: Some(self.device()),
        }))
    }

    async fn load_model(
        &self,
        request: Request<LoadModelRequest>,
    ) -> Result<Response<Self::LoadModelStream>, Status> {
        let deadline = Deadline::of(request.metadata());
        let pass = self.gate.enter()?;
        let load = Load::try_from(request.into_inner())?;
        let answers = load::start(self.models.clone(), load, pass, deadline);
        Ok(Response::new(answers))
    }

    async fn unload_model(
        &self,
        request: Request<UnloadModelRequest>,
    ) -> Result<Response<UnloadModelResponse>, Status> {
        let deadline = Deadline::of(request.metadata());
        let pass = self.gate.enter()?;
        let UnloadModelRequest {
            model,
            keep_attached,
        } = request.into_inner();
        let unload = named(&model, self.models.unload(&model, keep_attached));
        let freed_bytes = deadline.bound(pass.bound(unload)).await?;
        Ok(Response::new(UnloadModelResponse { freed_bytes }))
    }
}

// === impl ModelFace ===

impl ModelFace {
    fn device(&self) -> DeviceInfo {
        let stats = self.models.stats();
        DeviceInfo {
            kind: self.device.kind.to_owned(),
            description: self.device.description.clone(),
            weights_budget_bytes: stats.weights_budget_bytes.unwrap_or_default(),
            weights_resident_bytes: stats.models.iter().map(|model| model.resident_bytes).sum(),
        }
    }
}

/// Does `work` if a model was named.
async fn named<T>(id: &str, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    if id.is_empty() {
        return Err(Error::invalid("model", "must be set"));
    }
    work.await
}
