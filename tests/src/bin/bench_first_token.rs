//! From a start, and from a death, to the first streamed token on a GPU: `bench-first-token FILE GIGABYTES_PER_SECOND DRIVER_START_MS`, the last two as `bench-upload` measured them in the same run.
//!
//! A daemon runs and the file is in the page cache. Prints one table and exits non-zero below a bar. HEARTH_HIP_LIBRARY chooses the HIP library.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use e2e::client::{self, Completion};
use e2e::node::{Daemon, Launch, Service, serving, workspace};
use proto::inference::v1::generate_response::Event;
use proto::inference::v1::inference_service_client::InferenceServiceClient;

const RUNS: usize = 3;
const INFERENCE: &str = "hearth.inference.v1.InferenceService";
/// What a start may take beside the driver's and the bytes' time on the link.
const START_EXTRA: Duration = Duration::from_millis(150);
/// What a take-over may take beside the bytes' time on the link.
const TAKE_OVER_EXTRA: Duration = Duration::from_millis(100);

struct Bench {
    home: tempfile::TempDir,
    daemon: Daemon,
    model: String,
    on_link: Duration,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let usage = "usage: bench-first-token FILE GIGABYTES_PER_SECOND DRIVER_START_MS";
    let mut args = std::env::args().skip(1);
    let file = args.next().context(usage)?;
    let gigabytes_per_second: f64 = args.next().context(usage)?.parse()?;
    let driver_ms: f64 = args.next().context(usage)?.parse()?;
    let file = Path::new(&file).canonicalize()?;
    let bytes = std::fs::metadata(&file)?.len();
    let home = workspace();
    let folder = file.parent().context("a folder of models")?;
    let daemon = Daemon::start(home.path(), folder, &Launch::new()).await;
    let bench = Bench {
        home,
        daemon,
        model: file
            .file_stem()
            .and_then(|stem| stem.to_str())
            .context("a file's name")?
            .to_owned(),
        on_link: Duration::from_secs_f64(bytes as f64 / 1e9 / gigabytes_per_second),
    };
    let driver = Duration::from_secs_f64(driver_ms / 1e3);
    let mut met = true;
    met &= report(
        "start to first streamed token",
        bench.starts().await?,
        driver + bench.on_link + START_EXTRA,
    )?;
    met &= report(
        "kill to first streamed token, standby",
        bench.take_overs().await?,
        bench.on_link + TAKE_OVER_EXTRA,
    )?;
    met &= bench.over_budget(bytes).await?;
    Ok(if met {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

impl Bench {
    fn launch(&self) -> Launch {
        let launch = Launch::new().flags(["--device", "hip", "--preload", &self.model]);
        match std::env::var("HEARTH_HIP_LIBRARY") {
            Ok(library) => launch.flags(["--hip-library", &library]),
            Err(_) => launch,
        }
    }

    /// Time from `exec` to the first delta, several times.
    async fn starts(&self) -> Result<Vec<Duration>> {
        let mut times = Vec::new();
        for run in 0..RUNS {
            let begun = Instant::now();
            let mut service = Service::spawn(
                self.home.path(),
                &format!("start-{run}"),
                &self.daemon,
                &self.launch(),
            );
            self.first_token(&mut service).await?;
            times.push(begun.elapsed());
            service.process.kill();
        }
        Ok(times)
    }

    /// Time from the death of the one that serves to the first delta of the one that stood by, several times.
    async fn take_overs(&self) -> Result<Vec<Duration>> {
        let lock = self.home.path().join("turn.lock");
        let launch = self
            .launch()
            .flags(["--standby"])
            .flags([lock.to_str().context("a path in UTF-8")?]);
        let mut serves = Service::spawn(self.home.path(), "pair", &self.daemon, &launch);
        serving(&serves.socket, INFERENCE, &mut serves.process).await;
        let mut times = Vec::new();
        for run in 0..RUNS {
            let stood_by = serves.process.log().matches("standing by").count();
            let mut next = Service::spawn(self.home.path(), "pair", &self.daemon, &launch);
            while next.process.log().matches("standing by").count() <= stood_by {
                anyhow::ensure!(next.process.alive(), "{}", next.process.log());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            // Standing by includes the plan, which is built meanwhile.
            tokio::time::sleep(Duration::from_secs(1)).await;
            let begun = Instant::now();
            serves.process.kill();
            self.first_token(&mut next)
                .await
                .with_context(|| format!("take-over {run}"))?;
            times.push(begun.elapsed());
            serves = next;
        }
        serves.process.kill();
        Ok(times)
    }

    /// A model that is larger than the budget answers as with all of it.
    async fn over_budget(&self, bytes: u64) -> Result<bool> {
        let mut answers = Vec::new();
        for (name, budget) in [("whole", bytes * 2), ("third", bytes / 3)] {
            let launch =
                self.launch()
                    .flags(["--weights-budget", &budget.to_string(), "--batch-invariant"]);
            let mut service = Service::start(self.home.path(), name, &self.daemon, &launch).await;
            let begun = Instant::now();
            let request = client::greedy(&self.model, &[1, 2, 3, 4, 5, 6, 7, 8], 8);
            let completion = client::generate(&mut service.client().await, request).await?;
            answers.push((completion.ids(), begun.elapsed()));
            service.process.kill();
        }
        let same = answers[0].0 == answers[1].0;
        let verdict = if same {
            "the same tokens: met"
        } else {
            "OTHER TOKENS"
        };
        row(
            "8 tokens with a third of the weights' memory",
            &format!("{:.1?}", answers[1].1),
            verdict,
        )?;
        Ok(same)
    }

    /// Asks as soon as somebody listens, and reads up to the first token.
    async fn first_token(&self, service: &mut Service) -> Result<()> {
        let request = client::greedy(&self.model, &[1, 2, 3, 4, 5, 6, 7, 8], 1);
        let channel = loop {
            match client::connect(&service.socket).await {
                Ok(channel) => break channel,
                Err(_) => anyhow::ensure!(service.process.alive(), "{}", service.process.log()),
            }
            tokio::time::sleep(Duration::from_micros(500)).await;
        };
        let mut stream = InferenceServiceClient::new(channel)
            .generate(request)
            .await?
            .into_inner();
        let mut completion = Completion::default();
        while completion.tokens.is_empty() {
            let message = stream.message().await?.context("a token before the end")?;
            completion.take(message.event.unwrap_or(Event::Finished(Default::default())));
        }
        Ok(())
    }
}

fn report(what: &str, mut times: Vec<Duration>, limit: Duration) -> Result<bool> {
    times.sort();
    let median = times[times.len() / 2];
    let met = median <= limit;
    let verdict = if met { "met" } else { "MISSED" };
    row(
        what,
        &format!("{median:.1?} ({:.1?})", times),
        &format!("at most {limit:.1?}: {verdict}"),
    )?;
    Ok(met)
}

fn row(what: &str, measured: &str, bar: &str) -> Result<()> {
    Ok(writeln!(
        std::io::stdout().lock(),
        "{what:<48} {measured:>24}   {bar}"
    )?)
}
