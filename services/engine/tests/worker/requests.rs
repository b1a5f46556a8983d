//! What a request may ask for, and how completions end.

mod reuse;
mod sampling;

use engine::{FinishReason, OutputOptions, Request, StopMatch};

use crate::model::{CONTEXT, N_VOCAB, Tiny, write};
use crate::support::{attach, complete, config, prompt, request, start};

#[tokio::test]
async fn bad_requests_are_refused_at_once() {
    let engine = start(config());
    attach(&engine, "m", &write(Tiny::LLAMA)).await;
    let check = |change: &dyn Fn(&mut Request), expected: &str| {
        let mut request = request("m", prompt(1, 5), 3);
        change(&mut request);
        let error = engine.submit(request).expect_err(expected).to_string();
        assert!(
            error.contains(expected),
            "'{error}' does not say '{expected}'"
        );
    };
    check(&|r| r.model = "x".to_owned(), "model 'x' is not attached");
    check(&|r| r.prompt.clear(), "no tokens");
    check(
        &|r| r.prompt = prompt(1, CONTEXT + 1),
        "the prompt has 513 tokens; the context holds 512",
    );
    check(
        &|r| r.prompt[3] = N_VOCAB,
        "token 288 at index 3 is outside",
    );
    check(
        &|r| r.stopping.stop_token_ids = vec![u32::MAX],
        "stopping.stop_token_ids: must be tokens of the vocabulary",
    );
    check(&|r| r.stopping.stop = vec![String::new()], "stopping.stop");
    check(
        &|r| r.stopping.stop = vec!["x".to_owned(); 17],
        "stopping.stop",
    );
    check(
        &|r| r.stopping.min_tokens = 4,
        "stopping.min_tokens: must be at most max_tokens",
    );
    check(
        &|r| r.sampling.temperature = f32::NAN,
        "sampling.temperature",
    );
    check(
        &|r| r.sampling.logit_bias = vec![(N_VOCAB, 1.0)],
        "sampling.logit_bias: must be tokens of the vocabulary",
    );
    check(&|r| r.output.logprobs = Some(21), "output.logprobs");
    assert_eq!(engine.stats().finished, 0);
}

#[tokio::test]
async fn zero_tokens_is_the_prompts_work_alone() {
    let engine = start(config());
    attach(&engine, "m", &write(Tiny::LLAMA)).await;
    let mut nothing = request("m", prompt(1, 9), 0);
    nothing.output = OutputOptions {
        logprobs: None,
        prompt_logprobs: Some(0),
    };
    let completion = complete(&engine, nothing).await.expect("an answer");
    assert_eq!(completion.prompt_logprobs.len(), 9);
    assert_eq!(
        (completion.tokens.len(), completion.reason()),
        (0, &FinishReason::Length)
    );
}

#[tokio::test]
async fn the_context_ends_a_completion() {
    let engine = start(config());
    attach(&engine, "m", &write(Tiny::LLAMA)).await;
    let mut endless = request("m", prompt(1, CONTEXT - 5), 0);
    endless.stopping.max_tokens = None;
    let completion = complete(&engine, endless).await.expect("an answer");
    let (reason, usage, _) = completion.end.expect("it finished");
    assert_eq!(
        (reason, usage.prompt_tokens, usage.completion_tokens),
        (FinishReason::Length, CONTEXT - 5, 5)
    );
    let full = complete(&engine, request("m", prompt(1, CONTEXT), 3))
        .await
        .expect("an answer");
    assert_eq!(
        (full.tokens.len(), full.reason()),
        (0, &FinishReason::Length)
    );
}

#[tokio::test]
async fn tokens_and_texts_stop() {
    let engine = start(config());
    attach(&engine, "m", &write(Tiny::LLAMA)).await;
    let free = complete(&engine, request("m", prompt(5, 9), 30))
        .await
        .expect("an answer");
    let ids = free.ids();
    let at = (1..ids.len())
        .find(|&at| !ids[..at].contains(&ids[at]))
        .expect("some token is new");

    let mut by_token = request("m", prompt(5, 9), 30);
    by_token.stopping.stop_token_ids = vec![ids[at]];
    let stopped = complete(&engine, by_token).await.expect("an answer");
    assert_eq!(
        stopped.ids(),
        ids[..=at],
        "the token that stops is reported"
    );
    assert_eq!(
        stopped.reason(),
        &FinishReason::Stop(StopMatch::Token(ids[at]))
    );
    assert!(
        free.text.starts_with(&stopped.text),
        "but is no part of the text"
    );

    let stop: String = free.text.chars().skip(4).take(3).collect();
    let mut by_text = request("m", prompt(5, 9), 30);
    by_text.stopping.stop = vec!["never said".to_owned(), stop.clone()];
    let stopped = complete(&engine, by_text).await.expect("an answer");
    let before = free.text.split(&stop).next().expect("what comes before");
    assert_eq!(
        (stopped.text.as_str(), stopped.reason()),
        (before, &FinishReason::Stop(StopMatch::Text(stop)))
    );
}

#[tokio::test]
async fn timings_add_up() {
    let engine = start(config());
    attach(&engine, "m", &write(Tiny::LLAMA)).await;
    let completion = complete(&engine, request("m", prompt(5, 9), 30))
        .await
        .expect("an answer");
    let (_, usage, timings) = completion.end.expect("it finished");
    assert_eq!(
        (
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.cached_tokens
        ),
        (9, 30, 0)
    );
    assert!(timings.time_to_first_token <= timings.total);
    assert!(timings.queue + timings.prefill <= timings.time_to_first_token);
    assert!(timings.time_to_first_token + timings.decode <= timings.total);
}
