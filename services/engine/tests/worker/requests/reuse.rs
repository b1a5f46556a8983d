//! Prompts that begin alike share what was computed, and nobody can tell but by the count.

use engine::{Engine, EngineConfig, OutputOptions, Request, SamplingParams};

use crate::model::{File, Tiny, write};
use crate::support::{
    Completion, attach, complete, config, device_is_gpu, llama_block_bytes, model_stats, prompt,
    request, start,
};

/// A request that draws and reports what it saw.
fn drawn(prompt: Vec<u32>, salt: &str) -> Request {
    let mut request = request("m", prompt, 40);
    request.seed = 11;
    request.cache_salt = salt.to_owned();
    request.sampling = SamplingParams {
        temperature: 0.9,
        repetition_penalty: 1.2,
        ..SamplingParams::GREEDY
    };
    request
}

fn cached(completion: &Completion) -> u32 {
    let usage = completion.end.as_ref().expect("it finished").1;
    usage.cached_tokens
}

async fn answer(engine: &Engine, request: Request) -> Completion {
    complete(engine, request).await.expect("an answer")
}

#[tokio::test]
async fn the_numbers_are_the_same_with_reuse_and_without() {
    for tiny in [Tiny::LLAMA, Tiny::QWEN] {
        let engine = start(config());
        attach(&engine, "m", &write(tiny)).await;
        let first = answer(&engine, drawn(prompt(1, 100), "")).await;
        let again = answer(&engine, drawn(prompt(1, 100), "")).await;
        let apart = answer(&engine, drawn(prompt(1, 100), "mine")).await;
        assert_eq!([&first, &again, &apart].map(cached), [0, 96, 0]);
        assert_eq!(first.bits(), again.bits());
        assert_eq!(first.bits(), apart.bits());
        // A prompt that is full blocks and no more still has its last token computed.
        let short = answer(&engine, drawn(prompt(1, 100)[..96].to_vec(), "")).await;
        assert_eq!(cached(&short), 64);

        // The next turn of the talk begins with the prompt and the answer, which was computed token by token.
        let mut turn = [prompt(1, 100), first.ids()].concat();
        turn.truncate(130);
        turn.extend(prompt(2, 20));
        let reusing = answer(&engine, drawn(turn.clone(), "")).await;
        let alone = answer(&engine, drawn(turn, "fresh")).await;
        assert_eq!([&reusing, &alone].map(cached), [128, 0]);
        assert_eq!(reusing.bits(), alone.bits());

        let stats = model_stats(&engine, "m");
        assert_eq!(stats.cached_tokens, 96 + 64 + 128);
        assert_eq!(stats.asked_tokens, 3 * 100 + 96 + 2 * 150);
        assert_eq!(stats.kv_reuse.found, (96 + 64 + 128) / 32);
        assert_eq!(stats.kv_reuse.evicted, 0);
        assert!(stats.kv_blocks == 0 && stats.kv_kept_blocks > 0);
    }
}

#[tokio::test]
async fn a_prompt_that_is_scored_is_computed() {
    let engine = start(config());
    attach(&engine, "m", &write(Tiny::LLAMA)).await;
    answer(&engine, request("m", prompt(1, 100), 3)).await;
    let scored = |salt: &str| {
        let mut request = request("m", prompt(1, 100), 3);
        request.cache_salt = salt.to_owned();
        request.output = OutputOptions {
            logprobs: Some(3),
            prompt_logprobs: Some(3),
        };
        request
    };
    let (warm, fresh) = (
        answer(&engine, scored("")).await,
        answer(&engine, scored("other")).await,
    );
    assert_eq!([&warm, &fresh].map(cached), [0, 0]);
    assert_eq!(warm.prompt_logprobs.len(), 100);
    assert_eq!(warm.bits(), fresh.bits());
}

/// Models "m" and "n" of one file, and five blocks for both.
async fn two_models_with_five_blocks(file: &File) -> Engine {
    let engine = start(EngineConfig {
        kv_budget_bytes: 5 * llama_block_bytes(),
        ..config()
    });
    attach(&engine, "m", file).await;
    attach(&engine, "n", file).await;
    engine
}

#[tokio::test]
async fn what_is_kept_makes_room_and_goes_with_the_model() {
    let file = write(Tiny::LLAMA);
    let engine = two_models_with_five_blocks(&file).await;
    answer(&engine, request("m", prompt(1, 70), 1)).await;
    answer(&engine, request("m", prompt(2, 70), 1)).await;
    let stats = model_stats(&engine, "m");
    assert_eq!((stats.kv_kept_blocks, stats.kv_reuse.evicted), (4, 0));
    // The oldest two go, the end of the first prompt before its beginning.
    answer(&engine, request("m", prompt(3, 70), 1)).await;
    assert_eq!(model_stats(&engine, "m").kv_reuse.evicted, 2);
    let newer = answer(&engine, request("m", prompt(2, 70), 1)).await;
    let older = answer(&engine, request("m", prompt(1, 70), 1)).await;
    assert_eq!([&newer, &older].map(cached), [64, 0]);
    // Another model's wish is as good a reason.
    answer(&engine, request("n", prompt(1, 150), 1)).await;
    assert_eq!(model_stats(&engine, "m").kv_kept_blocks, 0);
    assert_eq!(engine.stats().preemptions, 0);

    assert_eq!(model_stats(&engine, "n").kv_kept_blocks, 4);
    engine.unload("n", true).await.expect("attached");
    assert_eq!(model_stats(&engine, "n").kv_kept_blocks, 0);
    let again = answer(&engine, request("n", prompt(1, 150), 1)).await;
    assert_eq!(cached(&again), 0);
    engine.unload("n", false).await.expect("attached");
    assert_eq!(engine.stats().kv_kept_bytes, 0);
    attach(&engine, "n", &file).await;
    let anew = answer(&engine, request("n", prompt(1, 150), 1)).await;
    assert_eq!(cached(&anew), 0, "another generation");
}

/// A GPU takes a whole store's memory at once: the budget pays for one of these two.
#[tokio::test]
async fn a_model_that_runs_nothing_gives_up_its_store() {
    let file = write(Tiny::LLAMA);
    let engine = two_models_with_five_blocks(&file).await;
    let first = answer(&engine, request("m", prompt(1, 70), 3)).await;
    answer(&engine, request("n", prompt(2, 40), 1)).await;
    let again = answer(&engine, request("m", prompt(1, 70), 3)).await;
    assert_eq!(again.ids(), first.ids());
    assert_eq!(cached(&again), if device_is_gpu() { 0 } else { 64 });
}
