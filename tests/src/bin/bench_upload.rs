//! How fast a model's bytes come from the page cache onto a GPU, beside what the link gives page-locked memory: `bench-upload FILE [FILE]`.
//!
//! Goes the way that the service goes: engine, fetch threads, pinned slots, arena, repacking. With two files they are swapped, each in the place of the other. Prints one table and exits non-zero
//! below a bar. HEARTH_HIP_LIBRARY chooses the HIP library.

use std::io::Write as _;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use engine::{AttachRequest, Engine, EngineConfig, LoadProgress};
use kernels::hip::{Gpu, Memory, Pinned, Stream, View};
use kernels::{Device, HipOptions, KvType};
use text::Tokenizer;
use tokio::sync::watch;
use weights::Weights;

const RUNS: usize = 5;
/// The one argument of a process that starts the driver, prints the milliseconds that this takes, and ends.
const DRIVER_START: &str = "--driver-start";
/// What is copied to find out what the link gives.
const LINK_BYTES: usize = 256 << 20;
/// Least share of the link's rate.
const SHARE_BAR: f64 = 0.90;
/// Most time that a swap may take: bytes over link rate times the factor, and the constant.
const SWAP_FACTOR: f64 = 1.25;
const SWAP_EXTRA: Duration = Duration::from_millis(100);

struct Loaded {
    id: String,
    bytes: u64,
    attach: Duration,
    plan_build: Duration,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let files: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    anyhow::ensure!(!files.is_empty(), "usage: bench-upload FILE [FILE]");
    if files[0].as_os_str() == DRIVER_START {
        let begun = Instant::now();
        let _device = device()?;
        let opened = begun.elapsed().as_secs_f64() * 1e3;
        return Ok(writeln!(std::io::stdout(), "{opened}").map(|()| ExitCode::SUCCESS)?);
    }
    let mut starts = (0..RUNS)
        .map(|_| driver_start())
        .collect::<Result<Vec<f64>>>()?;
    starts.sort_by(f64::total_cmp);
    let device = device()?;
    let Device::Hip(hip) = &device else {
        anyhow::bail!("not a GPU");
    };
    let gpu = hip.gpu().clone();
    let link = link_rate(&gpu)?;
    let engine = Engine::start(config(device.clone()))?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", device.description())?;
    row(
        &mut out,
        "driver start, context, kernels",
        &format!("{:.1}ms", starts[RUNS / 2]),
        &format!(
            "median of {RUNS} processes, {:.1} to {:.1}",
            starts[0],
            starts[RUNS - 1]
        ),
    )?;
    row(&mut out, "page-locked memory to device", &rate(link), "")?;
    let mut met = true;
    let mut loaded = Vec::new();
    for file in &files {
        loaded.push(attach(&engine, file).await?);
    }
    for model in &loaded {
        met &= uploads(&engine, model, link, &mut out).await?;
    }
    if let [first, second] = &loaded[..] {
        met &= swaps(&engine, first, second, link, &mut out).await?;
    }
    Ok(if met {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn device() -> Result<Device> {
    Ok(Device::hip(&HipOptions {
        library: std::env::var_os("HEARTH_HIP_LIBRARY").map(PathBuf::from),
        ..HipOptions::default()
    })?)
}

/// Milliseconds that a process of its own takes to open the device, as a service meets it.
fn driver_start() -> Result<f64> {
    let output = std::process::Command::new(std::env::current_exe()?)
        .arg(DRIVER_START)
        .output()?;
    anyhow::ensure!(
        output.status.success(),
        "the driver did not start in a process of its own"
    );
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

/// Brings a model several times and says which share of the link's rate that took.
async fn uploads(
    engine: &Engine,
    model: &Loaded,
    link: f64,
    out: &mut impl std::io::Write,
) -> Result<bool> {
    let what = format!("{}: plan build, 0 uploads", model.id);
    row(out, &what, &format!("{:.1?}", model.plan_build), "")?;
    row(
        out,
        &format!("{}: attach", model.id),
        &format!("{:.1?}", model.attach),
        "",
    )?;
    let mut times = Vec::new();
    for _ in 0..RUNS {
        times.push(load(engine, model).await?);
        engine.unload(&model.id, true).await?;
    }
    times.sort();
    let median = times[RUNS / 2];
    let share = bytes_per_second(model.bytes, median) / link;
    let what = format!(
        "{}: {:.2} GB from the page cache",
        model.id,
        model.bytes as f64 / 1e9
    );
    row(
        out,
        &what,
        &format!("{median:.1?}, {}", rate(share * link)),
        &verdict(share, SHARE_BAR),
    )?;
    row(
        out,
        "  slowest of 5",
        &format!("{:.1?}", times[RUNS - 1]),
        "",
    )?;
    Ok(share >= SHARE_BAR)
}

/// Lets one model go and brings the other, by turns.
async fn swaps(
    engine: &Engine,
    first: &Loaded,
    second: &Loaded,
    link: f64,
    out: &mut impl std::io::Write,
) -> Result<bool> {
    load(engine, first).await?;
    let mut times = Vec::new();
    for _ in 0..RUNS {
        for (old, new) in [(first, second), (second, first)] {
            let begun = Instant::now();
            engine.unload(&old.id, true).await?;
            load(engine, new).await?;
            let limit =
                Duration::from_secs_f64(new.bytes as f64 / link).mul_f64(SWAP_FACTOR) + SWAP_EXTRA;
            times.push((begun.elapsed(), limit));
        }
    }
    times.sort();
    let (median, limit) = times[times.len() / 2];
    let met = if median <= limit { "met" } else { "MISSED" };
    row(
        out,
        "swap of the two",
        &format!("{median:.1?}"),
        &format!("at most {limit:.1?}: {met}"),
    )?;
    Ok(median <= limit)
}

async fn attach(engine: &Engine, file: &Path) -> Result<Loaded> {
    let id = file
        .file_stem()
        .and_then(|stem| stem.to_str())
        .context("a file's name")?;
    let begun = Instant::now();
    let weights = Arc::new(Weights::open(file)?);
    let tokenizer = Arc::new(Tokenizer::from_metadata(weights.directory().metadata())?);
    let report = engine
        .attach(AttachRequest {
            id: id.to_owned(),
            weights,
            tokenizer,
            pin: false,
        })
        .await?;
    Ok(Loaded {
        id: id.to_owned(),
        bytes: report.tensor_bytes,
        attach: begun.elapsed(),
        plan_build: report.plan_build,
    })
}

async fn load(engine: &Engine, model: &Loaded) -> Result<Duration> {
    let begun = Instant::now();
    let (progress, _) = watch::channel(LoadProgress::default());
    let stats = engine.load(&model.id, progress).await?;
    let took = begun.elapsed();
    anyhow::ensure!(
        stats.cold_bytes == 0,
        "{} bytes were not in the page cache",
        stats.cold_bytes
    );
    Ok(took)
}

/// Bytes per second of the best of several copies of page-locked memory.
fn link_rate(gpu: &Arc<Gpu>) -> Result<f64> {
    let stream = Stream::new(gpu)?;
    let view = View::whole(&Memory::allocate(gpu, LINK_BYTES)?);
    let mut pinned = Pinned::allocate(gpu, LINK_BYTES)?;
    pinned.bytes_mut().fill(1);
    let mut best = Duration::MAX;
    for _ in 0..8 {
        let begun = Instant::now();
        pinned = stream.upload(pinned, 0..LINK_BYTES, &view)?.wait()?;
        best = best.min(begun.elapsed());
    }
    Ok(bytes_per_second(LINK_BYTES as u64, best))
}

fn bytes_per_second(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / time.as_secs_f64()
}

fn rate(bytes_per_second: f64) -> String {
    format!("{:.1} GB/s", bytes_per_second / 1e9)
}

fn verdict(share: f64, bar: f64) -> String {
    let met = if share >= bar { "met" } else { "MISSED" };
    format!("{share:.2} of the link, at least {bar:.2}: {met}")
}

fn row(out: &mut impl std::io::Write, what: &str, measured: &str, bar: &str) -> Result<()> {
    Ok(writeln!(out, "{what:<48} {measured:>24}   {bar}")?)
}

fn config(device: Device) -> EngineConfig {
    let fetch_threads = NonZeroUsize::new(8).expect("not zero");
    EngineConfig {
        device,
        weights_budget_bytes: None,
        parked: false,
        kv_budget_bytes: 1 << 30,
        kv_type: KvType::F16,
        fetch_threads,
        prefetch_window_bytes: 1 << 30,
        max_running: 64,
        max_queued: 64,
        prefill_chunk_tokens: 512,
        step_target: Duration::from_millis(50),
        max_batch_rows: 576,
        event_capacity: 32,
        slow_client_timeout: Duration::from_secs(10),
    }
}
