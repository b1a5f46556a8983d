//! Eight streams in one batch answer, to the bit, as each does alone.

use e2e::client::{self, Completion};
use e2e::model::Llama;
use e2e::node::{Daemon, Launch, Service, workspace};
use proto::inference::v1::generate_response::Event;
use proto::inference::v1::{GenerateRequest, GetModelRequest, OutputOptions, PlanCounters};

const STREAMS: u32 = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_staggered_streams_equal_each_alone() {
    let home = workspace();
    let models = home.path().join("models");
    Llama {
        n_layers: 4,
        ..Llama::tiny()
    }
    .write(&models.join("m.gguf"))
    .expect("the model is written");
    let daemon = Daemon::start(home.path(), &models, &Launch::new()).await;
    // Chunks smaller than the longest prompts, so that prefill and decode share steps.
    let service = Service::start(
        home.path(),
        "inference",
        &daemon,
        &Launch::new().flags(["--prefill-chunk", "16"]),
    )
    .await;

    let mut alone = Vec::new();
    for stream in 0..STREAMS {
        alone.push(
            client::generate(&mut service.client().await, request(stream))
                .await
                .expect("a stream alone"),
        );
    }
    let counters_alone = counters(&service).await;

    // Each stream is opened when the one before it has brought its first token: arrivals are staggered by events, and all eight overlap.
    let mut running = Vec::new();
    for stream in 0..STREAMS {
        let mut events = service
            .client()
            .await
            .generate(request(stream))
            .await
            .expect("admitted")
            .into_inner();
        let mut completion = Completion::default();
        while completion.tokens.is_empty() {
            let message = events
                .message()
                .await
                .expect("no error")
                .expect("more events");
            completion.take(message.event.expect("an event"));
        }
        running.push(tokio::spawn(async move {
            completion.read(events).await.expect("the stream ends well");
            completion
        }));
    }
    for (stream, task) in running.into_iter().enumerate() {
        let together = task.await.expect("the reader lives");
        assert_eq!(
            bits(&together),
            bits(&alone[stream]),
            "stream {stream} answers otherwise in company"
        );
    }
    let counters_both = counters(&service).await;
    let wide_together = counters_both.wide_steps - counters_alone.wide_steps;
    // Prefill makes some steps wide even alone; decode does so only in company.
    assert!(
        wide_together > counters_alone.wide_steps + 50,
        "{wide_together} wide steps together, {} alone",
        counters_alone.wide_steps
    );
    let steps_together = counters_both.steps - counters_alone.steps;
    assert!(
        steps_together < counters_alone.steps / 2,
        "{steps_together} steps together, {} alone",
        counters_alone.steps
    );
}

/// Prompts of 3 to 45 tokens, and outputs long enough for the first stream to outlast the arrival of the last.
fn request(stream: u32) -> GenerateRequest {
    let prompt: Vec<u32> = (0..3 + stream * 6)
        .map(|position| (stream * 31 + position * 7) % 256)
        .collect();
    let mut request = client::greedy("m", &prompt, 400 - stream * 8);
    request.output = Some(OutputOptions {
        logprobs: Some(5),
        ..OutputOptions::default()
    });
    request
}

/// A token, the bits of its log-probability, and the same of the likely ones.
type TokenBits = (u32, u32, Vec<(u32, u32)>);

/// Tokens and the exact bits of their log-probabilities.
fn bits(completion: &Completion) -> Vec<TokenBits> {
    let top = |token: &proto::inference::v1::Token| {
        token
            .top
            .iter()
            .map(|top| (top.id, top.logprob.to_bits()))
            .collect()
    };
    completion
        .tokens
        .iter()
        .map(|token| {
            (
                token.id,
                token.logprob.expect("asked for").to_bits(),
                top(token),
            )
        })
        .collect()
}

async fn counters(service: &Service) -> PlanCounters {
    let request = GetModelRequest {
        model: "m".to_owned(),
    };
    let model = service
        .models()
        .await
        .get_model(request)
        .await
        .expect("known")
        .into_inner()
        .model
        .expect("a model");
    model.counters.expect("an attached model has counters")
}

#[tokio::test]
async fn events_come_in_order_and_deltas_add_up() {
    let home = workspace();
    let models = home.path().join("models");
    Llama::tiny()
        .write(&models.join("m.gguf"))
        .expect("the model is written");
    let daemon = Daemon::start(home.path(), &models, &Launch::new()).await;
    let service = Service::start(
        home.path(),
        "inference",
        &daemon,
        &Launch::new().flags(["--preload", "m"]),
    )
    .await;

    let mut events = service
        .client()
        .await
        .generate(client::greedy("", &[5, 6, 7], 9))
        .await
        .expect("admitted")
        .into_inner();
    let first = events
        .message()
        .await
        .expect("no error")
        .and_then(|message| message.event);
    assert!(
        matches!(&first, Some(Event::Started(started)) if started.prompt_tokens == 3 && started.model == "m"),
        "{first:?}"
    );
    let mut completion = Completion::default();
    completion.take(first.expect("checked above"));
    completion.read(events).await.expect("the stream ends well");
    let usage = completion
        .finished
        .as_ref()
        .and_then(|finished| finished.usage)
        .expect("usage");
    assert_eq!(
        (
            usage.prompt_tokens,
            usage.completion_tokens,
            completion.tokens.len()
        ),
        (3, 9, 9)
    );
    let bytes: Vec<u8> = completion
        .tokens
        .iter()
        .flat_map(|token| token.text_bytes.clone())
        .collect();
    assert_eq!(
        completion.text,
        String::from_utf8_lossy(&bytes),
        "the text is what the tokens' bytes say"
    );
}
