//! Penalties, biases and the least length, seen from outside.

use engine::{FinishReason, SamplingParams, StopMatch};

use crate::model::{EOS, File, N_VOCAB, Tiny, write};
use crate::support::{Completion, attach, complete, config, prompt, request, start};

async fn answer(file: &File, request: engine::Request) -> Completion {
    let engine = start(config());
    attach(&engine, "m", file).await;
    complete(&engine, request).await.expect("an answer")
}

/// What is subtracted and added shifts log-probabilities as it shifts logits: so each token must be the best of the model's likeliest after that.
#[tokio::test]
async fn subtracted_penalties_and_biases_decide() {
    let bias = (7, 1.5);
    let (frequency, presence) = (0.7, 0.9);
    let mut request = request("m", prompt(2, 9), 40);
    request.output.logprobs = Some(20);
    request.sampling = SamplingParams {
        frequency_penalty: frequency,
        presence_penalty: presence,
        logit_bias: vec![bias],
        ..SamplingParams::GREEDY
    };
    let completion = answer(&write(Tiny::LLAMA), request).await;
    let ids = completion.ids();
    let mut overruled = 0;
    for (at, token) in completion.tokens.iter().enumerate() {
        let adjusted = |&(id, logprob): &(u32, f32)| {
            let count = ids[..at].iter().filter(|&&said| said == id).count() as f32;
            let penalty = frequency * count + if count > 0.0 { presence } else { 0.0 };
            let bias = if id == bias.0 { bias.1 } else { 0.0 };
            (logprob - penalty + bias, id)
        };
        let own = (token.id, token.logprob.expect("asked for"));
        let best = token
            .top
            .iter()
            .chain([&own])
            .map(adjusted)
            .max_by(|a, b| a.0.total_cmp(&b.0));
        assert_eq!(best.expect("there are some").1, token.id, "token {at}");
        overruled += usize::from(token.top[0].0 != token.id);
    }
    assert!(
        overruled > 10,
        "{overruled} choices were not the model's own"
    );
}

#[tokio::test]
async fn repetition_is_penalised_from_the_prompt_on() {
    let file = write(Tiny::LLAMA);
    let with = |repetition_penalty, prompt: Vec<u32>| {
        let mut request = request("m", prompt, 60);
        request.sampling.repetition_penalty = repetition_penalty;
        answer(&file, request)
    };
    let distinct = |completion: &Completion| {
        let mut ids = completion.ids();
        ids.sort_unstable();
        ids.dedup();
        ids.len()
    };
    let (free, held) = (
        with(1.0, prompt(4, 9)).await,
        with(50.0, prompt(4, 9)).await,
    );
    assert!(distinct(&free) < 55, "the model repeats itself by nature");
    assert!(distinct(&held) > distinct(&free));
    // A prompt that says every token but one leaves nothing else to say for the first time.
    let all_but = free.ids()[0];
    let everything: Vec<u32> = (0..N_VOCAB).filter(|&id| id != all_but).collect();
    assert_eq!(with(1e30, everything).await.ids()[0], all_but);
}

#[tokio::test]
async fn a_ban_holds() {
    let file = write(Tiny::LLAMA);
    let free = answer(&file, request("m", prompt(6, 9), 20)).await;
    let banned = free.ids()[0];
    let mut request = request("m", prompt(6, 9), 20);
    request.sampling.logit_bias = vec![(banned, -100.0)];
    assert!(!answer(&file, request).await.ids().contains(&banned));
}

#[tokio::test]
async fn nothing_ends_before_the_least_length() {
    let file = write(Tiny::LLAMA);
    let bounded = |min_tokens| {
        let mut request = request("m", prompt(5, 9), 30);
        request.stopping.min_tokens = min_tokens;
        request.stopping.ignore_eos = false;
        request
    };
    let free = answer(&file, bounded(30)).await;
    let ids = free.ids();
    assert_eq!((ids.len(), free.reason()), (30, &FinishReason::Length));
    assert!(!ids.contains(&EOS));

    // By tokens: those before are not said, and the first that is ends it.
    for min_tokens in [0, 3, 12] {
        let mut request = bounded(min_tokens);
        request.stopping.stop_token_ids = (3..N_VOCAB).collect::<Vec<_>>()[..256].to_vec();
        request.sampling.logit_bias = vec![(EOS, -100.0)];
        let stopped = answer(&file, request).await;
        let n_before = usize::try_from(min_tokens).expect("few");
        let before = &stopped.ids()[..n_before];
        assert!(before.iter().all(|id| !(3..259).contains(id)), "{before:?}");
        match stopped.reason() {
            FinishReason::Stop(StopMatch::Token(id)) => {
                assert!(stopped.ids().len() > n_before && (3..259).contains(id));
            }
            other => panic!("{other:?}"),
        }
    }

    // By text: what begins before does not count, though it was said.
    let pieces: Vec<String> = free
        .tokens
        .iter()
        .map(|token| String::from_utf8_lossy(&token.bytes).into_owned())
        .collect();
    let (early, late) = (&pieces[3], pieces[20..22].concat());
    let mut by_text = bounded(10);
    by_text.stopping.stop = vec![early.clone(), late.clone()];
    let stopped = answer(&file, by_text).await;
    assert!(
        stopped.text.contains(early.as_str()),
        "it is part of the text"
    );
    assert!(stopped.ids().len() > 10);
    match stopped.reason() {
        FinishReason::Stop(StopMatch::Text(stop)) => {
            assert!(*stop == late || *stop == *early);
            // Bytes that are no text take more room as text, and a character may lack its end.
            let said: usize = free.tokens[..10]
                .iter()
                .map(|token| token.bytes.len())
                .sum();
            assert!(stopped.text.len() + 3 >= said, "ten tokens' text at least");
        }
        other => panic!("{other:?}"),
    }
}
