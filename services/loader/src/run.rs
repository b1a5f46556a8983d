//! The order of start-up and of death.

use std::{ffi::OsString, io, process::ExitCode, thread, time::Duration};

use clap::Parser as _;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
};

use crate::{
    config::{CommandLine, Config, Flags},
    server::{Listeners, ServeError, serve},
    socket::{self, SocketError},
};

/// `EX_USAGE` of sysexits.
const EXIT_USAGE: u8 = 64;
/// As a shell reports a process that was killed by SIGTERM.
const EXIT_NOW: i32 = 128 + 15;
/// Waiting for sockets is light work: reads have threads of their own.
const WORKERS: usize = 2;
/// `stat`, `mlock` and printing directories.
const BLOCKING_THREADS_MAX: usize = 32;
/// After the drain's time, everything else must be over within this.
const DEATH: Duration = Duration::from_secs(5);

/// Why the daemon ended with a failure.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error("telemetry: {0}")]
    Telemetry(#[from] telemetry::Error),
    #[error("runtime: {0}")]
    Runtime(#[source] io::Error),
    #[error("signals: {0}")]
    Signals(#[source] io::Error),
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error("--listen: {0}")]
    Listen(#[source] io::Error),
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// The whole life of the daemon, with flags from `args`, whose first is the program's name.
///
/// Exit code 0 after a shutdown in order, 64 if the flags cannot be used, 1 if it could not serve, 143 if it was told twice to end.
#[must_use]
pub fn main_from(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    match CommandLine::try_parse_from(args) {
        Ok(line) => main_with(line.flags),
        Err(error) => {
            let failed_to_print = error.print().is_err();
            if error.use_stderr() || failed_to_print {
                ExitCode::from(EXIT_USAGE)
            } else {
                ExitCode::SUCCESS
            }
        }
    }
}

/// The same, with flags from elsewhere.
#[must_use]
pub fn main_with(flags: Flags) -> ExitCode {
    match flags.validated() {
        Err(error) => {
            complain(&error);
            ExitCode::from(EXIT_USAGE)
        }
        Ok(config) => match run(config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                complain(&error);
                ExitCode::FAILURE
            }
        },
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the last word of a program whose log may not be up"
)]
fn complain(error: &dyn std::error::Error) {
    eprintln!("hearth-loader: {error}");
}

fn run(config: Config) -> Result<(), RunError> {
    weights::sigbus::install();
    let telemetry = telemetry::init(&config.telemetry, "hearth-loader")?;
    raise_descriptor_limit();
    let runtime = runtime()?;
    let outcome = runtime.block_on(live(config));
    if let Err(error) = &outcome {
        tracing::error!(%error, "ending");
    }
    // A read that hangs in the kernel must not keep us.
    runtime.shutdown_background();
    drop(telemetry);
    outcome
}

/// Every model file is an open descriptor, and the usual soft limit of 1024 is made for programs that call `select`.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "few files can be open at a time");
    }
}

async fn live(config: Config) -> Result<(), RunError> {
    let shutdown = Shutdown::listen(config.drain_timeout + DEATH).map_err(RunError::Signals)?;
    let (unix, _file) = socket::bind(&config.socket)?;
    let tcp = match config.listen {
        Some(address) => Some(TcpListener::bind(address).await.map_err(RunError::Listen)?),
        None => None,
    };
    tracing::info!(socket = %config.socket.display(), models = %config.models.display(), "listening");
    serve(Listeners { unix, tcp }, config, shutdown.asked()).await?;
    Ok(())
}

fn runtime() -> Result<Runtime, RunError> {
    Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_name("loader")
        .enable_all()
        .build()
        .map_err(RunError::Runtime)
}

/// SIGTERM and SIGINT: the first asks, the second ends.
struct Shutdown {
    term: Signal,
    int: Signal,
    deadline: Duration,
}

// === impl Shutdown ===

impl Shutdown {
    /// Takes the signals over; from now on they do not kill.
    fn listen(deadline: Duration) -> io::Result<Shutdown> {
        Ok(Shutdown {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            deadline,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }

    /// Resolves at the first signal. From then on another one, or the deadline, ends the process however it stands.
    async fn asked(mut self) {
        self.next().await;
        let deadline = self.deadline;
        // A thread, since the runtime may be what hangs.
        let watchdog = thread::Builder::new()
            .name("watchdog".to_owned())
            .spawn(move || {
                thread::sleep(deadline);
                tracing::error!("the drain did not end in time");
                std::process::exit(1);
            });
        if let Err(error) = watchdog {
            tracing::warn!(%error, "no watchdog over the drain");
        }
        tokio::spawn(async move {
            self.next().await;
            std::process::exit(EXIT_NOW);
        });
    }
}
