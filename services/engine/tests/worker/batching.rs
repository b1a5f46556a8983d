//! Whatever else is in the batch, and however the prompt is cut, the numbers are the same.

use engine::{EngineConfig, OutputOptions, SamplingParams};
use gguf::TensorType;
use kernels::Device;

use crate::model::{File, Tiny, write};
use crate::support::{
    Completion, attach, collect, complete, config, llama_block_bytes, model_stats, prompt, request,
    start, until,
};

/// Eight requests of mixed lengths; half of them draw their tokens, a third has penalties and biases.
fn requests() -> Vec<engine::Request> {
    let lens = [5, 40, 1, 90, 17, 33, 64, 2];
    let requests = (0..).zip(lens).map(|(n, len)| {
        let mut request = request("m", prompt(n, len), 12 + 3 * n);
        request.seed = u64::from(n);
        if n % 2 == 1 {
            request.sampling = SamplingParams {
                temperature: 0.8,
                top_k: 40,
                top_p: 0.95,
                min_p: 0.01,
                ..SamplingParams::GREEDY
            };
        }
        if n % 3 == 1 {
            request.sampling.repetition_penalty = 1.3;
            request.sampling.frequency_penalty = 0.2;
            request.sampling.logit_bias = vec![(40, 0.5), (n, -3.0)];
        }
        request
    });
    requests.collect()
}

async fn alone(file: &File, config: EngineConfig) -> Vec<Completion> {
    let engine = start(config);
    attach(&engine, "m", file).await;
    let mut completions = Vec::new();
    for request in requests() {
        completions.push(complete(&engine, request).await.expect("an answer"));
    }
    assert_eq!(model_stats(&engine, "m").mixed_steps, 0);
    completions
}

/// Each request is handed in while the one before is in the middle of its output.
///
/// Nothing here depends on who is quicker: streams hold so few events that unread ones stand still, the one before is let go on into a step that cannot finish because its weights were taken away, and the new
/// request arrives meanwhile. So the step after holds rows of both.
async fn staggered(file: &File) -> (Vec<Completion>, engine::ModelStats) {
    let engine = start(EngineConfig {
        event_capacity: 4,
        ..config()
    });
    let source = attach(&engine, "m", file).await;
    let mut streams: Vec<(Completion, engine::EventStream)> = Vec::new();
    for request in requests() {
        let n_before = streams.len();
        until(&engine, |stats| stats.parked == n_before).await;
        if let Some((completion, stream)) = streams.last_mut() {
            source.gate().close();
            engine.unload("m", true).await.expect("attached");
            for _ in 0..3 {
                completion.take(
                    stream
                        .recv()
                        .await
                        .expect("more to come")
                        .expect("no error"),
                );
            }
            source.gate().wait_for_somebody();
        }
        streams.push((Completion::default(), engine.submit(request).expect("room")));
        source.gate().open();
    }
    let mut completions = Vec::new();
    for (mut completion, mut stream) in streams {
        while let Some(event) = stream.recv().await {
            completion.take(event.expect("an answer"));
        }
        completions.push(completion);
    }
    (completions, model_stats(&engine, "m"))
}

#[tokio::test]
async fn staggered_streams_say_what_each_says_alone() {
    for tiny in [Tiny::LLAMA, Tiny::QWEN, Tiny::EXPERTS, Tiny::GEMMA] {
        let file = write(tiny);
        let alone = alone(&file, config()).await;
        let (together, stats) = staggered(&file).await;
        for (n, (alone, together)) in alone.iter().zip(&together).enumerate() {
            assert_eq!(alone.bits(), together.bits(), "stream {n}");
        }
        assert!(
            stats.mixed_steps >= 7,
            "prompts and output share steps: {stats:?}"
        );
        let distinct: std::collections::BTreeSet<Vec<u32>> =
            alone.iter().map(Completion::ids).collect();
        assert!(distinct.len() >= 6, "the model says something");
    }
}

/// The rows of a tensor that several projections share are the rows of tensors of their own, wherever a device puts them.
#[tokio::test]
async fn projections_that_share_a_tensor_are_the_same_projections() {
    for tensor_type in [TensorType::F32, TensorType::Q8_0] {
        let apart = Tiny {
            tensor_type,
            ..Tiny::LLAMA
        };
        let fused = Tiny {
            fused: true,
            ..apart
        };
        let [apart, fused] = [apart, fused].map(write);
        let count = |file: &File| file.directory.extents().len();
        assert_eq!(count(&apart), count(&fused) + 9, "three less in each layer");
        let mut said = Vec::new();
        for file in [&apart, &fused] {
            let engine = start(config());
            attach(&engine, "m", file).await;
            let answer = complete(&engine, request("m", prompt(1, 40), 8)).await;
            said.push(answer.expect("an answer").bits());
        }
        assert_eq!(said[0], said[1], "{tensor_type}");
    }
}

#[tokio::test]
async fn eight_streams_at_once_fill_wide_steps() {
    let file = write(Tiny::LLAMA);
    let alone = alone(&file, config()).await;
    let engine = start(config());
    let source = attach(&engine, "m", &file).await;
    // All have arrived before the first step can go on; how many of them are in it depends on who was quicker.
    source.gate().close();
    let streams: Vec<_> = requests()
        .into_iter()
        .map(|request| engine.submit(request).expect("room"))
        .collect();
    source.gate().wait_for_somebody();
    source.gate().open();
    for (stream, alone) in streams.into_iter().zip(&alone) {
        let together = collect(stream).await.expect("an answer");
        assert_eq!(together.bits(), alone.bits());
        assert_eq!(together.text, alone.text);
    }
    let stats = model_stats(&engine, "m");
    // At worst the first stream, 5 prompt rows, is alone in the first step. It makes 12 tokens, so it is there for 11 more steps, and in each of them so are all the others, with a row at least.
    assert!(stats.wide_steps >= 11, "{stats:?}");
    assert!(stats.steps < 60, "steps are shared: {stats:?}");
}

#[tokio::test]
async fn chunks_do_not_change_the_numbers() {
    let models = [Tiny::LLAMA, Tiny::EXPERTS, Tiny::GEMMA];
    let models: Vec<File> = models.into_iter().map(write).collect();
    let devices = [Device::reference(), config().device];
    for (device, file) in devices
        .iter()
        .flat_map(|d| models.iter().map(move |m| (d, m)))
    {
        let mut seen = Vec::new();
        for prefill_chunk_tokens in [1, 7, 128] {
            let engine = start(EngineConfig {
                device: device.clone(),
                prefill_chunk_tokens,
                ..config()
            });
            attach(&engine, "m", file).await;
            let mut request = request("m", prompt(3, 75), 10);
            request.output = OutputOptions {
                logprobs: Some(5),
                prompt_logprobs: Some(2),
            };
            let completion = complete(&engine, request).await.expect("an answer");
            assert_eq!(completion.prompt_logprobs.len(), 75);
            assert_eq!(completion.prompt_logprobs[0].logprob, None);
            assert!(
                completion.prompt_logprobs[1..]
                    .iter()
                    .all(|token| token.logprob.is_some() && token.top.len() == 2)
            );
            seen.push(completion.bits());
        }
        assert!(seen.windows(2).all(|pair| pair[0] == pair[1]));
    }
}

#[tokio::test]
async fn sequences_that_lose_their_blocks_are_computed_again() {
    let file = write(Tiny::LLAMA);
    let alone = alone(&file, config()).await;
    // The longest sequence takes 4 blocks.
    let block_bytes = llama_block_bytes();
    let engine = start(EngineConfig {
        kv_budget_bytes: 7 * block_bytes,
        ..config()
    });
    attach(&engine, "m", &file).await;
    let streams: Vec<_> = requests()
        .into_iter()
        .map(|request| engine.submit(request).expect("room"))
        .collect();
    for (stream, alone) in streams.into_iter().zip(&alone) {
        let squeezed = collect(stream).await.expect("an answer");
        assert_eq!(squeezed.bits(), alone.bits());
    }
    let stats = engine.stats();
    assert!(stats.preemptions > 0, "{stats:?}");
    assert_eq!(stats.kv_used_bytes, 0);
}
