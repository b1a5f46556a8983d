//! The order of a process's start and death.

use std::{
    ffi::OsString,
    fmt::Display,
    process::{self, ExitCode},
    thread,
    time::Duration,
};

use anyhow::Context as _;
use clap::Parser as _;
use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
};

use crate::{
    Config, Flags,
    config::CommandLine,
    listen::Address,
    serve::{Prepared, serve},
    standby,
};

/// `EX_USAGE` of sysexits: the flags cannot be used.
const EXIT_USAGE: u8 = 64;
/// `EX_SOFTWARE`: the process had to be ended from within.
const EXIT_STUCK: i32 = 70;
/// What a shell reports for a process that SIGTERM killed.
const EXIT_TERMINATED: i32 = 128 + 15;
/// How much longer than the drain time-out a process may take to end.
const HARD_EXIT_AFTER: Duration = Duration::from_secs(8);
/// How long blocking work may go on when everything else has ended.
const RUNTIME_GRACE: Duration = Duration::from_secs(1);

/// The whole life of the service, with flags from `args`; the first is the program's name. Blocks until it ends.
#[must_use]
pub fn main_from(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    match CommandLine::try_parse_from(args) {
        Ok(line) => main_with(line.flags),
        Err(error) => {
            // Nothing is left to say if even that cannot be printed.
            let _unheard = error.print();
            if error.use_stderr() {
                ExitCode::from(EXIT_USAGE)
            } else {
                ExitCode::SUCCESS
            }
        }
    }
}

/// The whole life of the service, with flags from elsewhere. Blocks until it ends; exit code 64 if the flags cannot be used.
#[must_use]
pub fn main_with(flags: Flags) -> ExitCode {
    let config = match flags.validated() {
        Ok(config) => config,
        Err(error) => return complain(&error, EXIT_USAGE),
    };
    let guard = match telemetry::init(&config.telemetry, "hearth-inference") {
        Ok(guard) => guard,
        Err(error) => return complain(&format!("{:#}", anyhow::Error::new(error)), 1),
    };
    let outcome = run(config);
    if let Err(error) = &outcome {
        tracing::error!(cause = format!("{error:#}"), "ended");
    }
    guard.shutdown();
    if outcome.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn run(config: Config) -> anyhow::Result<()> {
    let runtime = Runtime::new().context("starting the runtime")?;
    let outcome = runtime.block_on(life(config));
    runtime.shutdown_timeout(RUNTIME_GRACE);
    outcome
}

async fn life(config: Config) -> anyhow::Result<()> {
    let mut signals = Signals::new().context("listening for signals")?;
    let address = config.listen.clone();
    let drain_timeout = config.drain_timeout;
    let loader_socket = config.loader_socket.clone();
    let (lock, prepared) = match config.standby.clone() {
        // Whoever asks while the device is being opened waits in the listener's queue.
        None => (None, None),
        Some(path) => {
            let prepared = Prepared::new(config.clone()).await?;
            tracing::info!(lock = %path.display(), "standing by");
            let lock = tokio::select! {
                lock = standby::turn(path) => lock?,
                () = signals.next() => return Ok(()),
            };
            (Some(lock), Some(prepared))
        }
    };
    let listener = address
        .bind()
        .await
        .with_context(|| format!("listening on {address}"))?;
    tracing::info!(address = listener.address()?, loader = %loader_socket.display(), "listening");
    let shutdown = async move {
        signals.next().await;
        hard_exit_after(drain_timeout + HARD_EXIT_AFTER);
        tokio::spawn(async move {
            signals.next().await;
            process::exit(EXIT_TERMINATED);
        });
    };
    let outcome = match prepared {
        None => serve(listener, config, shutdown).await,
        Some(prepared) => prepared.serve(listener, shutdown).await,
    };
    if let Address::Unix(path) = &address {
        // Whoever starts next replaces it anyway.
        let _left_behind = std::fs::remove_file(path);
    }
    // Not before the socket's file is gone: the next one makes its own.
    drop(lock);
    Ok(outcome?)
}

/// The last resort against anything that hangs: a thread that needs no runtime.
fn hard_exit_after(limit: Duration) {
    thread::spawn(move || {
        thread::sleep(limit);
        tracing::error!(?limit, "did not end in time");
        process::exit(EXIT_STUCK);
    });
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

// === impl Signals ===

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[expect(clippy::print_stderr, reason = "there is no log yet")]
fn complain(error: &dyn Display, code: u8) -> ExitCode {
    eprintln!("hearth-inference: {error}");
    ExitCode::from(code)
}
