//! What dies or breaks takes nothing else with it.
#![expect(
    clippy::too_many_lines,
    reason = "a test tells one story from beginning to end"
)]

use std::fs::{self, OpenOptions};

use e2e::client::{self, Completion};
use e2e::model::Llama;
use e2e::node::{Daemon, Launch, Service, health, workspace};
use gguf::TensorType;
use nix::sys::signal::Signal;
use proto::inference::v1::generate_response::Event;
use proto::inference::v1::{FinishReason, GetModelRequest, LoadModelRequest, Model, ModelState};
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;

const INFERENCE: &str = "hearth.inference.v1.InferenceService";

async fn model(service: &Service, id: &str) -> Model {
    let request = GetModelRequest {
        model: id.to_owned(),
    };
    service
        .models()
        .await
        .get_model(request)
        .await
        .expect("the model is known")
        .into_inner()
        .model
        .expect("an answer holds its model")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_survives_the_death_of_the_daemon() {
    let home = workspace();
    let models = home.path().join("models");
    let shape = Llama {
        n_layers: 10,
        n_embd: 2048,
        n_heads: 16,
        n_kv_heads: 16,
        n_ff: 2048,
        n_vocab: 1024,
        ..Llama::tiny()
    };
    let shape = Llama {
        weight_type: TensorType::F16,
        ..shape
    };
    let file = models.join("big.gguf");
    let tensor_bytes = shape.write(&file).expect("the model is written");
    assert!(tensor_bytes >= 512 << 20, "{tensor_bytes} bytes");
    e2e::proc::drop_page_cache(&file).expect("the cache can be dropped");

    // The daemon reads slowly enough to be caught in the middle.
    let slow = Launch::new().flags(["--read-rate-max", "16MiB"]);
    let mut daemon = Daemon::start(home.path(), &models, &slow).await;
    let service = Service::start(home.path(), "inference", &daemon, &Launch::new()).await;
    let request = client::greedy("big", &[1, 2, 3, 4], 3);
    let mut client = service.client().await;
    let answer = tokio::spawn(async move { client::generate(&mut client, request).await });
    let mut asker = service.models().await;
    loop {
        let request = GetModelRequest {
            model: "big".to_owned(),
        };
        let counters = asker
            .get_model(request)
            .await
            .ok()
            .and_then(|answer| answer.into_inner().model?.counters);
        if counters.is_some_and(|counters| counters.loaded_bytes > 0) {
            break;
        }
        tokio::task::yield_now().await;
    }
    daemon.process.kill();
    let loaded = model(&service, "big")
        .await
        .counters
        .expect("attached")
        .loaded_bytes;
    assert!(
        loaded < tensor_bytes * 3 / 10,
        "{loaded} of {tensor_bytes} bytes were fetched before the daemon died"
    );

    let answer = answer
        .await
        .expect("the reader lives")
        .expect("the stream goes on without the daemon");
    let counters = model(&service, "big").await.counters.expect("attached");
    assert!(
        counters.self_read_bytes >= tensor_bytes * 6 / 10,
        "{} bytes read by the service itself",
        counters.self_read_bytes
    );
    assert_eq!(
        health(&service.socket, INFERENCE).await,
        Some(ServingStatus::Serving),
        "health does not follow the daemon"
    );

    // A new daemon on the same socket is found again, and the tokens are those of an undisturbed run.
    let daemon = Daemon::start(home.path(), &models, &Launch::new()).await;
    client::published_until(&mut daemon.client().await, "big", |seen| {
        seen.lease_count == 1
    })
    .await;
    let undisturbed = Service::start(home.path(), "undisturbed", &daemon, &Launch::new()).await;
    let again = client::generate(
        &mut undisturbed.client().await,
        client::greedy("big", &[1, 2, 3, 4], 3),
    )
    .await
    .expect("three tokens");
    assert_eq!(answer.ids(), again.ids());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_service_leaves_no_lease() {
    let home = workspace();
    let models = home.path().join("models");
    Llama::tiny()
        .write(&models.join("m.gguf"))
        .expect("the model is written");
    let daemon = Daemon::start(home.path(), &models, &Launch::new()).await;
    let mut service = Service::start(
        home.path(),
        "inference",
        &daemon,
        &Launch::new().flags(["--preload", "m"]),
    )
    .await;
    let mut watcher = daemon.client().await;
    client::published_until(&mut watcher, "m", |seen| seen.lease_count == 1).await;
    service.process.kill();
    client::published_until(&mut watcher, "m", |seen| seen.lease_count == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncated_file_is_data_loss_for_its_model_alone() {
    let home = workspace();
    let models = home.path().join("models");
    let file = models.join("victim.gguf");
    Llama::large_extents()
        .write(&file)
        .expect("the model is written");
    Llama::tiny()
        .write(&models.join("bystander.gguf"))
        .expect("the model is written");
    let daemon = Daemon::start(home.path(), &models, &Launch::new()).await;
    let mut service = Service::start(
        home.path(),
        "inference",
        &daemon,
        &Launch::new().flags(["--preload", "victim", "--preload", "bystander"]),
    )
    .await;

    let before = client::generate(
        &mut service.client().await,
        client::greedy("bystander", &[1, 2], 5),
    )
    .await
    .expect("five tokens");
    client::generate(
        &mut service.client().await,
        client::greedy("victim", &[1, 2], 2),
    )
    .await
    .expect("the file is whole");
    let len = fs::metadata(&file).expect("it is there").len();
    OpenOptions::new()
        .write(true)
        .open(&file)
        .and_then(|file| file.set_len(len / 4))
        .expect("the file shrinks");

    let status = client::generate(
        &mut service.client().await,
        client::greedy("victim", &[3, 4], 4),
    )
    .await
    .expect_err("the weights are gone");
    assert_eq!(status.code(), Code::DataLoss, "{status:?}");
    assert!(service.process.alive(), "{}", service.process.log());
    assert_eq!(
        model(&service, "victim").await.state(),
        ModelState::Degraded
    );
    let after = client::generate(
        &mut service.client().await,
        client::greedy("bystander", &[1, 2], 5),
    )
    .await
    .expect("five tokens");
    assert_eq!(before.ids(), after.ids(), "the other model goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_drains_running_streams_and_refuses_new_ones() {
    let home = workspace();
    let models = home.path().join("models");
    Llama {
        context_length: 4096,
        ..Llama::tiny()
    }
    .write(&models.join("m.gguf"))
    .expect("the model is written");
    let daemon = Daemon::start(home.path(), &models, &Launch::new()).await;
    let mut service = Service::start(
        home.path(),
        "inference",
        &daemon,
        &Launch::new().flags(["--preload", "m"]),
    )
    .await;

    let mut running = service
        .client()
        .await
        .generate(client::greedy("m", &[1, 2, 3], 2000))
        .await
        .expect("admitted")
        .into_inner();
    let mut completion = Completion::default();
    while completion.tokens.is_empty() {
        completion.take(
            running
                .message()
                .await
                .expect("no error")
                .expect("more events")
                .event
                .expect("an event"),
        );
    }
    let mut late = service.client().await;
    service.process.signal(Signal::SIGTERM);
    let give_up = tokio::time::Instant::now() + e2e::node::PATIENCE;
    while health(&service.socket, INFERENCE).await == Some(ServingStatus::Serving) {
        assert!(
            tokio::time::Instant::now() < give_up,
            "health never says that the service is going"
        );
    }
    let refused = client::generate(&mut late, client::greedy("m", &[1], 1))
        .await
        .expect_err("a draining service takes nothing new");
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    completion
        .read(running)
        .await
        .expect("a running stream is finished");
    assert_eq!(
        completion.finished.expect("finished").finish_reason(),
        FinishReason::Length
    );
    assert!(
        service.process.wait().success(),
        "{}",
        service.process.log()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_that_takes_too_long_cancels_and_still_ends() {
    let home = workspace();
    let models = home.path().join("models");
    Llama {
        context_length: 1 << 20,
        n_layers: 8,
        ..Llama::tiny()
    }
    .write(&models.join("m.gguf"))
    .expect("the model is written");
    let daemon = Daemon::start(home.path(), &models, &Launch::new()).await;
    let flags = ["--preload", "m", "--drain-timeout", "1s"];
    let mut service = Service::start(
        home.path(),
        "inference",
        &daemon,
        &Launch::new().flags(flags),
    )
    .await;

    let mut running = service
        .client()
        .await
        .generate(client::greedy("m", &[1, 2, 3], 100_000))
        .await
        .expect("admitted")
        .into_inner();
    assert!(matches!(
        running
            .message()
            .await
            .expect("no error")
            .and_then(|message| message.event),
        Some(Event::Started(_))
    ));
    service.process.signal(Signal::SIGTERM);
    let mut last = None;
    while let Ok(Some(message)) = running.message().await {
        last = message.event;
    }
    assert!(
        matches!(&last, Some(Event::Finished(finished)) if finished.finish_reason() == FinishReason::Cancelled),
        "{last:?}"
    );
    assert!(
        service.process.wait().success(),
        "{}",
        service.process.log()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_file_is_a_new_generation() {
    let home = workspace();
    let models = home.path().join("models");
    let file = models.join("m.gguf");
    Llama::tiny().write(&file).expect("the model is written");
    let daemon = Daemon::start(home.path(), &models, &Launch::new()).await;
    let service = Service::start(home.path(), "inference", &daemon, &Launch::new()).await;
    let old = client::generate(&mut service.client().await, client::greedy("m", &[1, 2], 8))
        .await
        .expect("eight tokens");

    let mut watcher = daemon.client().await;
    let generation = watcher
        .get_model(proto::loader::v1::GetModelRequest {
            model: "m".to_owned(),
        })
        .await
        .expect("known")
        .into_inner()
        .model
        .expect("a model")
        .generation;
    // As operators replace files: written beside, then renamed over.
    let beside = home.path().join("new.gguf");
    Llama {
        seed: 2,
        ..Llama::tiny()
    }
    .write(&beside)
    .expect("the model is written");
    fs::rename(&beside, &file).expect("the file is replaced");
    client::published_until(&mut watcher, "m", |seen| seen.generation > generation).await;

    let kept = client::generate(&mut service.client().await, client::greedy("m", &[1, 2], 8))
        .await
        .expect("the old file is still mapped");
    assert_eq!(
        old.ids(),
        kept.ids(),
        "an attached model does not change under its clients"
    );
    service
        .models()
        .await
        .unload_model(proto::inference::v1::UnloadModelRequest {
            model: "m".to_owned(),
            keep_attached: false,
        })
        .await
        .expect("unloaded");
    let new = client::generate(&mut service.client().await, client::greedy("m", &[1, 2], 8))
        .await
        .expect("eight tokens");
    assert_ne!(old.ids(), new.ids(), "a fresh attach serves the new file");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_daemon_attaching_is_unavailable_and_the_attached_go_on() {
    let home = workspace();
    let models = home.path().join("models");
    Llama::tiny()
        .write(&models.join("a.gguf"))
        .expect("the model is written");
    Llama::tiny()
        .write(&models.join("b.gguf"))
        .expect("the model is written");
    let mut daemon = Daemon::start(home.path(), &models, &Launch::new()).await;
    let service = Service::start(
        home.path(),
        "inference",
        &daemon,
        &Launch::new().flags(["--preload", "a"]),
    )
    .await;
    daemon.process.kill();
    client::generate(&mut service.client().await, client::greedy("a", &[1], 1))
        .await
        .expect("an attached model needs no daemon");
    let request = LoadModelRequest {
        model: "b".to_owned(),
        ..LoadModelRequest::default()
    };
    let status = match service.models().await.load_model(request).await {
        Ok(progress) => {
            let mut progress = progress.into_inner();
            loop {
                match progress.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("a load without a daemon went well"),
                    Err(status) => break status,
                }
            }
        }
        Err(status) => status,
    };
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
}
