//! Bad requests get the code that the contract promises, name what is wrong, and harm nobody.
#![expect(
    clippy::too_many_lines,
    reason = "a test tells one story from beginning to end"
)]

use e2e::client::{self, Completion};
use e2e::model::Llama;
use e2e::node::{Daemon, Launch, Service, workspace};
use proto::inference::v1::generate_request::Prompt;
use proto::inference::v1::{
    Constraint, DetokenizeRequest, FinishReason, GenerateRequest, LogitBias, OutputOptions,
    Sampling, Stopping, TokenIds, TokenizeRequest, UnloadModelRequest, constraint,
};
use tempfile::TempDir;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

struct Node {
    service: Service,
    _daemon: Daemon,
    _home: TempDir,
}

async fn node(flags: &[&str]) -> Node {
    let home = workspace();
    let models = home.path().join("models");
    Llama::tiny()
        .write(&models.join("m.gguf"))
        .expect("the model is written");
    std::fs::write(models.join("broken.gguf"), b"GGUF but not really")
        .expect("the file is written");
    std::fs::create_dir_all(models.join("folder.gguf")).expect("the folder is made");
    let daemon = Daemon::start(home.path(), &models, &Launch::new()).await;
    let service = Service::start(
        home.path(),
        "inference",
        &daemon,
        &Launch::new().flags(flags),
    )
    .await;
    Node {
        service,
        _daemon: daemon,
        _home: home,
    }
}

fn valid() -> GenerateRequest {
    client::greedy("m", &[1, 2, 3], 3)
}

fn with_sampling(change: impl FnOnce(&mut Sampling)) -> GenerateRequest {
    let mut request = valid();
    change(request.sampling.get_or_insert_default());
    request
}

fn with_stopping(change: impl FnOnce(&mut Stopping)) -> GenerateRequest {
    let mut request = valid();
    change(request.stopping.get_or_insert_default());
    request
}

fn with_prompt(prompt: Option<Prompt>) -> GenerateRequest {
    GenerateRequest { prompt, ..valid() }
}

fn ids(ids: Vec<u32>) -> Option<Prompt> {
    Some(Prompt::TokenIds(TokenIds { ids }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_bad_field_is_named() {
    let node = node(&["--preload", "m"]).await;
    let cases = [
        ("prompt", with_prompt(None)),
        ("text", with_prompt(Some(Prompt::Text(String::new())))),
        ("token_ids", with_prompt(ids(vec![]))),
        ("token_ids", with_prompt(ids(vec![1, 300]))),
        ("prompt", with_prompt(ids(vec![1; 513]))),
        (
            "sampling.temperature",
            with_sampling(|sampling| sampling.temperature = Some(f32::NAN)),
        ),
        (
            "sampling.temperature",
            with_sampling(|sampling| sampling.temperature = Some(-1.0)),
        ),
        (
            "sampling.top_p",
            with_sampling(|sampling| sampling.top_p = Some(1.5)),
        ),
        (
            "sampling.min_p",
            with_sampling(|sampling| sampling.min_p = Some(f32::INFINITY)),
        ),
        (
            "sampling.repetition_penalty",
            with_sampling(|sampling| sampling.repetition_penalty = Some(0.0)),
        ),
        (
            "sampling.presence_penalty",
            with_sampling(|sampling| sampling.presence_penalty = Some(2.5)),
        ),
        (
            "sampling.logit_bias[0].token_id",
            with_sampling(|sampling| {
                let (token_id, bias) = (300, 1.0);
                sampling.logit_bias = vec![LogitBias { token_id, bias }];
            }),
        ),
        (
            "stopping.min_tokens",
            with_stopping(|stopping| stopping.min_tokens = 4),
        ),
        (
            "stopping.stop",
            with_stopping(|stopping| stopping.stop = vec!["x".to_owned(); 17]),
        ),
        (
            "stopping.stop",
            with_stopping(|stopping| stopping.stop = vec![String::new()]),
        ),
        (
            "stopping.stop_token_ids",
            with_stopping(|stopping| stopping.stop_token_ids = vec![300]),
        ),
        (
            "output.logprobs",
            GenerateRequest {
                output: Some(OutputOptions {
                    logprobs: Some(21),
                    prompt_logprobs: None,
                }),
                ..valid()
            },
        ),
        (
            "request_id",
            GenerateRequest {
                request_id: "x".repeat(129),
                ..valid()
            },
        ),
    ];
    let mut client = node.service.client().await;
    for (field, request) in cases {
        let status = client::generate(&mut client, request)
            .await
            .expect_err(field);
        assert_eq!(status.code(), Code::InvalidArgument, "{field}: {status:?}");
        let violations = status
            .get_details_bad_request()
            .map(|details| details.field_violations)
            .unwrap_or_default();
        assert!(
            violations
                .iter()
                .any(|violation| violation.field.starts_with(field)),
            "{field}: {violations:?}"
        );
    }
    client::generate(&mut client, valid())
        .await
        .expect("the service goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_that_are_not_served_are_refused_by_name() {
    let node = node(&["--preload", "m"]).await;
    let regex = Some(Constraint {
        kind: Some(constraint::Kind::Regex("a+".to_owned())),
    });
    let cases = [(
        "constraint",
        GenerateRequest {
            constraint: regex,
            ..valid()
        },
    )];
    let mut client = node.service.client().await;
    for (field, request) in cases {
        let status = client::generate(&mut client, request)
            .await
            .expect_err(field);
        assert_eq!(status.code(), Code::Unimplemented, "{field}: {status:?}");
        assert!(status.message().contains(field), "{field}: {status:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_models_are_answered_with_the_known_ones() {
    let node = node(&[]).await;
    let mut client = node.service.client().await;
    let status = client::generate(&mut client, client::greedy("nobody", &[1], 1))
        .await
        .expect_err("there is no such model");
    assert_eq!(status.code(), Code::NotFound);
    assert!(
        status.message().contains("nobody") && status.message().contains('m'),
        "{status:?}"
    );
    assert_eq!(
        status
            .get_details_resource_info()
            .map(|details| details.resource_name),
        Some("nobody".to_owned())
    );
    for escape in ["../m", "/etc/passwd", "a/../m", "m.gguf/.."] {
        let status = client::generate(&mut client, client::greedy(escape, &[1], 1))
            .await
            .expect_err("names stay inside");
        assert!(
            matches!(status.code(), Code::NotFound | Code::InvalidArgument),
            "{escape}: {status:?}"
        );
    }
    for broken in ["broken", "folder"] {
        let status = client::generate(&mut client, client::greedy(broken, &[1], 1))
            .await
            .expect_err("it is not a model");
        assert!(
            matches!(status.code(), Code::FailedPrecondition | Code::NotFound),
            "{broken}: {status:?}"
        );
    }
    let status = node
        .service
        .models()
        .await
        .unload_model(UnloadModelRequest {
            model: "m".to_owned(),
            keep_attached: false,
        })
        .await;
    assert_eq!(
        status.expect_err("it is not attached").code(),
        Code::NotFound
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attaching_on_demand_can_be_switched_off() {
    let node = node(&["--no-auto-attach"]).await;
    let status = client::generate(&mut node.service.client().await, valid())
        .await
        .expect_err("it is not attached");
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn zero_tokens_is_prefill_alone() {
    let node = node(&["--preload", "m"]).await;
    let completion = client::generate(
        &mut node.service.client().await,
        client::greedy("m", &[1, 2, 3], 0),
    )
    .await
    .expect("a prefill");
    assert!(completion.tokens.is_empty() && completion.text.is_empty());
    assert_eq!(
        completion.finished.expect("finished").finish_reason(),
        FinishReason::Length
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prompt_that_fills_the_context_leaves_no_room() {
    let node = node(&["--preload", "m"]).await;
    let mut client = node.service.client().await;
    let full = client::generate(&mut client, client::greedy("m", &[7; 511], 100))
        .await
        .expect("the prompt fits");
    assert_eq!(
        full.finished.expect("finished").finish_reason(),
        FinishReason::Length,
        "the context ends the output"
    );
    assert!(
        full.tokens.len() <= 2,
        "{} tokens behind a context of 512",
        full.tokens.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_huge_prompt_is_refused_and_not_held() {
    let node = node(&["--preload", "m"]).await;
    let mut client = node.service.client().await;
    let huge = with_prompt(Some(Prompt::Text("a".repeat(100 << 20))));
    let status = client::generate(&mut client, huge)
        .await
        .expect_err("a hundred megabytes");
    assert!(
        matches!(
            status.code(),
            Code::ResourceExhausted | Code::OutOfRange | Code::InvalidArgument
        ),
        "{status:?}"
    );
    let peak = std::fs::read_to_string(format!("/proc/{}/status", node.service.process.pid()))
        .expect("the process lives");
    let peak = peak
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .expect("a peak")
        .trim()
        .trim_end_matches(" kB")
        .to_owned();
    assert!(
        peak.parse::<u64>().expect("a number") < 300 << 10,
        "{peak} KiB at the peak"
    );
    client::generate(&mut node.service.client().await, valid())
        .await
        .expect("the service goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokenize_and_detokenize_are_inverse() {
    let node = node(&["--preload", "m"]).await;
    let mut client = node.service.client().await;
    let text = "Déjà vu, 3 tensors\n";
    let tokenize = TokenizeRequest {
        model: String::new(),
        text: text.to_owned(),
        ..TokenizeRequest::default()
    };
    let ids = client
        .tokenize(tokenize)
        .await
        .expect("ids")
        .into_inner()
        .ids;
    assert_eq!(
        ids,
        text.bytes().map(u32::from).collect::<Vec<_>>(),
        "a vocabulary without merges is its bytes"
    );
    let detokenize = DetokenizeRequest {
        model: "m".to_owned(),
        ids,
    };
    assert_eq!(
        client
            .detokenize(detokenize)
            .await
            .expect("text")
            .into_inner()
            .text,
        text
    );
    let outside = DetokenizeRequest {
        model: "m".to_owned(),
        ids: vec![300],
    };
    assert_eq!(
        client
            .detokenize(outside)
            .await
            .expect_err("no such token")
            .code(),
        Code::InvalidArgument
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stop_strings_and_stop_tokens_end_the_output_and_are_not_in_it() {
    let node = node(&["--preload", "m"]).await;
    let mut client = node.service.client().await;
    let free = client::generate(&mut client, client::greedy("m", &[1, 2, 3], 40))
        .await
        .expect("forty tokens");
    let id = free.tokens[5].id;
    let first = free
        .ids()
        .iter()
        .position(|other| *other == id)
        .expect("it is there");
    let stopped = with_stopping(|stopping| {
        stopping.max_tokens = Some(40);
        stopping.stop_token_ids = vec![id];
    });
    let stopped = client::generate(&mut client, stopped)
        .await
        .expect("it stops");
    let finished = stopped.finished.as_ref().expect("finished");
    assert_eq!(finished.finish_reason(), FinishReason::Stop);
    assert_eq!(stopped.ids()[..first], free.ids()[..first]);
    assert_eq!(
        finished.usage.expect("usage").completion_tokens as usize,
        first + 1
    );

    // A stop string that begins inside one token and ends inside the next, where the text is plain.
    let text: Vec<char> = free.text.chars().collect();
    let stop: String = text[3..6].iter().collect();
    let expected = &free.text[..free.text.find(&stop).expect("it is there")];
    let request = with_stopping(|stopping| {
        stopping.max_tokens = Some(40);
        stopping.stop = vec!["never to be seen".to_owned(), stop.clone()];
    });
    let by_text = client::generate(&mut client, request)
        .await
        .expect("it stops");
    assert_eq!(by_text.text, expected);
    let matched = by_text
        .finished
        .expect("finished")
        .stop_match
        .and_then(|matched| matched.kind);
    assert_eq!(
        matched,
        Some(proto::inference::v1::stop_match::Kind::Stop(stop))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seed_reproduces_and_the_drawn_seed_is_reported() {
    let node = node(&["--preload", "m"]).await;
    let mut client = node.service.client().await;
    let warm =
        |seed| with_sampling(|sampling| (sampling.temperature, sampling.seed) = (Some(1.5), seed));
    let long = |mut request: GenerateRequest| {
        request.stopping.get_or_insert_default().max_tokens = Some(30);
        request
    };
    let drawn = client::generate(&mut client, long(warm(None)))
        .await
        .expect("thirty tokens");
    let seed = drawn.started.as_ref().expect("started").seed;
    let again = client::generate(&mut client, long(warm(Some(seed))))
        .await
        .expect("thirty tokens");
    assert_eq!(drawn.ids(), again.ids());
    let other = client::generate(&mut client, long(warm(Some(seed ^ 1))))
        .await
        .expect("thirty tokens");
    assert_ne!(drawn.ids(), other.ids());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_ends_a_stream_with_its_own_code() {
    let node = node(&["--preload", "m"]).await;
    let mut request = tonic::Request::new(client::greedy("m", &[1; 8], 500));
    request
        .metadata_mut()
        .insert("grpc-timeout", "50m".parse().expect("fifty milliseconds"));
    let outcome = match node.service.client().await.generate(request).await {
        Ok(stream) => Completion::collect(stream.into_inner()).await.map(drop),
        Err(status) => Err(status),
    };
    let code = outcome.as_ref().map_err(Status::code);
    assert_eq!(code, Err(Code::DeadlineExceeded), "{outcome:?}");
}
