//! The end of the engine.

use engine::{AttachError, AttachRequest, Engine, EngineError, FinishReason};

use crate::model::{Tiny, write};
use crate::source::Memory;
use crate::support::{attach, collect, config, next_delta, prompt, request, start};

async fn engine_with_model() -> (Engine, std::sync::Arc<Memory>) {
    let engine = start(config());
    let source = attach(&engine, "m", &write(Tiny::LLAMA)).await;
    (engine, source)
}

#[tokio::test]
async fn shutdown_ends_everything_and_waits_for_the_worker() {
    let (engine, source) = engine_with_model().await;
    let mut running = engine
        .submit(request("m", prompt(1, 9), 500))
        .expect("room");
    next_delta(&mut running).await;
    let other = engine.clone();
    engine.shutdown().await;
    assert_eq!(
        std::sync::Arc::strong_count(&source),
        1,
        "worker and fetch threads have let go"
    );
    let mut last = None;
    while let Some(event) = running.recv().await {
        last = Some(event.expect("cancelled is no error"));
    }
    assert!(
        matches!(
            last,
            Some(engine::TokenEvent::Finished {
                reason: FinishReason::Cancelled,
                ..
            })
        ),
        "{last:?}"
    );
    assert!(!other.is_running());
    assert!(matches!(
        other.submit(request("m", prompt(1, 9), 5)),
        Err(EngineError::ShuttingDown)
    ));
    let file = write(Tiny::QWEN);
    let late = AttachRequest {
        id: "n".to_owned(),
        weights: Memory::new(&file),
        tokenizer: file.tokenizer.clone(),
        pin: false,
    };
    let refused = other.attach(late).await;
    assert!(matches!(refused, Err(AttachError::ShuttingDown)));
    other.shutdown().await;
}

#[tokio::test]
async fn shutdown_does_not_wait_for_a_fetch_that_stands() {
    let (engine, source) = engine_with_model().await;
    source.gate().close();
    let waiting = engine.submit(request("m", prompt(1, 9), 5)).expect("room");
    source.gate().wait_for_somebody();
    engine.shutdown().await;
    assert_eq!(
        collect(waiting)
            .await
            .expect("cancelled is no error")
            .reason(),
        &FinishReason::Cancelled
    );
    source.gate().open();
}

#[tokio::test]
async fn the_worker_goes_with_the_last_handle() {
    let (engine, _source) = engine_with_model().await;
    let mut stats = engine.watch_stats();
    let stream = engine
        .submit(request("m", prompt(1, 9), 500))
        .expect("room");
    drop(engine);
    while stats.changed().await.is_ok() {}
    collect(stream).await.expect("a last word");
}
