//! Hearth beside llama.cpp on the same processor: `just bench-peer`.
//!
//! Both sides run the same file with as many threads, in turn, several times; medians and spreads are printed beside the bars, and the exit status says whether all were met. Hearth's figures are
//! what a client of its service sees, llama.cpp's are the time of its own calls.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use e2e::bench::bandwidth;
use e2e::bench::hearth::Hearth;
use e2e::bench::peer::Peer;
use e2e::model::Llama;
use e2e::node::{Daemon, Launch, Service, workspace};
use gguf::TensorType;

const RUNS: usize = 5;
const PREFILL_TOKENS: usize = 512;
const DECODE_TOKENS: usize = 48;
const STREAMS: usize = 8;

/// Least ratios to llama.cpp, and of eight streams to one.
const DECODE_BAR: f64 = 1.0;
const PREFILL_BAR: f64 = 0.8;
const STREAMS_BAR: f64 = 1.8;

/// Tokens per second of one side, one entry per run.
#[derive(Default)]
struct Rates {
    prefill: Vec<f64>,
    decode: Vec<f64>,
    streams: Vec<f64>,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |what| {
        arguments
            .next()
            .with_context(|| format!("usage: bench-peer PYTHON SCRIPT FOLDER [FILE...]: no {what}"))
    };
    let (python, script, folder) = (
        next("PYTHON")?,
        next("SCRIPT")?,
        PathBuf::from(next("FOLDER")?),
    );
    let wanted: Vec<String> = arguments.collect();
    let threads = std::thread::available_parallelism()?.get();
    let files = [
        ("Q4_K_M", TensorType::Q4_K, Some(TensorType::Q6_K)),
        ("Q8_0", TensorType::Q8_0, None),
        ("Q4_0", TensorType::Q4_0, Some(TensorType::Q6_K)),
    ];
    let mut met = true;
    for (name, weight_type, better_type) in files {
        if !wanted.is_empty() && !wanted.iter().any(|wanted| wanted == name) {
            continue;
        }
        let llama = Llama::one_billion(weight_type, better_type);
        let id = format!("1b-{name}");
        let path = folder.join(format!("{id}.gguf"));
        if !path.exists() {
            let unfinished = path.with_extension("unfinished");
            llama.write(&unfinished)?;
            std::fs::rename(&unfinished, &path)?;
        }
        let bytes = llama.header().finish()?.directory.tensor_bytes();
        let mut peer = Peer::start(&python, &script, &path, threads)?;
        met &= compare(&id, bytes, threads, &folder, &mut peer).await?;
    }
    Ok(if met {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs both sides in turn on one file. Returns whether every bar was met.
async fn compare(
    id: &str,
    bytes: u64,
    threads: usize,
    folder: &Path,
    peer: &mut Peer,
) -> Result<bool> {
    let home = workspace();
    let daemon = Daemon::start(home.path(), folder, &Launch::new()).await;
    let flags = ["--threads".to_owned(), threads.to_string()];
    let service = Service::start(
        home.path(),
        "inference",
        &daemon,
        &Launch::new().flags(flags),
    )
    .await;
    let mut hearth = Hearth::new(&service, id);
    // Weights come into memory, and scratch grows.
    hearth.prefill(64).await?;
    peer.seconds(&["prefill", "64"])?;

    let (ours, theirs, memory) = measure(&mut hearth, peer, threads).await?;
    report(id, bytes, threads, peer, [&ours, &theirs], &memory)
}

/// Both sides in turn, and the memory between.
async fn measure(
    hearth: &mut Hearth<'_>,
    peer: &mut Peer,
    threads: usize,
) -> Result<(Rates, Rates, Vec<f64>)> {
    let (mut ours, mut theirs, mut memory) = (Rates::default(), Rates::default(), Vec::new());
    for _ in 0..RUNS {
        ours.prefill.push(hearth.prefill(PREFILL_TOKENS).await?);
        theirs
            .prefill
            .push(PREFILL_TOKENS as f64 / peer.seconds(&["prefill", &PREFILL_TOKENS.to_string()])?);
        ours.decode.push(hearth.decode(1, DECODE_TOKENS).await?);
        theirs
            .decode
            .push(DECODE_TOKENS as f64 / peer.seconds(&["decode", &DECODE_TOKENS.to_string()])?);
        ours.streams
            .push(hearth.decode(STREAMS, DECODE_TOKENS).await?);
        let streamed =
            peer.seconds(&["streams", &STREAMS.to_string(), &DECODE_TOKENS.to_string()])?;
        theirs
            .streams
            .push((STREAMS * DECODE_TOKENS) as f64 / streamed);
        memory.push(bandwidth::gigabytes_per_second(threads));
    }
    Ok((ours, theirs, memory))
}

/// Prints medians beside their bars. Returns whether every bar was met.
fn report(
    id: &str,
    bytes: u64,
    threads: usize,
    peer: &Peer,
    [ours, theirs]: [&Rates; 2],
    memory: &[f64],
) -> Result<bool> {
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "\n{id}: {:.2} GB of weights, {threads} threads on both sides, medians of {RUNS} alternating runs (least - most)",
        bytes as f64 / 1e9
    )?;
    writeln!(
        out,
        "llama.cpp: llama-cpp-python {}\n  {}",
        peer.version, peer.system
    )?;
    writeln!(
        out,
        "{:<28} {:>28} {:>28} {:>14} {:>12}",
        "tokens per second", "hearth", "llama.cpp", "ratio", "bar"
    )?;
    let met = [
        line(
            &mut out,
            &format!("prefill of {PREFILL_TOKENS}"),
            &ours.prefill,
            &theirs.prefill,
            Some(PREFILL_BAR),
        )?,
        line(
            &mut out,
            &format!("decode of {DECODE_TOKENS}"),
            &ours.decode,
            &theirs.decode,
            Some(DECODE_BAR),
        )?,
        line(
            &mut out,
            &format!("{STREAMS} streams of {DECODE_TOKENS}"),
            &ours.streams,
            &theirs.streams,
            None,
        )?,
    ];
    let (one, all, memory) = (median(&ours.decode), median(&ours.streams), median(memory));
    let gain = all / one;
    let gained = gain >= STREAMS_BAR;
    writeln!(
        out,
        "{STREAMS} streams to one: {gain:.2}x (bar {STREAMS_BAR}x, {})",
        verdict(gained)
    )?;
    let read = one * bytes as f64 / 1e9;
    writeln!(
        out,
        "memory: {memory:.1} GB/s by {threads} threads that only read; decode reads {read:.1} GB/s of weights, {:.0} % of that",
        100.0 * read / memory
    )?;
    Ok(gained && met.into_iter().all(|met| met))
}

fn line(
    out: &mut impl std::io::Write,
    what: &str,
    ours: &[f64],
    theirs: &[f64],
    bar: Option<f64>,
) -> Result<bool> {
    let ratio = median(ours) / median(theirs);
    let met = bar.is_none_or(|bar| ratio >= bar);
    let bar = bar.map_or(String::new(), |bar| format!("{bar}x {}", verdict(met)));
    writeln!(
        out,
        "{what:<28} {:>28} {:>28} {:>13.2}x {bar:>12}",
        spread(ours),
        spread(theirs),
        ratio
    )?;
    Ok(met)
}

fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}

fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn spread(figures: &[f64]) -> String {
    let least = figures.iter().copied().fold(f64::INFINITY, f64::min);
    let most = figures.iter().copied().fold(0.0, f64::max);
    format!("{:.1} ({least:.1} - {most:.1})", median(figures))
}
