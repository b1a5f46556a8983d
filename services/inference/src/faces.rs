//! Everything that answers on the service's port: our two services, health, and reflection for clients that know nothing.

use proto::inference::v1::{
    inference_service_server::{self, InferenceServiceServer},
    model_service_server::{self, ModelServiceServer},
};
use tonic::service::Routes;
use tonic_health::pb::health_server::{self, Health, HealthServer};
use tonic_reflection::server::{Builder, Error};

use crate::{inference_service::Inference, model_service::ModelFace};

/// Largest answer. Log-probabilities of a long prompt come in one message; it is ours to say how large that may get.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// The routes of all services.
///
/// # Errors
/// [`Error`] if the descriptors that were compiled in cannot be read: a bug.
pub(crate) fn routes(
    inference: Inference,
    models: ModelFace,
    health: HealthServer<impl Health>,
    max_message_bytes: usize,
) -> Result<Routes, Error> {
    let inference = InferenceServiceServer::new(inference)
        .max_decoding_message_size(max_message_bytes)
        .max_encoding_message_size(ANSWER_BYTES_MAX);
    let models = ModelServiceServer::new(models)
        .max_decoding_message_size(max_message_bytes)
        .max_encoding_message_size(ANSWER_BYTES_MAX);
    let routes = Routes::new(inference)
        .add_service(models)
        .add_service(health)
        // Clients in use ask for one version or the other, and not all of them for both.
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);
    Ok(routes.prepare())
}

/// Names what is served here; the descriptors also hold the daemon's service, which is not.
fn reflection() -> Builder<'static> {
    Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name(inference_service_server::SERVICE_NAME)
        .with_service_name(model_service_server::SERVICE_NAME)
        .with_service_name(health_server::SERVICE_NAME)
}
