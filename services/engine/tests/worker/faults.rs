//! Fetches that fail, files that change, models that go.

use engine::{AttachError, AttachRequest, EngineConfig, EngineError, Resource};
use kernels::Device;

use crate::model::{File, Tiny, write};
use crate::source::{Fault, Memory};
use crate::support::{
    assert_let_go, attach, attach_source, collect, complete, config, llama_block_bytes,
    model_stats, next_delta, prompt, request, start, until,
};

async fn failed_once(fault: Fault, tensor: &str) -> EngineError {
    let file = write(Tiny::LLAMA);
    let engine = start(config());
    let source = attach(&engine, "m", &file).await;
    let extent = source.extent_of(tensor);
    source.set_fault(extent, Some(fault));
    let error = complete(&engine, request("m", prompt(1, 9), 3))
        .await
        .expect_err("a planted fault");
    assert_eq!(engine.stats().kv_used_bytes, 0);
    source.set_fault(extent, None);
    let again = complete(&engine, request("m", prompt(1, 9), 3)).await;
    match fault {
        Fault::Lost => assert!(
            matches!(again, Err(EngineError::DataLoss { .. })),
            "{again:?}"
        ),
        Fault::Fails | Fault::Panics => assert_eq!(again.expect("tried again").tokens.len(), 3),
    }
    error
}

#[tokio::test]
async fn a_failed_fetch_is_an_error_and_can_be_tried_again() {
    for tensor in ["token_embd.weight", "blk.1.ffn_up.weight", "output.weight"] {
        let error = failed_once(Fault::Fails, tensor).await;
        assert!(matches!(error, EngineError::Fetch { .. }), "{error}");
        let cause = std::error::Error::source(&error).expect("what the source said");
        assert_eq!(cause.to_string(), "planted");
    }
}

#[tokio::test]
async fn a_fetch_that_panics_is_a_failed_fetch() {
    let error = failed_once(Fault::Panics, "blk.0.attn_q.weight").await;
    assert!(matches!(error, EngineError::Fetch { .. }), "{error}");
}

#[tokio::test]
async fn a_file_that_changed_is_data_loss_for_good() {
    let error = failed_once(Fault::Lost, "blk.2.attn_k.weight").await;
    assert!(
        matches!(error, EngineError::DataLoss { cause: Some(_), .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_failed_eager_load_says_so_and_can_be_tried_again() {
    let engine = start(config());
    let source = attach(&engine, "m", &write(Tiny::LLAMA)).await;
    let extent = source.extent_of("blk.1.ffn_down.weight");
    source.set_fault(extent, Some(Fault::Fails));
    let load = || {
        let (progress, _) = tokio::sync::watch::channel(engine::LoadProgress::default());
        engine.load("m", progress)
    };
    match load().await {
        Err(EngineError::Fetch { extent: failed, .. }) => assert_eq!(failed, extent),
        other => panic!("{other:?}"),
    }
    source.set_fault(extent, None);
    load().await.expect("tried again");
    let again = load().await.expect("all is there");
    assert_eq!(
        (again.hot_bytes, again.moved_bytes()),
        (source.total_bytes(), 0)
    );
    assert_eq!(model_stats(&engine, "m").extents.failures, 1);
}

#[tokio::test]
async fn no_token_leaves_a_poisoned_mapping() {
    let engine = start(config());
    let source = attach(&engine, "bad", &write(Tiny::LLAMA)).await;
    attach(&engine, "good", &write(Tiny::QWEN)).await;
    source.gate().close();
    let mut bad = engine
        .submit(request("bad", prompt(1, 9), 50))
        .expect("room");
    source.gate().wait_for_somebody();
    // While the step is under way.
    source.poison();
    source.gate().open();
    let error = loop {
        match bad.recv().await.expect("a last word") {
            Ok(engine::TokenEvent::Started { .. }) => {}
            Ok(event) => panic!("{event:?} was computed from bytes that were lost"),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(error, EngineError::DataLoss { cause: None, .. }),
        "{error}"
    );
    assert!(model_stats(&engine, "bad").degraded);
    let refused = complete(&engine, request("bad", prompt(1, 9), 5))
        .await
        .expect_err("degraded");
    assert!(matches!(refused, EngineError::DataLoss { .. }), "{refused}");
    assert_eq!(
        complete(&engine, request("good", prompt(1, 9), 5))
            .await
            .expect("unharmed")
            .tokens
            .len(),
        5
    );

    // Attached anew it serves again.
    engine.unload("bad", false).await.expect("attached");
    attach(&engine, "bad", &write(Tiny::LLAMA)).await;
    complete(&engine, request("bad", prompt(1, 9), 5))
        .await
        .expect("a new file");
}

#[tokio::test]
async fn unloading_ends_what_runs_and_frees_what_was_there() {
    let file = write(Tiny::LLAMA);
    let engine = start(config());
    let source = attach(&engine, "m", &file).await;
    let mut stream = engine
        .submit(request("m", prompt(1, 9), 500))
        .expect("room");
    next_delta(&mut stream).await;
    let freed = engine.unload("m", false).await.expect("attached");
    assert_eq!(freed, source.total_bytes());
    assert_let_go(&source, file.directory.extents().len());
    let stats = engine.stats();
    assert_eq!(
        (
            stats.kv_used_bytes,
            stats.weights_used_bytes,
            stats.models.len()
        ),
        (0, 0, 0)
    );
    let mut last = None;
    while let Some(event) = stream.recv().await {
        last = Some(event);
    }
    assert!(
        matches!(last, Some(Err(EngineError::Unloaded { .. }))),
        "{last:?}"
    );
    let refused = complete(&engine, request("m", prompt(1, 9), 5))
        .await
        .expect_err("gone");
    assert!(
        matches!(refused, EngineError::UnknownModel { .. }),
        "{refused}"
    );
    assert!(matches!(
        engine.unload("m", false).await,
        Err(EngineError::UnknownModel { .. })
    ));
}

#[tokio::test]
async fn a_model_can_go_and_come_back_while_its_fetches_stand() {
    let file = write(Tiny::LLAMA);
    let engine = start(config());
    let old = attach(&engine, "m", &file).await;
    old.gate().close();
    let waiting = engine.submit(request("m", prompt(1, 9), 3)).expect("room");
    old.gate().wait_for_somebody();
    engine.unload("m", false).await.expect("attached");
    assert!(matches!(
        collect(waiting).await,
        Err(EngineError::Unloaded { .. })
    ));

    let new = Memory::new(&file);
    let report = attach_source(&engine, "m", &file, &new).await;
    assert_eq!(report.generation, 2);
    let answer = complete(&engine, request("m", prompt(1, 9), 3))
        .await
        .expect("an answer");
    assert_eq!(answer.load.cold_bytes, new.total_bytes());
    // What the old fetches bring now belongs to nobody.
    old.gate().open();
    until(&engine, |stats| {
        stats.weights_used_bytes == new.total_bytes()
    })
    .await;
    assert_let_go(&old, old.fetched().len());
}

fn attach_request(id: &str, file: &File) -> AttachRequest {
    AttachRequest {
        id: id.to_owned(),
        weights: Memory::new(file),
        tokenizer: file.tokenizer.clone(),
        pin: false,
    }
}

#[tokio::test]
async fn attaches_are_refused_with_reasons() {
    let file = write(Tiny::LLAMA);
    let engine = start(config());
    engine
        .attach(attach_request("m", &file))
        .await
        .expect("a sound model");
    let twice = engine.attach(attach_request("m", &file)).await;
    assert!(
        matches!(twice, Err(AttachError::AlreadyAttached { .. })),
        "{twice:?}"
    );

    let small = |weights, kv| {
        start(EngineConfig {
            weights_budget_bytes: Some(weights),
            kv_budget_bytes: kv,
            ..config()
        })
    };
    let refused = small(1000, 1 << 20)
        .attach(attach_request("m", &file))
        .await;
    let largest = file
        .directory
        .require("output.weight")
        .expect("there")
        .len_bytes
        + 4 * 32;
    match refused {
        Err(AttachError::DoesNotFit {
            resource: Resource::Weights,
            need_bytes,
            free_bytes: 1000,
        }) => assert_eq!(need_bytes, largest),
        other => panic!("{other:?}"),
    }
    let refused = small(1 << 20, 1000)
        .attach(attach_request("m", &file))
        .await;
    assert!(
        matches!(
            refused,
            Err(AttachError::DoesNotFit {
                resource: Resource::KvCache,
                ..
            })
        ),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_sequence_that_can_never_fit_is_told() {
    let file = write(Tiny::LLAMA);
    let block_bytes = llama_block_bytes();
    let engine = start(EngineConfig {
        kv_budget_bytes: 2 * block_bytes,
        ..config()
    });
    attach(&engine, "m", &file).await;
    let refused = complete(&engine, request("m", prompt(1, 65), 1))
        .await
        .expect_err("too long");
    assert!(
        matches!(
            refused,
            EngineError::KvFull {
                need_blocks: 3,
                total_blocks: 2
            }
        ),
        "{refused}"
    );
    // One that grows too long says what it can before.
    let mut stream = engine
        .submit(request("m", prompt(1, 60), 50))
        .expect("room");
    let mut said = 0;
    let error = loop {
        match stream.recv().await.expect("a last word") {
            Ok(engine::TokenEvent::Delta { tokens, .. }) => said += tokens.len(),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(error, EngineError::KvFull { .. }), "{error}");
    assert_eq!(said, 5);
    assert_eq!(engine.stats().kv_used_bytes, 0);
}

#[tokio::test]
async fn odd_weights_end_in_tokens_all_the_same() {
    for value in [f32::NAN, f32::INFINITY, f32::MAX] {
        let mut file = write(Tiny::LLAMA);
        let info = file
            .directory
            .require("blk.1.ffn_down.weight")
            .expect("there");
        let start_at = usize::try_from(info.offset_bytes).expect("a small file");
        let bytes = std::sync::Arc::get_mut(&mut file.bytes).expect("nobody else has them");
        bytes[start_at..][..4].copy_from_slice(&value.to_le_bytes());
        for device in [Device::reference(), config().device] {
            let engine = start(EngineConfig { device, ..config() });
            attach(&engine, "m", &file).await;
            let mut request = request("m", prompt(1, 9), 5);
            request.sampling.temperature = 1.0;
            assert_eq!(
                complete(&engine, request)
                    .await
                    .expect("some answer")
                    .tokens
                    .len(),
                5
            );
        }
    }
}
