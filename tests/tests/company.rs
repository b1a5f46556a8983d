//! Nobody is held up by a cold model, a vanished client or a slow reader.
#![expect(
    clippy::too_many_lines,
    reason = "a test tells one story from beginning to end"
)]

use std::time::{Duration, Instant};

use e2e::client::{self, Completion};
use e2e::model::Llama;
use e2e::node::{Daemon, Launch, PATIENCE, Service, workspace};
use proto::inference::v1::inference_service_client::InferenceServiceClient;
use proto::inference::v1::{GenerateResponse, GetModelRequest, ListModelsRequest, OutputOptions};
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Streaming};

async fn first_token(
    client: &mut InferenceServiceClient<Channel>,
    model: &str,
    max_tokens: u32,
) -> (Completion, Streaming<GenerateResponse>) {
    let mut events = client
        .generate(client::greedy(model, &[1, 2, 3], max_tokens))
        .await
        .expect("admitted")
        .into_inner();
    let mut completion = Completion::default();
    while completion.tokens.is_empty() {
        completion.take(
            events
                .message()
                .await
                .expect("no error")
                .expect("more events")
                .event
                .expect("an event"),
        );
    }
    (completion, events)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_model_does_not_hold_up_a_warm_one() {
    let home = workspace();
    let models = home.path().join("models");
    let cold_file = models.join("cold.gguf");
    let cold_bytes = Llama::large_extents()
        .write(&cold_file)
        .expect("the model is written");
    Llama {
        context_length: 1 << 16,
        ..Llama::tiny()
    }
    .write(&models.join("warm.gguf"))
    .expect("the model is written");
    e2e::proc::drop_page_cache(&cold_file).expect("the cache can be dropped");
    // The daemon reads 20 MB a second from storage: the cold model needs several seconds.
    let daemon = Daemon::start(
        home.path(),
        &models,
        &Launch::new().flags(["--read-rate-max", "20MB"]),
    )
    .await;
    let service = Service::start(
        home.path(),
        "inference",
        &daemon,
        &Launch::new().flags(["--preload", "warm"]),
    )
    .await;

    let mut warm_client = service.client().await;
    let (mut warm, mut warm_events) = first_token(&mut warm_client, "warm", 20_000).await;

    let mut cold_client = service.client().await;
    let cold = tokio::spawn(async move {
        client::generate(&mut cold_client, client::greedy("cold", &[1, 2], 2)).await
    });
    // Cancel and deadline of the cold model work while it is being fetched.
    let vanished = service
        .client()
        .await
        .generate(client::greedy("cold", &[3, 4], 2))
        .await
        .expect("admitted")
        .into_inner();
    let mut hurried = tonic::Request::new(client::greedy("cold", &[5, 6], 2));
    hurried.set_timeout(Duration::from_millis(200));
    let hurried = match service.client().await.generate(hurried).await {
        Ok(events) => Completion::collect(events.into_inner()).await.map(drop),
        Err(status) => Err(status),
    };
    assert!(matches!(
        hurried.expect_err("200 ms are too few").code(),
        Code::DeadlineExceeded | Code::Cancelled
    ));
    drop(vanished);

    let mut tokens_meanwhile = 0;
    while !cold.is_finished() {
        let Some(message) = warm_events.message().await.expect("no error") else {
            break;
        };
        let before = warm.tokens.len();
        warm.take(message.event.expect("an event"));
        tokens_meanwhile += warm.tokens.len() - before;
    }
    let cold = cold.await.expect("the reader lives").expect("two tokens");
    let load = cold
        .prefilled
        .and_then(|prefilled| prefilled.load)
        .expect("a load");
    assert_eq!(
        load.cold_bytes + load.warm_bytes + load.hot_bytes,
        cold_bytes
    );
    assert!(
        tokens_meanwhile > 200,
        "the warm model brought {tokens_meanwhile} tokens while the cold one was fetched"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_vanishes_frees_its_place() {
    let home = workspace();
    let models = home.path().join("models");
    Llama {
        context_length: 1 << 16,
        n_layers: 4,
        ..Llama::tiny()
    }
    .write(&models.join("m.gguf"))
    .expect("the model is written");
    let daemon = Daemon::start(home.path(), &models, &Launch::new()).await;
    let flags = ["--preload", "m", "--max-running", "1", "--max-queued", "1"];
    let service = Service::start(
        home.path(),
        "inference",
        &daemon,
        &Launch::new().flags(flags),
    )
    .await;

    // In decode: it holds the only place.
    let mut decode_client = service.client().await;
    let (_, decoding) = first_token(&mut decode_client, "m", 60_000).await;
    // In the queue: it holds the only place there, so the next one is refused.
    let queued = retry_while_full(&mut service.client().await, &[1, 2]).await;
    let full = client::generate(&mut service.client().await, client::greedy("m", &[1, 2], 4))
        .await
        .expect_err("the queue is full");
    assert_eq!(full.code(), Code::ResourceExhausted, "{full:?}");
    drop(queued);
    let mut third = service.client().await;
    let third = retry_while_full(&mut third, &[1, 2]).await;
    drop(decoding);
    drop(decode_client);
    let third = timeout(PATIENCE, Completion::collect(third))
        .await
        .expect("the place is free")
        .expect("four tokens");
    assert_eq!(third.tokens.len(), 4);

    // In prefill: a long prompt, dropped as soon as it is admitted.
    let long: Vec<u32> = (0..30_000).map(|position| position % 256).collect();
    let mut prefilling = service
        .client()
        .await
        .generate(client::greedy("m", &long, 4))
        .await
        .expect("admitted")
        .into_inner();
    prefilling
        .message()
        .await
        .expect("no error")
        .expect("started");
    drop(prefilling);
    let next = timeout(
        PATIENCE,
        client::generate(&mut service.client().await, client::greedy("m", &[9], 4)),
    )
    .await;
    next.expect("the place is free").expect("four tokens");
}

/// A vanished client is seen within a step; until then the queue may still be full.
async fn retry_while_full(
    client: &mut InferenceServiceClient<Channel>,
    prompt: &[u32],
) -> Streaming<GenerateResponse> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        match client.generate(client::greedy("m", prompt, 4)).await {
            Ok(events) => return events.into_inner(),
            Err(status) => assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}"),
        }
        assert!(Instant::now() < give_up, "the place never becomes free");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_is_ended_and_seven_fast_ones_are_not() {
    let home = workspace();
    let models = home.path().join("models");
    Llama {
        context_length: 1 << 16,
        ..Llama::tiny()
    }
    .write(&models.join("m.gguf"))
    .expect("the model is written");
    let daemon = Daemon::start(home.path(), &models, &Launch::new()).await;
    let flags = ["--preload", "m", "--slow-client-timeout", "2s"];
    let service = Service::start(
        home.path(),
        "inference",
        &daemon,
        &Launch::new().flags(flags),
    )
    .await;

    let mut slow_client = service.client().await;
    // Twenty likely tokens with every token: messages that fill the transport's windows soon.
    let mut request = client::greedy("m", &[1, 2, 3], 60_000);
    request.output = Some(OutputOptions {
        logprobs: Some(20),
        ..OutputOptions::default()
    });
    let mut slow = slow_client
        .generate(request)
        .await
        .expect("admitted")
        .into_inner();
    slow.message().await.expect("no error").expect("started");
    let mut fast = tokio::task::JoinSet::new();
    for index in 0..7 {
        let mut client = service.client().await;
        fast.spawn(async move {
            client::generate(&mut client, client::greedy("m", &[index, 2], 300)).await
        });
    }
    while let Some(done) = fast.join_next().await {
        assert_eq!(
            done.expect("the reader lives")
                .expect("a fast reader gets all")
                .tokens
                .len(),
            300
        );
    }

    // One message a second: the transport's windows and the service's queue fill up, and the stream is ended.
    let mut reader = tokio::time::interval(Duration::from_secs(1));
    let ended = timeout(PATIENCE * 2, async {
        for _ in 0..20 {
            reader.tick().await;
            if let Err(status) = slow.message().await {
                return status;
            }
        }
        // What was under way when the stream was ended is read at full speed.
        loop {
            match slow.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("a reader of one message a second was given everything"),
                Err(status) => return status,
            }
        }
    });
    let status = ended.await.expect("the stream ends");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_attaches_a_published_model_once_for_all_who_wait() {
    let home = workspace();
    let models = home.path().join("models");
    Llama::tiny()
        .write(&models.join("m.gguf"))
        .expect("the model is written");
    let daemon = Daemon::start(home.path(), &models, &Launch::new()).await;
    let service = Service::start(home.path(), "inference", &daemon, &Launch::new()).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let mut client = service.client().await;
        tasks.spawn(
            async move { client::generate(&mut client, client::greedy("m", &[1, 2], 3)).await },
        );
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("the reader lives").expect("three tokens");
    }
    let known = daemon
        .client()
        .await
        .get_model(proto::loader::v1::GetModelRequest {
            model: "m".to_owned(),
        })
        .await
        .expect("known");
    assert_eq!(
        known.into_inner().model.expect("a model").lease_count,
        1,
        "six requests, one lease"
    );
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
    let counters = model.counters.expect("attached");
    assert_eq!(
        counters.loads,
        u64::from(counters.extents),
        "six requests, one load of each extent"
    );
    let listed = service
        .models()
        .await
        .list_models(ListModelsRequest {})
        .await
        .expect("a list")
        .into_inner()
        .models;
    assert_eq!(
        listed
            .iter()
            .map(|model| model.id.as_str())
            .collect::<Vec<_>>(),
        ["m"]
    );
}
