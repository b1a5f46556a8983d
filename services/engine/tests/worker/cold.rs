//! Weights that come when they are needed, and models that do not wait for each other's.

mod pins;

use std::time::{Duration, Instant};

use engine::{EngineConfig, EngineError, LoadProgress, LoadStats, TokenEvent};
use tokio::sync::watch;

use crate::model::{Tiny, write};
use crate::support::{
    assert_let_go, attach, collect, complete, config, llama_block_bytes, model_stats, next_delta,
    prompt, request, start, until,
};

#[tokio::test]
async fn nothing_is_read_before_the_first_token_and_everything_for_it() {
    let file = write(Tiny::LLAMA);
    let engine = start(config());
    let source = attach(&engine, "m", &file).await;
    assert_eq!(
        (source.fetched(), model_stats(&engine, "m").resident_bytes),
        (Vec::new(), 0)
    );
    let first = complete(&engine, request("m", prompt(1, 9), 1))
        .await
        .expect("an answer");
    let cold = LoadStats {
        cold_bytes: source.total_bytes(),
        ..LoadStats::default()
    };
    assert_eq!(first.load, cold);
    let order = source.fetched();
    assert_eq!(
        order.len(),
        file.directory.extents().len(),
        "each extent once"
    );
    let second = complete(&engine, request("m", prompt(2, 9), 5))
        .await
        .expect("an answer");
    let hot = LoadStats {
        hot_bytes: source.total_bytes(),
        ..LoadStats::default()
    };
    assert_eq!(second.load, hot);
    assert_eq!(
        source.fetched().len(),
        order.len(),
        "nothing is fetched again"
    );
    let extents = model_stats(&engine, "m").extents;
    assert_eq!(
        (extents.loads, extents.cold_bytes, extents.evictions),
        (order.len() as u64, source.total_bytes(), 0)
    );
}

#[tokio::test]
async fn one_load_serves_all_who_wait_for_it() {
    let file = write(Tiny::LLAMA);
    let engine = start(config());
    let source = attach(&engine, "m", &file).await;
    source.gate().close();
    let streams: Vec<_> = (0..4)
        .map(|n| engine.submit(request("m", prompt(n, 9), 3)).expect("room"))
        .collect();
    source.gate().wait_for_somebody();
    source.gate().open();
    for stream in streams {
        let load = collect(stream).await.expect("an answer").load;
        assert_eq!(
            load.cold_bytes,
            source.total_bytes(),
            "each of them saw this load"
        );
    }
    assert_eq!(source.fetched().len(), file.directory.extents().len());
}

#[tokio::test]
async fn a_cold_model_does_not_hold_up_a_warm_one() {
    let engine = start(config());
    let slow = attach(&engine, "slow", &write(Tiny::LLAMA)).await;
    attach(&engine, "fast", &write(Tiny::QWEN)).await;
    complete(&engine, request("fast", prompt(1, 4), 1))
        .await
        .expect("warmed up");

    slow.gate().close();
    let waiting = engine
        .submit(request("slow", prompt(1, 20), 4))
        .expect("room");
    let cancelled = engine
        .submit(request("slow", prompt(2, 20), 4))
        .expect("room");
    let mut hurried = request("slow", prompt(3, 20), 4);
    hurried.deadline = Some(Instant::now() + Duration::from_millis(30));
    let hurried = engine.submit(hurried).expect("room");
    slow.gate().wait_for_somebody();

    let answer = complete(&engine, request("fast", prompt(2, 30), 100))
        .await
        .expect("an answer");
    assert_eq!(answer.tokens.len(), 100);
    drop(cancelled);
    until(&engine, |stats| stats.failed >= 1).await;
    let late = collect(hurried).await.expect_err("nothing came");
    assert!(matches!(late, EngineError::DeadlineExceeded), "{late}");
    let stats = engine.stats();
    assert_eq!(stats.model("slow").expect("attached").steps, 0);
    assert!(stats.model("fast").expect("attached").steps >= 100);

    // Layer by layer, as the storage gives.
    slow.gate().let_pass(5);
    slow.gate().open();
    let answer = collect(waiting).await.expect("in the end");
    assert_eq!(answer.tokens.len(), 4);
    assert!(model_stats(&engine, "slow").stalls > 0);
    let timings = answer.end.expect("it finished").2;
    assert!(
        timings.load_wait > Duration::ZERO && timings.total >= timings.load_wait,
        "{timings:?}"
    );
}

#[tokio::test]
async fn a_step_nobody_waits_for_is_given_up() {
    let engine = start(config());
    let source = attach(&engine, "m", &write(Tiny::LLAMA)).await;
    source.gate().close();
    let stream = engine.submit(request("m", prompt(1, 20), 4)).expect("room");
    source.gate().wait_for_somebody();
    until(&engine, |stats| stats.kv_used_bytes > 0).await;
    drop(stream);
    until(&engine, |stats| {
        stats.kv_used_bytes == 0 && stats.running == 0
    })
    .await;
    source.gate().open();
    let answer = complete(&engine, request("m", prompt(1, 20), 4))
        .await
        .expect("an answer");
    assert_eq!(answer.tokens.len(), 4);
}

#[tokio::test]
async fn a_model_larger_than_the_budget_is_still_right() {
    for tiny in [Tiny::LLAMA, Tiny::QWEN] {
        let file = write(tiny);
        let roomy = start(config());
        attach(&roomy, "m", &file).await;
        let expected = complete(&roomy, request("m", prompt(1, 40), 20))
            .await
            .expect("an answer");

        // The embedding or the output is the largest layer.
        let largest = file
            .directory
            .require("token_embd.weight")
            .expect("there")
            .len_bytes;
        for slack in [200, 20_000] {
            let budget_bytes = largest + slack;
            let engine = start(EngineConfig {
                weights_budget_bytes: Some(budget_bytes),
                ..config()
            });
            let source = attach(&engine, "m", &file).await;
            assert!(budget_bytes < source.total_bytes());
            let squeezed = complete(&engine, request("m", prompt(1, 40), 20))
                .await
                .expect("an answer");
            assert_eq!(squeezed.bits(), expected.bits());
            let stats = engine.stats();
            assert!(stats.weights_used_bytes <= budget_bytes);
            let extents = stats.model("m").expect("attached").extents;
            assert!(extents.evictions > 20, "{extents:?}");
            assert_let_go(&source, usize::try_from(extents.evictions).expect("few"));
        }
    }
}

#[tokio::test]
async fn two_models_share_a_budget_that_holds_one() {
    let (llama, qwen) = (write(Tiny::LLAMA), write(Tiny::QWEN));
    let largest = llama
        .directory
        .require("token_embd.weight")
        .expect("there")
        .len_bytes;
    let engine = start(EngineConfig {
        weights_budget_bytes: Some(largest + 300),
        ..config()
    });
    attach(&engine, "a", &llama).await;
    attach(&engine, "b", &qwen).await;
    let (a, b) = tokio::join!(
        complete(&engine, request("a", prompt(1, 30), 10)),
        complete(&engine, request("b", prompt(1, 30), 10))
    );
    assert_eq!(
        (
            a.expect("an answer").tokens.len(),
            b.expect("an answer").tokens.len()
        ),
        (10, 10)
    );
}

#[tokio::test]
async fn an_eager_load_reports_and_leaves_nothing_to_fetch() {
    let file = write(Tiny::LLAMA);
    let engine = start(config());
    let source = attach(&engine, "m", &file).await;
    source.gate().close();
    let (progress_in, mut progress) = watch::channel(LoadProgress::default());
    let load = engine.load("m", progress_in);
    let watched = async {
        source.gate().let_pass(3);
        let some = *progress
            .wait_for(|progress| progress.done_bytes > 0)
            .await
            .expect("it goes on");
        assert_eq!(some.total_bytes, source.total_bytes());
        source.gate().open();
        progress
            .wait_for(|progress| progress.done_bytes == progress.total_bytes)
            .await
            .expect("it ends");
    };
    let (stats, ()) = tokio::join!(load, watched);
    assert_eq!(stats.expect("loaded").cold_bytes, source.total_bytes());
    let answer = complete(&engine, request("m", prompt(1, 5), 2))
        .await
        .expect("an answer");
    assert_eq!(answer.load.hot_bytes, source.total_bytes());

    let (progress_in, _progress) = watch::channel(LoadProgress::default());
    let again = engine.load("m", progress_in).await.expect("nothing to do");
    assert_eq!(
        (again.hot_bytes, again.moved_bytes()),
        (source.total_bytes(), 0)
    );
}

#[tokio::test]
async fn an_eager_load_that_cannot_fit_is_refused() {
    let file = write(Tiny::LLAMA);
    let engine = start(EngineConfig {
        weights_budget_bytes: Some(100_000),
        ..config()
    });
    let source = attach(&engine, "m", &file).await;
    let (progress_in, _progress) = watch::channel(LoadProgress::default());
    match engine.load("m", progress_in).await {
        Err(EngineError::DoesNotFit {
            need_bytes,
            free_bytes,
            ..
        }) => assert_eq!((need_bytes, free_bytes), (source.total_bytes(), 100_000)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn clearing_the_cache_keeps_the_model_and_its_sequences() {
    let engine = start(config());
    let source = attach(&engine, "m", &write(Tiny::LLAMA)).await;
    let mut stream = engine
        .submit(request("m", prompt(1, 9), 400))
        .expect("room");
    next_delta(&mut stream).await;
    let freed = engine.unload("m", true).await.expect("attached");
    assert!(freed > 0);
    let evictions = model_stats(&engine, "m").extents.evictions;
    let let_go = usize::try_from(evictions).expect("few");
    assert!(let_go > 0);
    assert_let_go(&source, let_go);
    let mut n_tokens = 1;
    while let Some(event) = stream.recv().await {
        if let TokenEvent::Delta { tokens, .. } = event.expect("no error") {
            n_tokens += tokens.len();
        }
    }
    assert_eq!(n_tokens, 400);
    assert!(
        source.fetched().len() > let_go,
        "what was let go came again"
    );
}

#[tokio::test]
async fn a_model_that_waits_gives_up_kv_blocks_that_another_needs() {
    let llama = write(Tiny::LLAMA);
    let roomy = start(config());
    attach(&roomy, "m", &llama).await;
    let expected = complete(&roomy, request("m", prompt(1, 250), 4))
        .await
        .expect("an answer");

    // Ten blocks of the llama. Its prompt takes eight of them while the weights are on their way; the other model needs more than is left and less than half.
    let block_bytes = llama_block_bytes();
    let engine = start(EngineConfig {
        kv_budget_bytes: 10 * block_bytes,
        ..config()
    });
    let slow = attach(&engine, "slow", &llama).await;
    attach(&engine, "fast", &write(Tiny::QWEN)).await;
    slow.gate().close();
    let waiting = engine
        .submit(request("slow", prompt(1, 250), 4))
        .expect("room");
    until(&engine, |stats| stats.kv_used_bytes == 8 * block_bytes).await;
    let answer = complete(&engine, request("fast", prompt(2, 200), 20))
        .await
        .expect("memory that is only waited in is given back");
    assert_eq!(answer.tokens.len(), 20);
    assert_eq!(engine.stats().preemptions, 1);
    slow.gate().open();
    assert_eq!(
        collect(waiting).await.expect("in the end").bits(),
        expected.bits()
    );
    assert_eq!(engine.stats().kv_used_bytes, 0);
}
