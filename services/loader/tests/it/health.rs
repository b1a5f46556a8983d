use proto::loader::v1::loader_service_server::SERVICE_NAME;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::support::{Daemon, drop_cache, patiently, tensors, until, write};

async fn status(daemon: &Daemon, service: &str) -> ServingStatus {
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    HealthClient::new(daemon.channel.clone())
        .check(request)
        .await
        .unwrap()
        .into_inner()
        .status()
}

#[tokio::test]
async fn it_serves_once_the_models_are_known_and_not_while_it_drains() {
    let mut daemon = Daemon::start_with(
        |models| {
            write(&models.join("m.gguf"), &tensors(8));
            drop_cache(&models.join("m.gguf"));
        },
        // A call that keeps the drain from ending.
        |config| config.read_rate_max = Some(100),
    )
    .await;
    assert_eq!(status(&daemon, "").await, ServingStatus::Serving);
    until(|| async { status(&daemon, SERVICE_NAME).await == ServingStatus::Serving }).await;

    let mut slow = daemon.prefetch("m", false).await.unwrap();
    patiently(slow.message()).await.unwrap();
    let request = HealthCheckRequest {
        service: SERVICE_NAME.to_owned(),
    };
    let mut watch = HealthClient::new(daemon.channel.clone())
        .watch(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        patiently(watch.message()).await.unwrap().unwrap().status(),
        ServingStatus::Serving
    );
    daemon.ask_to_end();
    assert_eq!(
        patiently(watch.message()).await.unwrap().unwrap().status(),
        ServingStatus::NotServing
    );
    assert_eq!(status(&daemon, "").await, ServingStatus::Serving);
    drop(slow);
    drop(watch);
    daemon.end().await.unwrap();
}

macro_rules! services {
    ($daemon:expr, $version:ident) => {{
        use tonic_reflection::pb::$version::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        };
        let ask = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let mut client = ServerReflectionClient::new($daemon.channel.clone());
        let mut answers = client
            .server_reflection_info(tokio_stream::once(ask))
            .await
            .unwrap()
            .into_inner();
        match patiently(answers.message())
            .await
            .unwrap()
            .unwrap()
            .message_response
        {
            Some(MessageResponse::ListServicesResponse(list)) => {
                let mut names: Vec<String> = list
                    .service
                    .into_iter()
                    .map(|service| service.name)
                    .collect();
                names.sort();
                names
            }
            other => panic!("{other:?}"),
        }
    }};
}

#[tokio::test]
async fn reflection_lists_what_is_served_in_both_versions() {
    let daemon = Daemon::start(|_| ()).await;
    let v1 = services!(daemon, v1);
    assert!(
        v1.contains(&SERVICE_NAME.to_owned()) && v1.contains(&"grpc.health.v1.Health".to_owned()),
        "{v1:?}"
    );
    assert!(!v1.iter().any(|name| name.contains("Inference")), "{v1:?}");
    let v1alpha = services!(daemon, v1alpha);
    assert!(v1alpha.contains(&SERVICE_NAME.to_owned()), "{v1alpha:?}");
    daemon.end().await.unwrap();
}
