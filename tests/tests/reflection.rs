//! Clients that know only reflection find every service, in both versions that are in use.

use e2e::client;
use e2e::model::Llama;
use e2e::node::{Daemon, Launch, Service, workspace};
use tonic_reflection::pb::{v1, v1alpha};

#[tokio::test]
async fn both_services_describe_themselves_in_both_versions() {
    let home = workspace();
    let models = home.path().join("models");
    Llama::tiny()
        .write(&models.join("m.gguf"))
        .expect("the model is written");
    let daemon = Daemon::start(home.path(), &models, &Launch::new()).await;
    let service = Service::start(home.path(), "inference", &daemon, &Launch::new()).await;

    let inference = [
        "grpc.health.v1.Health",
        "hearth.inference.v1.InferenceService",
        "hearth.inference.v1.ModelService",
    ];
    let loader = ["grpc.health.v1.Health", "hearth.loader.v1.LoaderService"];
    for (socket, wanted) in [
        (&service.socket, inference.as_slice()),
        (&daemon.socket, loader.as_slice()),
    ] {
        let channel = client::connect(socket).await.expect("it listens");
        let names = names_v1(channel.clone()).await;
        assert!(
            wanted
                .iter()
                .all(|name| names.iter().any(|listed| listed == name)),
            "v1 lists {names:?}"
        );
        assert_eq!(
            names_v1alpha(channel).await,
            names,
            "both versions list the same services"
        );
    }
}

async fn names_v1(channel: tonic::transport::Channel) -> Vec<String> {
    use v1::server_reflection_request::MessageRequest;
    use v1::server_reflection_response::MessageResponse;
    let request = v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel);
    let mut answers = client
        .server_reflection_info(tokio_stream::once(request))
        .await
        .expect("reflection is served")
        .into_inner();
    let answer = answers
        .message()
        .await
        .expect("no error")
        .and_then(|answer| answer.message_response);
    let Some(MessageResponse::ListServicesResponse(list)) = answer else {
        panic!("{answer:?}")
    };
    list.service
        .into_iter()
        .map(|service| service.name)
        .collect()
}

async fn names_v1alpha(channel: tonic::transport::Channel) -> Vec<String> {
    use v1alpha::server_reflection_request::MessageRequest;
    use v1alpha::server_reflection_response::MessageResponse;
    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let mut answers = client
        .server_reflection_info(tokio_stream::once(request))
        .await
        .expect("reflection is served")
        .into_inner();
    let answer = answers
        .message()
        .await
        .expect("no error")
        .and_then(|answer| answer.message_response);
    let Some(MessageResponse::ListServicesResponse(list)) = answer else {
        panic!("{answer:?}")
    };
    list.service
        .into_iter()
        .map(|service| service.name)
        .collect()
}
