//! Readers that are slow, gone, or too many.

use std::time::Duration;

use engine::{EngineConfig, EngineError, TokenEvent};

use crate::model::{Tiny, write};
use crate::support::{
    attach, collect, complete, config, next_delta, prompt, request, start, until,
};

#[tokio::test]
async fn a_slow_reader_stands_still_and_is_ended_alone() {
    let engine = start(EngineConfig {
        event_capacity: 8,
        slow_client_timeout: Duration::from_millis(50),
        ..config()
    });
    attach(&engine, "m", &write(Tiny::LLAMA)).await;
    let mut slow = engine
        .submit(request("m", prompt(0, 9), 400))
        .expect("room");
    let fast: Vec<_> = (1..8)
        .map(|n| {
            let stream = engine
                .submit(request("m", prompt(n, 9), 200))
                .expect("room");
            tokio::spawn(collect(stream))
        })
        .collect();
    // It reads a little, which does not help.
    next_delta(&mut slow).await;
    for stream in fast {
        assert_eq!(
            stream
                .await
                .expect("no panic")
                .expect("an answer")
                .tokens
                .len(),
            200
        );
    }
    until(&engine, |stats| stats.failed == 1).await;
    let mut last = None;
    let mut said = 1;
    while let Some(event) = slow.recv().await {
        if let Ok(TokenEvent::Delta { tokens, .. }) = &event {
            said += tokens.len();
        }
        last = Some(event);
    }
    assert!(
        matches!(last, Some(Err(EngineError::SlowClient { .. }))),
        "{last:?}"
    );
    assert!(said < 20, "it stood still after {said} tokens");
    assert_eq!(engine.stats().kv_used_bytes, 0);
}

#[tokio::test]
async fn a_reader_that_catches_up_loses_nothing() {
    let file = write(Tiny::LLAMA);
    let roomy = start(config());
    attach(&roomy, "m", &file).await;
    let expected = complete(&roomy, request("m", prompt(0, 9), 60))
        .await
        .expect("an answer");

    let engine = start(EngineConfig {
        event_capacity: 4,
        ..config()
    });
    attach(&engine, "m", &file).await;
    let stream = engine.submit(request("m", prompt(0, 9), 60)).expect("room");
    until(&engine, |stats| stats.parked == 1).await;
    let completion = collect(stream).await.expect("an answer");
    assert_eq!(completion.bits(), expected.bits());
    assert_eq!(completion.text, expected.text);
}

#[tokio::test]
async fn a_dropped_stream_frees_its_blocks() {
    let engine = start(config());
    attach(&engine, "m", &write(Tiny::LLAMA)).await;
    let mut stream = engine
        .submit(request("m", prompt(1, 100), 400))
        .expect("room");
    next_delta(&mut stream).await;
    assert!(engine.stats().kv_used_bytes > 0);
    drop(stream);
    let stats = until(&engine, |stats| stats.kv_used_bytes == 0).await;
    assert_eq!(
        (stats.running, stats.queued, stats.finished, stats.failed),
        (0, 0, 1, 1)
    );
}

#[tokio::test]
async fn the_queue_is_bounded_for_each_model() {
    let engine = start(EngineConfig {
        max_running: 2,
        max_queued: 1,
        ..config()
    });
    let source = attach(&engine, "m", &write(Tiny::LLAMA)).await;
    attach(&engine, "other", &write(Tiny::QWEN)).await;
    source.gate().close();
    let submit = || engine.submit(request("m", prompt(1, 9), 4));
    let mut streams: Vec<_> = (0..3).map(|_| submit().expect("room")).collect();
    source.gate().wait_for_somebody();
    until(&engine, |stats| stats.running + stats.queued == 3).await;
    match submit() {
        Err(EngineError::QueueFull { max_queued: 1 }) => {}
        other => panic!("{other:?}"),
    }
    complete(&engine, request("other", prompt(1, 9), 4))
        .await
        .expect("another model's queue is its own");
    // One that leaves the queue makes room, before its turn came.
    drop(streams.pop());
    until(&engine, |stats| stats.running + stats.queued == 2).await;
    streams.push(submit().expect("room again"));
    source.gate().open();
    for stream in streams {
        collect(stream).await.expect("an answer");
    }
    submit().expect("those that ended have left");
}
