//! What stands between a start and the first token, on an 8B-shaped file without its bytes: `just bench-start`.
//!
//! Prints medians of several runs beside their bars and exits non-zero below one.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::model::Llama;
use e2e::node::{Daemon, Launch, Service, workspace};
use proto::inference::v1::{LoadMode, LoadModelRequest};

const RUNS: usize = 9;

/// A measured figure and the most that it may be.
struct Bar {
    what: &'static str,
    measured: Vec<Duration>,
    limit: Duration,
}

impl Bar {
    fn median(&mut self) -> Duration {
        self.measured.sort();
        self.measured[self.measured.len() / 2]
    }
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let home = workspace();
    let models = home.path().join("models");
    std::fs::create_dir(&models)?;
    Llama::eight_billion().write_sparse(&models.join("8b.gguf"))?;
    let daemon = Daemon::start(home.path(), &models, &Launch::new()).await;

    let mut bars = [
        Bar {
            what: "plan build, 291 tensors",
            measured: Vec::new(),
            limit: Duration::from_millis(10),
        },
        Bar {
            what: "attach, vocabulary of 128,256",
            measured: Vec::new(),
            limit: Duration::from_millis(100),
        },
    ];
    for run in 0..RUNS {
        let service =
            Service::start(home.path(), &format!("run-{run}"), &daemon, &Launch::new()).await;
        let request = LoadModelRequest {
            model: "8b".to_owned(),
            mode: LoadMode::Lazy.into(),
            ..LoadModelRequest::default()
        };
        let mut progress = service
            .models()
            .await
            .load_model(request)
            .await?
            .into_inner();
        let mut attached = None;
        while let Some(message) = progress.message().await? {
            attached = message.model.or(attached);
        }
        let model = attached.context("the last message of a load holds the model")?;
        anyhow::ensure!(
            model.counters.unwrap_or_default().loaded_bytes == 0,
            "a lazy load read weights"
        );
        for (bar, took) in bars.iter_mut().zip([model.plan_build, model.attach]) {
            let took = took.context("an attached model says how long it took")?;
            bar.measured.push(Duration::try_from(took)?);
        }
    }
    report(&mut bars)
}

fn report(bars: &mut [Bar]) -> Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    let mut met = true;
    writeln!(
        out,
        "{:<32} {:>12} {:>12} {:>12} {:>8}",
        "median of 9 starts", "measured", "slowest", "bar", ""
    )?;
    for bar in bars {
        let (median, limit) = (bar.median(), bar.limit);
        let slowest = bar.measured.last().copied().unwrap_or_default();
        let verdict = if median <= limit { "met" } else { "MISSED" };
        met &= median <= limit;
        writeln!(
            out,
            "{:<32} {:>12.2?} {:>12.2?} {:>12.2?} {:>8}",
            bar.what, median, slowest, limit, verdict
        )?;
    }
    Ok(if met {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
