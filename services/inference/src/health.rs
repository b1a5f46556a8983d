//! Health as `grpc.health.v1` tells it.
//!
//! The empty name says that the process is alive. The services' names say that they can serve: the worker is up and every model of `--preload` is there. Neither follows the loader daemon:
//! what is attached is served without it.

use proto::inference::v1::{inference_service_server, model_service_server};
use tonic_health::{
    ServingStatus,
    pb::health_server::{Health, HealthServer},
    server::{HealthReporter, health_reporter},
};

/// The services whose names can be asked for.
const SERVICES: [&str; 2] = [
    inference_service_server::SERVICE_NAME,
    model_service_server::SERVICE_NAME,
];

/// Tells whether the services can serve. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Readiness {
    reporter: HealthReporter,
}

// === impl Readiness ===

impl Readiness {
    /// Not ready yet, and the service to ask.
    pub(crate) async fn new() -> (Readiness, HealthServer<impl Health>) {
        let (reporter, service) = health_reporter();
        let readiness = Readiness { reporter };
        readiness.set(ServingStatus::NotServing).await;
        (readiness, service)
    }

    /// From now on the services can serve.
    pub(crate) async fn ready(&self) {
        self.set(ServingStatus::Serving).await;
    }

    /// From now on they cannot.
    pub(crate) async fn not_ready(&self) {
        self.set(ServingStatus::NotServing).await;
    }

    async fn set(&self, status: ServingStatus) {
        for service in SERVICES {
            self.reporter.set_service_status(service, status).await;
        }
    }
}
