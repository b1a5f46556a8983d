//! Prefix reuse, choice of tokens and pins, through gRPC.

use e2e::client::{self, Completion};
use e2e::model::Llama;
use e2e::node::{Daemon, Launch, Service, workspace};
use proto::inference::v1::{
    FinishReason, GenerateRequest, GetModelRequest, LoadModelRequest, LogitBias,
};
use tempfile::TempDir;

struct Node {
    service: Service,
    _daemon: Daemon,
    _home: TempDir,
}

async fn node() -> Node {
    let home = workspace();
    let models = home.path().join("models");
    Llama::tiny()
        .write(&models.join("m.gguf"))
        .expect("the model is written");
    let daemon = Daemon::start(home.path(), &models, &Launch::new()).await;
    let service = Service::start(home.path(), "inference", &daemon, &Launch::new()).await;
    Node {
        service,
        _daemon: daemon,
        _home: home,
    }
}

/// Seventy tokens, of which two blocks are full.
fn long(salt: &str) -> GenerateRequest {
    let ids: Vec<u32> = (0..70).map(|i| i * 3 % 250).collect();
    GenerateRequest {
        cache_salt: salt.to_owned(),
        ..client::greedy("m", &ids, 12)
    }
}

fn cached(completion: &Completion) -> u32 {
    let found = completion
        .prefilled
        .as_ref()
        .expect("a prompt")
        .cached_tokens;
    let usage = completion.finished.as_ref().expect("an end").usage;
    let usage = usage.expect("counts");
    assert_eq!((usage.cached_tokens, usage.prompt_tokens), (found, 70));
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_tokens_are_counted_and_kept_apart_by_salt() {
    let node = node().await;
    let mut client = node.service.client().await;
    let mut answers = Vec::new();
    for salt in ["", "", "tenant", "tenant", ""] {
        let answer = client::generate(&mut client, long(salt)).await;
        answers.push(answer.expect("an answer"));
    }
    let counts: Vec<u32> = answers.iter().map(cached).collect();
    assert_eq!(counts, [0, 64, 0, 64, 64]);
    for answer in &answers {
        assert_eq!(answer.ids(), answers[0].ids());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn biases_and_least_lengths_are_served() {
    let node = node().await;
    let mut client = node.service.client().await;
    let bias = |token_id, bias| LogitBias { token_id, bias };
    let mut request = long("");
    request.sampling.get_or_insert_default().logit_bias = vec![bias(42, 100.0)];
    let answer = client::generate(&mut client, request.clone()).await;
    assert_eq!(answer.expect("an answer").ids(), [42; 12]);
    // The same token may not stop the output before the fifth is said, so something else is.
    let stopping = request.stopping.get_or_insert_default();
    (stopping.stop_token_ids, stopping.min_tokens) = (vec![42], 5);
    let answer = client::generate(&mut client, request).await;
    let answer = answer.expect("an answer");
    let ids = answer.ids();
    assert!(
        ids.len() == 6 && ids[5] == 42 && !ids[..5].contains(&42),
        "{ids:?}"
    );
    let finished = answer.finished.expect("an end");
    assert_eq!(finished.finish_reason(), FinishReason::Stop);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_a_request_attached_can_be_pinned() {
    let node = node().await;
    let mut client = node.service.client().await;
    client::generate(&mut client, long(""))
        .await
        .expect("an answer");
    let mut models = node.service.models().await;
    let get = || GetModelRequest {
        model: "m".to_owned(),
    };
    let pinned = |model: Option<proto::inference::v1::Model>| model.expect("a model").pinned;
    let before = models
        .get_model(get())
        .await
        .expect("attached")
        .into_inner();
    assert!(!pinned(before.model));
    let load = LoadModelRequest {
        model: "m".to_owned(),
        pin: true,
        ..LoadModelRequest::default()
    };
    let mut progress = models
        .load_model(load)
        .await
        .expect("it loads")
        .into_inner();
    let mut last = None;
    while let Some(word) = progress.message().await.expect("no error") {
        last = Some(word);
    }
    let last = last.expect("a last word");
    assert!(last.done && pinned(last.model));
    let after = models
        .get_model(get())
        .await
        .expect("attached")
        .into_inner();
    assert!(pinned(after.model));
}
