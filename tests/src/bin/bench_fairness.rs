//! What running streams feel of a long prompt: `just bench-fairness`.
//!
//! Four streams decode; the time between two tokens is taken while they are alone and while a prompt of 4,096 tokens is worked through beside them, in turns and in one run, so that whatever else the machine does disturbs both.
//!
//! # The bar
//! With a step target of 0 a prompt may take as much of each step as the streams' own rows do, so by design a token comes at most half as often. The bar is three times the 99th percentile of the streams alone: the rest is for
//! steps that took longer than those before let expect, because attention grows along the prompt and machines are not idle. The same without a target shows what chunks of 512 would do.

use std::io::Write as _;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::model::Llama;
use engine::{
    AttachRequest, Engine, EngineConfig, OutputOptions, Request, SamplingParams, Stopping,
    TokenEvent,
};
use gguf::TensorType;
use kernels::{Device, KvType};
use text::Tokenizer;
use tokio::task::JoinHandle;
use weights::Weights;

const STREAMS: u32 = 4;
const PROMPT_TOKENS: u32 = 4096;
const ROUNDS: u32 = 3;
/// How long the streams run alone in each round.
const ALONE: Duration = Duration::from_secs(2);
/// How much later than alone a token may come.
const RATIO_MAX: f64 = 3.0;

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("m.gguf");
    let model = Llama {
        n_layers: 6,
        n_embd: 512,
        n_heads: 8,
        n_kv_heads: 4,
        n_ff: 1408,
        n_vocab: 8192,
        context_length: 8192,
        weight_type: TensorType::Q8_0,
        ..Llama::tiny()
    };
    model.write(&path)?;
    let weights = Arc::new(Weights::open(&path)?);
    let tokenizer = Arc::new(Tokenizer::from_metadata(weights.directory().metadata())?);
    let attach = |id: &str| AttachRequest {
        id: id.to_owned(),
        weights: Arc::clone(&weights) as Arc<dyn engine::WeightSource>,
        tokenizer: Arc::clone(&tokenizer),
        pin: false,
    };
    let mut rows = Vec::new();
    for (what, step_target) in [
        ("chunks by pace", Duration::ZERO),
        ("chunks of 512", Duration::from_secs(3600)),
    ] {
        let engine = Engine::start(config(step_target)?)?;
        engine.attach(attach("m")).await?;
        rows.push((what, measure(&engine).await?));
        engine.shutdown().await;
    }
    report(&rows)
}

fn config(step_target: Duration) -> Result<EngineConfig> {
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    Ok(EngineConfig {
        device: Device::cpu(threads)?,
        weights_budget_bytes: None,
        parked: false,
        kv_budget_bytes: 1 << 30,
        kv_type: KvType::F32,
        fetch_threads: NonZeroUsize::MIN,
        prefetch_window_bytes: 256 << 20,
        max_running: 16,
        max_queued: 16,
        prefill_chunk_tokens: 512,
        step_target,
        max_batch_rows: 512 + 16,
        event_capacity: 1 << 14,
        slow_client_timeout: Duration::from_secs(600),
    })
}

/// Times between tokens, in milliseconds.
#[derive(Default)]
struct Gaps {
    alone: Vec<f64>,
    beside: Vec<f64>,
    prefill: Duration,
}

async fn measure(engine: &Engine) -> Result<Gaps> {
    let mut streams = Vec::new();
    for n in 0..STREAMS {
        streams.push(listen(engine, request(n, 8, None))?);
    }
    // Weights come in and the pace is learnt before anything counts.
    prefill(engine, 100, 64).await?;
    tokio::time::sleep(ALONE / 3).await;
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let begun = Instant::now();
        tokio::time::sleep(ALONE).await;
        let between = Instant::now();
        prefill(engine, 200 + round, PROMPT_TOKENS).await?;
        alone.push((begun, between));
        beside.push((between, Instant::now()));
    }
    let mut gaps = Gaps::default();
    for stream in streams {
        stream.abort_handle().abort();
        let _ended = stream.task.await;
        let tokens = stream
            .tokens
            .lock()
            .map_err(|_| anyhow::anyhow!("a reader died"))?;
        for pair in tokens.windows(2) {
            let within = |windows: &[(Instant, Instant)]| {
                windows
                    .iter()
                    .any(|&(from, to)| from <= pair[0] && pair[1] <= to)
            };
            let gap_ms = (pair[1] - pair[0]).as_secs_f64() * 1e3;
            if within(&alone) {
                gaps.alone.push(gap_ms);
            } else if within(&beside) {
                gaps.beside.push(gap_ms);
            }
        }
    }
    gaps.prefill = beside
        .iter()
        .map(|(from, to)| *to - *from)
        .sum::<Duration>()
        / ROUNDS;
    ensure!(
        gaps.alone.len() > 300 && gaps.beside.len() > 30,
        "too few tokens to say anything"
    );
    Ok(gaps)
}

/// A stream that runs until it is let go, and when its tokens came.
struct Listener {
    task: JoinHandle<Result<()>>,
    tokens: Arc<std::sync::Mutex<Vec<Instant>>>,
}

impl Listener {
    fn abort_handle(&self) -> tokio::task::AbortHandle {
        self.task.abort_handle()
    }
}

fn listen(engine: &Engine, request: Request) -> Result<Listener> {
    let mut events = engine.submit(request)?;
    let tokens = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&tokens);
    let task = tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            if let TokenEvent::Delta { .. } = event? {
                let mut seen = seen.lock().map_err(|_| anyhow::anyhow!("a reader died"))?;
                seen.push(Instant::now());
            }
        }
        Ok(())
    });
    Ok(Listener { task, tokens })
}

/// Works a prompt through that nobody has seen before.
async fn prefill(engine: &Engine, n: u32, len: u32) -> Result<()> {
    let mut events = engine.submit(request(n, len, Some(0)))?;
    let mut computed = None;
    while let Some(event) = events.recv().await {
        if let TokenEvent::Finished { usage, .. } = event? {
            computed = Some(usage.prompt_tokens - usage.cached_tokens);
        }
    }
    ensure!(
        computed.context("no last word")? == len,
        "the prompt was not computed"
    );
    Ok(())
}

fn request(n: u32, len: u32, max_tokens: Option<u32>) -> Request {
    Request {
        model: "m".to_owned(),
        prompt: (0..len)
            .map(|i| 300 + (n * 7919 + i * 31 + i * i % 97) % 7800)
            .collect(),
        sampling: SamplingParams::GREEDY,
        stopping: Stopping {
            max_tokens,
            ignore_eos: true,
            ..Stopping::default()
        },
        output: OutputOptions::default(),
        seed: 0,
        deadline: None,
        arrived: Instant::now(),
        load_wait: Duration::ZERO,
        cache_salt: n.to_string(),
        span: tracing::Span::none(),
    }
}

/// The value that so large a part of the values does not exceed.
fn percentile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index below the length"
    )]
    let index = ((values.len() - 1) as f64 * part).round() as usize;
    values[index]
}

fn report(rows: &[(&str, Gaps)]) -> Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{STREAMS} streams, a prompt of {PROMPT_TOKENS} beside them; time between tokens in ms, {ROUNDS} rounds"
    )?;
    writeln!(
        out,
        "{:<16} {:>10} {:>10} {:>12} {:>12} {:>8} {:>8} {:>12}",
        "", "p50 alone", "p99 alone", "p50 beside", "p99 beside", "ratio", "bar", "prefill"
    )?;
    let mut met = true;
    for (index, (what, gaps)) in rows.iter().enumerate() {
        let (mut alone, mut beside) = (gaps.alone.clone(), gaps.beside.clone());
        let ratio = percentile(&mut beside, 0.99) / percentile(&mut alone, 0.99);
        let (bar, verdict) = if index == 0 {
            met &= ratio <= RATIO_MAX;
            (
                format!("{RATIO_MAX:.1}"),
                if ratio <= RATIO_MAX { "met" } else { "MISSED" },
            )
        } else {
            ("-".to_owned(), "for comparison")
        };
        writeln!(
            out,
            "{what:<16} {:>10.1} {:>10.1} {:>12.1} {:>12.1} {ratio:>8.2} {bar:>8} {:>12.1?}  {verdict}",
            percentile(&mut alone, 0.5),
            percentile(&mut alone, 0.99),
            percentile(&mut beside, 0.5),
            percentile(&mut beside, 0.99),
            gaps.prefill,
        )?;
    }
    Ok(if met {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
