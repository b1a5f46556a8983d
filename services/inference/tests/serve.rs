//! A whole service on a free port, without a loader daemon: what it answers by itself, and how it ends.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::{path::PathBuf, time::Duration};

use clap::Parser;
use inference::{Address, Config, Flags, ServeError};
use proto::inference::v1::{
    GenerateRequest, GetModelRequest, ListModelsRequest, LoadModelRequest, Sampling,
    TokenizeRequest, UnloadModelRequest, generate_request::Prompt,
    inference_service_client::InferenceServiceClient, model_service_client::ModelServiceClient,
};
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle};
use tokio_stream::StreamExt as _;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_types::StatusExt as _;

/// Longer than anything here takes, shorter than a patience.
const LIMIT: Duration = Duration::from_secs(20);

#[derive(Parser)]
struct CommandLine {
    #[command(flatten)]
    flags: Flags,
}

/// A running service.
struct Service {
    channel: Channel,
    shutdown: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ServeError>>,
    _dir: TempDir,
}

fn config(dir: &TempDir, more: &[&str]) -> Config {
    let socket: PathBuf = dir.path().join("loader.sock");
    let args = ["test", "--device", "reference", "--kv-budget", "1MiB"];
    let loader = ["--loader-socket", socket.to_str().unwrap()];
    let line = [&args[..], &loader[..], more].concat();
    let line = CommandLine::try_parse_from(line).unwrap();
    line.flags.validated().unwrap()
}

impl Service {
    async fn start(more: &[&str]) -> Service {
        let dir = tempfile::tempdir().unwrap();
        let config = config(&dir, more);
        let address: Address = "127.0.0.1:0".parse().unwrap();
        let listener = address.bind().await.unwrap();
        let url = format!("http://{}", listener.address().unwrap());
        let (shutdown, told) = oneshot::channel();
        let task = tokio::spawn(inference::serve(listener, config, async {
            // A test that ends without a word ends its service too.
            let _dropped = told.await;
        }));
        let channel = Endpoint::from_shared(url).unwrap().connect().await.unwrap();
        Service {
            channel,
            shutdown,
            task,
            _dir: dir,
        }
    }

    fn inference(&self) -> InferenceServiceClient<Channel> {
        InferenceServiceClient::new(self.channel.clone())
    }

    fn models(&self) -> ModelServiceClient<Channel> {
        ModelServiceClient::new(self.channel.clone())
    }

    async fn health(&self, service: &str) -> Result<ServingStatus, Code> {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        let answer = HealthClient::new(self.channel.clone()).check(request).await;
        answer
            .map(|answer| answer.into_inner().status())
            .map_err(|status| status.code())
    }

    /// How a Generate of `request` ends.
    async fn generate(&self, request: GenerateRequest) -> Status {
        let stream = match self.inference().generate(request).await {
            Ok(stream) => stream,
            Err(status) => return status,
        };
        let mut stream = stream.into_inner();
        loop {
            match stream.next().await {
                Some(Ok(_)) => {}
                Some(Err(status)) => return status,
                None => panic!("the stream ended well"),
            }
        }
    }

    async fn end(self) {
        self.shutdown.send(()).unwrap();
        let ended = tokio::time::timeout(LIMIT, self.task).await;
        ended.unwrap().unwrap().unwrap();
    }
}

fn text(model: &str, text: &str) -> GenerateRequest {
    GenerateRequest {
        model: model.to_owned(),
        prompt: Some(Prompt::Text(text.to_owned())),
        ..GenerateRequest::default()
    }
}

fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    details
        .error_info()
        .map(|info| info.reason.clone())
        .unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn health_does_not_follow_the_daemon() {
    let service = Service::start(&[]).await;
    assert_eq!(service.health("").await, Ok(ServingStatus::Serving));
    for name in [
        "hearth.inference.v1.InferenceService",
        "hearth.inference.v1.ModelService",
    ] {
        // Readiness comes a moment after the first answer.
        let ready = async {
            while service.health(name).await != Ok(ServingStatus::Serving) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LIMIT, ready).await.unwrap();
    }
    assert_eq!(service.health("no.such.Service").await, Err(Code::NotFound));
    service.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preload_that_cannot_be_had_keeps_the_service_from_being_ready() {
    let service = Service::start(&["--preload", "m"]).await;
    assert_eq!(service.health("").await, Ok(ServingStatus::Serving));
    let ready = service.health("hearth.inference.v1.InferenceService").await;
    assert_eq!(ready, Ok(ServingStatus::NotServing));
    service.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_daemon_models_are_unavailable_for_now() {
    let service = Service::start(&[]).await;
    let mut models = service.models();
    let load = LoadModelRequest {
        model: "m".to_owned(),
        ..LoadModelRequest::default()
    };
    let mut loading = models.load_model(load).await.unwrap().into_inner();
    let loading = async {
        loop {
            if let Err(status) = loading.next().await.unwrap() {
                return status;
            }
        }
    };
    let get = GetModelRequest {
        model: "m".to_owned(),
    };
    for status in [
        service.generate(text("m", "x")).await,
        models.list_models(ListModelsRequest {}).await.unwrap_err(),
        models.clone().get_model(get).await.unwrap_err(),
        loading.await,
    ] {
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert_eq!(reason(&status), "LOADER_AWAY");
        assert!(status.get_error_details().retry_info().is_some());
    }
    service.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_refused_before_anything_is_looked_for() {
    let service = Service::start(&[]).await;
    let nan = GenerateRequest {
        sampling: Some(Sampling {
            temperature: Some(f32::NAN),
            ..Sampling::default()
        }),
        ..text("m", "x")
    };
    let status = service.generate(nan).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    let details = status.get_error_details();
    let field = &details.bad_request().unwrap().field_violations[0].field;
    assert_eq!(field, "sampling.temperature");

    let status = service.generate(text("", "x")).await;
    assert_eq!(status.code(), Code::InvalidArgument, "no model is attached");
    let request = TokenizeRequest::default();
    let status = service.inference().tokenize(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);

    let unload = UnloadModelRequest {
        model: "m".to_owned(),
        keep_attached: false,
    };
    let status = service.models().unload_model(unload).await.unwrap_err();
    assert_eq!(
        (status.code(), &*reason(&status)),
        (Code::NotFound, "MODEL_NOT_ATTACHED")
    );
    service.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_too_large_is_refused_unread() {
    let service = Service::start(&["--max-message-bytes", "64KiB"]).await;
    let status = service.generate(text("m", &"x".repeat(100 << 10))).await;
    assert_eq!(
        (status.code(), &*reason(&status)),
        (Code::ResourceExhausted, "MESSAGE_TOO_LARGE")
    );
    service.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_demand_attaching_can_be_switched_off() {
    let service = Service::start(&["--no-auto-attach"]).await;
    let status = service.generate(text("m", "x")).await;
    assert_eq!(
        (status.code(), &*reason(&status)),
        (Code::FailedPrecondition, "MODEL_NOT_ATTACHED")
    );
    service.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_answers_in_both_versions() {
    use tonic_reflection::pb::{v1, v1alpha};

    let service = Service::start(&[]).await;
    let expected = [
        "grpc.health.v1.Health",
        "hearth.inference.v1.InferenceService",
        "hearth.inference.v1.ModelService",
    ];
    macro_rules! listed {
        ($version:ident) => {{
            use $version::{
                server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest,
                server_reflection_response::MessageResponse,
            };
            let request = $version::ServerReflectionRequest {
                host: String::new(),
                message_request: Some(MessageRequest::ListServices(String::new())),
            };
            let mut client = ServerReflectionClient::new(service.channel.clone());
            let answers = client
                .server_reflection_info(tokio_stream::once(request))
                .await;
            let answer = answers.unwrap().into_inner().next().await.unwrap().unwrap();
            let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
                panic!("another answer: {answer:?}");
            };
            let mut names: Vec<String> = list.service.into_iter().map(|one| one.name).collect();
            names.retain(|name| !name.starts_with("grpc.reflection."));
            names.sort();
            names
        }};
    }
    assert_eq!(listed!(v1), expected);
    assert_eq!(listed!(v1alpha), expected);
    service.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_service_ends_at_once_though_somebody_watches_its_health() {
    let service = Service::start(&["--drain-timeout", "1h"]).await;
    let request = HealthCheckRequest {
        service: String::new(),
    };
    let mut client = HealthClient::new(service.channel.clone());
    let mut watching = client.watch(request).await.unwrap().into_inner();
    watching.next().await.unwrap().unwrap();
    service.end().await;
}
