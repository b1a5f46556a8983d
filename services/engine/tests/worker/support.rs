//! An engine to try, requests to put to it and what came back.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::{
    AttachReport, AttachRequest, Engine, EngineConfig, EngineError, EventStream, FinishReason,
    LoadStats, ModelStats, OutputOptions, Request, SamplingParams, Stats, Stopping, Timings, Token,
    TokenEvent, TokenLogprob, Usage,
};
use kernels::{Device, HipOptions, KvShape, KvType};

use crate::model::{File, N_VOCAB};
use crate::source::Memory;

pub(crate) fn config() -> EngineConfig {
    let device = device();
    // By default an engine takes all of a GPU; engines of tests run beside each other on one.
    let weights_budget_bytes = matches!(device, Device::Hip(_)).then_some(16 << 20);
    EngineConfig {
        device,
        weights_budget_bytes,
        parked: false,
        kv_budget_bytes: 64 << 20,
        kv_type: KvType::F32,
        fetch_threads: NonZeroUsize::new(2).expect("two"),
        prefetch_window_bytes: 1 << 20,
        max_running: 16,
        max_queued: 16,
        prefill_chunk_tokens: 64,
        step_target: Duration::from_secs(600),
        max_batch_rows: 128,
        event_capacity: 1024,
        slow_client_timeout: Duration::from_secs(600),
    }
}

pub(crate) fn device_is_gpu() -> bool {
    std::env::var_os("HEARTH_HIP_LIBRARY").is_some()
}

/// The processor; with `HEARTH_HIP_LIBRARY` set, as by `just test-hip`, the GPU, whose answers must not depend on the batch either.
fn device() -> Device {
    let Some(library) = std::env::var_os("HEARTH_HIP_LIBRARY") else {
        return Device::cpu(NonZeroUsize::MIN).expect("one thread");
    };
    let options = HipOptions {
        library: Some(library.into()),
        ordinal: 0,
        batch_invariant: true,
    };
    Device::hip(&options).expect("the library has a GPU")
}

pub(crate) fn start(config: EngineConfig) -> Engine {
    Engine::start(config).expect("a sound configuration")
}

/// Attaches a file under `id`, with a source of its own.
pub(crate) async fn attach(engine: &Engine, id: &str, file: &File) -> Arc<Memory> {
    let source = Memory::new(file);
    attach_source(engine, id, file, &source).await;
    source
}

pub(crate) async fn attach_source(
    engine: &Engine,
    id: &str,
    file: &File,
    source: &Arc<Memory>,
) -> AttachReport {
    let request = AttachRequest {
        id: id.to_owned(),
        weights: source.clone(),
        tokenizer: Arc::clone(&file.tokenizer),
        pin: false,
    };
    engine.attach(request).await.expect("a sound model")
}

/// That the source was told of so many extents that were let go. The processor uses the source's own bytes; what a GPU lets go are copies, of which the source hears nothing.
#[track_caller]
pub(crate) fn assert_let_go(source: &Memory, extents: usize) {
    let told = match device_is_gpu() {
        true => 0,
        false => extents,
    };
    assert_eq!(source.evicted().len(), told);
}

/// A greedy request that goes on past the end of generation.
pub(crate) fn request(model: &str, prompt: Vec<u32>, max_tokens: u32) -> Request {
    Request {
        model: model.to_owned(),
        prompt,
        sampling: SamplingParams::GREEDY,
        stopping: Stopping {
            max_tokens: Some(max_tokens),
            ignore_eos: true,
            ..Stopping::default()
        },
        output: OutputOptions {
            logprobs: Some(3),
            prompt_logprobs: None,
        },
        seed: 0,
        deadline: None,
        arrived: Instant::now(),
        load_wait: Duration::ZERO,
        cache_salt: String::new(),
        span: tracing::Span::none(),
    }
}

/// Some prompt, different for each `n`.
pub(crate) fn prompt(n: u32, len: u32) -> Vec<u32> {
    (0..len)
        .map(|i| 3 + (n * 31 + i * 7 + i * i) % (N_VOCAB - 3))
        .collect()
}

/// Everything that a stream said.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Completion {
    pub(crate) prompt_tokens: u32,
    pub(crate) load: LoadStats,
    pub(crate) prompt_logprobs: Vec<TokenLogprob>,
    pub(crate) text: String,
    pub(crate) tokens: Vec<Token>,
    pub(crate) end: Option<(FinishReason, Usage, Timings)>,
}

impl Completion {
    pub(crate) fn ids(&self) -> Vec<u32> {
        self.tokens.iter().map(|token| token.id).collect()
    }

    pub(crate) fn reason(&self) -> &FinishReason {
        &self.end.as_ref().expect("it finished").0
    }

    /// Ids and bits of every log-probability: equal only if the logits were.
    pub(crate) fn bits(&self) -> Vec<(u32, u32)> {
        let prompt = self
            .prompt_logprobs
            .iter()
            .map(|token| (token.id, token.logprob.unwrap_or(0.0).to_bits()));
        let output = self
            .tokens
            .iter()
            .map(|token| (token.id, token.logprob.unwrap_or(0.0).to_bits()));
        let top = self.tokens.iter().flat_map(|token| {
            token
                .top
                .iter()
                .map(|(id, logprob)| (*id, logprob.to_bits()))
        });
        prompt.chain(output).chain(top).collect()
    }

    /// Takes an event in; checks that it may come now.
    pub(crate) fn take(&mut self, event: TokenEvent) {
        assert!(self.end.is_none(), "nothing comes after the end");
        match event {
            TokenEvent::Started { prompt_tokens } => {
                assert_eq!(*self, Completion::default(), "the start comes first");
                self.prompt_tokens = prompt_tokens;
            }
            TokenEvent::Prefilled {
                load,
                prompt_logprobs,
                ..
            } => {
                assert!(
                    self.prompt_tokens > 0
                        && self.tokens.is_empty()
                        && self.load == LoadStats::default()
                );
                self.load = load;
                self.prompt_logprobs = prompt_logprobs;
            }
            TokenEvent::Delta { text, tokens } => {
                assert!(
                    self.load != LoadStats::default(),
                    "output follows the prompt"
                );
                self.text += &text;
                self.tokens.extend(tokens);
            }
            TokenEvent::Finished {
                reason,
                usage,
                timings,
            } => self.end = Some((reason, usage, timings)),
        }
    }
}

/// Reads a stream to its end.
pub(crate) async fn collect(mut stream: EventStream) -> Result<Completion, EngineError> {
    let mut completion = Completion::default();
    while let Some(event) = stream.recv().await {
        completion.take(event?);
    }
    assert!(completion.end.is_some(), "a stream ends with a last word");
    Ok(completion)
}

pub(crate) async fn complete(engine: &Engine, request: Request) -> Result<Completion, EngineError> {
    collect(engine.submit(request)?).await
}

/// Waits until the engine's numbers are so.
pub(crate) async fn until(engine: &Engine, condition: impl FnMut(&Stats) -> bool) -> Stats {
    let mut stats = engine.watch_stats();
    stats
        .wait_for(condition)
        .await
        .expect("the worker lives")
        .clone()
}

pub(crate) fn model_stats(engine: &Engine, id: &str) -> ModelStats {
    engine.stats().model(id).expect("attached").clone()
}

/// Reads until the next delta.
pub(crate) async fn next_delta(stream: &mut EventStream) -> Vec<Token> {
    loop {
        match stream
            .recv()
            .await
            .expect("more to come")
            .expect("no error")
        {
            TokenEvent::Delta { tokens, .. } => return tokens,
            TokenEvent::Started { .. } | TokenEvent::Prefilled { .. } => {}
            TokenEvent::Finished { .. } => panic!("it finished"),
        }
    }
}

/// Bytes of one KV block of the tiny llama.
pub(crate) fn llama_block_bytes() -> u64 {
    let shape = KvShape {
        n_layers: crate::model::Tiny::LLAMA.n_layers,
        n_blocks: 1,
        block_len: engine::kv_cache::BLOCK_LEN,
        n_kv_heads: 2,
        head_dim_k: 8,
        head_dim_v: 8,
        kv_type: KvType::F32,
    };
    shape.block_bytes().expect("a small block") as u64
}
