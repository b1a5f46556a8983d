//! Tokens a second through the whole service on a GPU: `bench-tokens FILE`, an 8B-shaped Q4_K_M file that lies in the page cache.
//!
//! Prints one table, with and without `--batch-invariant`, and exits non-zero below a bar. HEARTH_HIP_LIBRARY chooses the HIP library.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result};
use e2e::client::{self, Completion};
use e2e::node::{Daemon, Launch, Service, workspace};
use proto::inference::v1::inference_service_client::InferenceServiceClient;
use proto::inference::v1::{GenerateRequest, GetModelRequest};
use tonic::transport::Channel;

const RUNS: usize = 3;
const STREAMS: usize = 64;
/// Output of each stream.
const OUTPUT: u32 = 256;
const PROMPT: usize = 2048;
/// Bytes a second that the memory of the GPU gives for which the bars were set.
const MEMORY_BYTES_PER_SECOND: f64 = 4.3e12;

/// What llama.cpp does there, and half of it where many streams and long prompts are concerned.
const BARS: [f64; 3] = [274.0, 2500.0, 4000.0];
const NAMES: [&str; 3] = [
    "decode, 1 stream",
    "decode, 64 streams",
    "prefill of 2,048 tokens",
];

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let file = std::env::args()
        .nth(1)
        .context("usage: bench-tokens FILE")?;
    let file = Path::new(&file).canonicalize()?;
    let bytes = std::fs::metadata(&file)?.len();
    let home = workspace();
    let folder = file.parent().context("a folder of models")?;
    let model = file.file_stem().and_then(|stem| stem.to_str());
    let model = model.context("a file's name")?;
    let daemon = Daemon::start(home.path(), folder, &Launch::new()).await;

    let usual = measure(&daemon, home.path(), model, &[]).await?;
    let invariant = measure(&daemon, home.path(), model, &["--batch-invariant"]).await?;
    let mut met = true;
    let mut out = std::io::stdout().lock();
    for (index, name) in NAMES.iter().enumerate() {
        let (rate, bar) = (usual[index], BARS[index]);
        met &= rate >= bar;
        let verdict = if rate >= bar { "met" } else { "MISSED" };
        writeln!(
            out,
            "{name:<26} {rate:>9.1} tok/s   bar {bar:>7.0}: {verdict:<6}   batch-invariant {:>9.1} ({:.2} of it)",
            invariant[index],
            invariant[index] / rate,
        )?;
    }
    let share = usual[0] * bytes as f64 / MEMORY_BYTES_PER_SECOND;
    writeln!(out, "weights read by 1 stream: {:.2} of 4.3 TB/s", share)?;
    Ok(if met {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The rates of [`NAMES`], medians of several runs.
async fn measure(daemon: &Daemon, home: &Path, model: &str, flags: &[&str]) -> Result<[f64; 3]> {
    let launch = Launch::new().flags(["--device", "hip", "--preload", model]);
    let launch = launch.flags(flags);
    let launch = match std::env::var("HEARTH_HIP_LIBRARY") {
        Ok(library) => launch.flags(["--hip-library", &library]),
        Err(_) => launch,
    };
    let name = format!("tokens-{}", flags.len());
    let mut service = Service::start(home, &name, daemon, &launch).await;
    let request = GetModelRequest {
        model: model.to_owned(),
    };
    let answer = service.models().await.get_model(request).await?;
    let device = answer.into_inner().device.unwrap_or_default();
    writeln!(std::io::stdout(), "{}", device.description)?;
    let mut client = service.client().await;
    // The weights come, and every shape of step is recorded.
    decode(&mut client, model, 1, 0).await?;
    decode(&mut client, model, STREAMS, 1).await?;

    let mut rates = [const { Vec::new() }; 3];
    for run in 0..RUNS {
        let seed = u32::try_from(run)? + 2;
        rates[0].push(decode(&mut client, model, 1, seed).await?);
        rates[1].push(decode(&mut client, model, STREAMS, seed).await?);
        rates[2].push(prefill(&mut client, model, seed).await?);
    }
    service.process.kill();
    Ok(rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    }))
}

/// Tokens that no other request begins with, so that nothing of them is found again.
fn prompt(seed: u32, stream: usize, len: usize) -> Vec<u32> {
    let stream = u32::try_from(stream).unwrap_or(0);
    let first = 1 + (seed * 1009 + stream * 31) % 1000;
    (0..len)
        .map(|i| 1 + (first + u32::try_from(i).unwrap_or(0) * 7) % 1000)
        .collect()
}

/// Tokens a second of all streams together, from when the last of them has begun.
async fn decode(
    client: &mut InferenceServiceClient<Channel>,
    model: &str,
    streams: usize,
    seed: u32,
) -> Result<f64> {
    let mut tasks = tokio::task::JoinSet::new();
    for stream in 0..streams {
        let request = client::greedy(model, &prompt(seed, stream, 16), OUTPUT);
        tasks.spawn(times(client.clone(), request));
    }
    let mut all = Vec::new();
    while let Some(times) = tasks.join_next().await {
        all.push(times??);
    }
    let begun = all.iter().filter_map(|times| times.first()).max();
    let ended = all.iter().filter_map(|times| times.last()).min();
    let (begun, ended) = (*begun.context("a token")?, *ended.context("a token")?);
    let within = |time: &&Instant| **time > begun && **time <= ended;
    let tokens = all.iter().flatten().filter(within).count();
    Ok(tokens as f64 / (ended - begun).as_secs_f64())
}

/// When each token of a completion came.
async fn times(
    mut client: InferenceServiceClient<Channel>,
    request: GenerateRequest,
) -> Result<Vec<Instant>> {
    let mut stream = client.generate(request).await?.into_inner();
    let (mut completion, mut times) = (Completion::default(), Vec::new());
    while let Some(message) = stream.message().await? {
        completion.take(message.event.context("every message holds an event")?);
        times.resize(completion.tokens.len(), Instant::now());
    }
    Ok(times)
}

/// Prompt tokens a second, up to the first token of the output.
async fn prefill(
    client: &mut InferenceServiceClient<Channel>,
    model: &str,
    seed: u32,
) -> Result<f64> {
    let begun = Instant::now();
    let request = client::greedy(model, &prompt(seed, 777, PROMPT), 1);
    let times = times(client.clone(), request).await?;
    let first = times.first().context("a token")?;
    Ok(PROMPT as f64 / (*first - begun).as_secs_f64())
}
