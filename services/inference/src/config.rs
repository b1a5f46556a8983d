//! The service's flags, and what they are once checked.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use bytesize::ByteSize;
use clap::{Args, Parser};
use humantime::parse_duration;

use crate::listen::Address;

mod device;

pub use device::{DeviceChoice, DeviceFlags, KvChoice};

/// Streams tokens from GGUF models over gRPC.
///
/// Serves one device. Weights come from the loader daemon of this node: a model is attached when it is first asked for, its plan is built without reading a weight, and every weight is
/// fetched from the daemon's page cache when a step first needs it. Any number of services on a node share one copy of a model.
#[derive(Clone, Debug, Parser)]
#[command(name = "hearth-inference", version, max_term_width = 110)]
pub(crate) struct CommandLine {
    /// Everything that can be set.
    #[command(flatten)]
    pub(crate) flags: Flags,
}

/// Command-line flags and environment variables of the service.
///
/// Every flag may be given by its environment variable instead; the flag wins.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Inference")]
pub struct Flags {
    /// Serve gRPC on this address: IP:PORT or unix:PATH
    ///
    /// There is no authentication on it: whoever reaches it can use the models.
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "HEARTH_LISTEN",
        default_value = "127.0.0.1:50051"
    )]
    pub listen: Address,

    /// Socket of the loader daemon [default: $XDG_RUNTIME_DIR/hearth/loader.sock, else /tmp/hearth-UID/loader.sock]
    #[arg(long, value_name = "PATH", env = "HEARTH_LOADER_SOCKET")]
    pub loader_socket: Option<PathBuf>,

    /// Serve only while holding a lock on this file, and stand by until then
    ///
    /// Of several services with the same lock and address, the first serves. The others open the device, load kernels, attach the models of --preload and read no weight; when the one that
    /// serves ends, however it ends, one of them takes the lock, listens on the address and serves. Give each the whole budgets: only one uses them at a time.
    #[arg(long, value_name = "LOCKFILE", env = "HEARTH_STANDBY")]
    pub standby: Option<PathBuf>,

    /// The device.
    #[command(flatten)]
    pub device: DeviceFlags,

    /// Threads that compute [default: one for each core that this process may use]
    #[arg(long, value_name = "N", env = "HEARTH_THREADS")]
    pub threads: Option<NonZeroUsize>,

    /// Keep each thread that computes on a processor of its own
    ///
    /// For a service that shares its processors with nobody, such as a pod with a static CPU assignment. Services that share a node would pin the same ones.
    #[arg(long, env = "HEARTH_PIN_THREADS")]
    pub pin_threads: bool,

    /// Most bytes of weights kept on the device, such as 16GiB [default: no limit]
    ///
    /// Above it, the least recently used weights that no step holds are let go. A model larger than this still runs, fetching its layers again for every step.
    #[arg(long, value_name = "BYTES", env = "HEARTH_WEIGHTS_BUDGET")]
    pub weights_budget: Option<ByteSize>,

    /// Most bytes of KV cache, over all models [default: 1GiB on the processor, a quarter of its memory on a GPU]
    #[arg(long, value_name = "BYTES", env = "HEARTH_KV_BUDGET")]
    pub kv_budget: Option<ByteSize>,

    /// Attach this model at start and report ready only when it can be served (may be given several times, or as a list with commas)
    ///
    /// Its weights are brought in as soon as the service is ready; requests that come earlier have those they need fetched first.
    #[arg(
        long,
        value_name = "MODEL",
        env = "HEARTH_PRELOAD",
        value_delimiter = ','
    )]
    pub preload: Vec<String>,

    /// Refuse requests for models that are not attached, instead of attaching them
    #[arg(long, env = "HEARTH_NO_AUTO_ATTACH")]
    pub no_auto_attach: bool,

    /// Most requests that are worked on at a time
    #[arg(
        long,
        value_name = "N",
        env = "HEARTH_MAX_RUNNING",
        default_value = "64"
    )]
    pub max_running: NonZeroUsize,

    /// Most requests that wait for their turn; one more is refused with RESOURCE_EXHAUSTED
    #[arg(
        long,
        value_name = "N",
        env = "HEARTH_MAX_QUEUED",
        default_value = "256"
    )]
    pub max_queued: NonZeroUsize,

    /// Most prompt tokens in one step; without it 2048 on a GPU, where many rows keep every multiprocessor busy, and 512 elsewhere
    ///
    /// Beside running requests a step takes fewer, see --step-target.
    #[arg(long, value_name = "TOKENS", env = "HEARTH_PREFILL_CHUNK")]
    pub prefill_chunk: Option<NonZeroUsize>,

    /// How long a step may take on account of prompts while requests are running: shorter keeps their tokens coming at an even pace, longer finishes prompts sooner
    ///
    /// Where the running requests' own part takes more than half of it, prompts get as much time as they do.
    #[arg(long, value_name = "TIME", env = "HEARTH_STEP_TARGET", default_value = "50ms", value_parser = parse_duration)]
    pub step_target: Duration,

    /// Fetches of weights that may run at a time
    #[arg(
        long,
        value_name = "N",
        env = "HEARTH_FETCH_THREADS",
        default_value = "8"
    )]
    pub fetch_threads: NonZeroUsize,

    /// How far ahead of the running step weights are fetched; 0 fetches each only when it is needed
    #[arg(
        long,
        value_name = "BYTES",
        env = "HEARTH_PREFETCH_WINDOW",
        default_value = "256MiB"
    )]
    pub prefetch_window: ByteSize,

    /// How long to wait for the daemon to fetch a weight before reading it ourselves
    #[arg(long, value_name = "TIME", env = "HEARTH_FETCH_TIMEOUT", default_value = "5s", value_parser = parse_duration)]
    pub fetch_timeout: Duration,

    /// How long a request may stand still because its client does not read; then it ends with RESOURCE_EXHAUSTED
    #[arg(long, value_name = "TIME", env = "HEARTH_SLOW_CLIENT_TIMEOUT", default_value = "30s", value_parser = parse_duration)]
    pub slow_client_timeout: Duration,

    /// Threads that turn text into tokens
    #[arg(
        long,
        value_name = "N",
        env = "HEARTH_TEXT_THREADS",
        default_value = "2"
    )]
    pub text_threads: NonZeroUsize,

    /// How long requests may go on after SIGTERM before they are cancelled; a second SIGTERM ends the process at once
    #[arg(long, value_name = "TIME", env = "HEARTH_DRAIN_TIMEOUT", default_value = "30s", value_parser = parse_duration)]
    pub drain_timeout: Duration,

    /// Largest request message
    #[arg(
        long,
        value_name = "BYTES",
        env = "HEARTH_MAX_MESSAGE_BYTES",
        default_value = "4MiB"
    )]
    pub max_message_bytes: ByteSize,

    /// Where the daemon's socket is when --loader-socket is not given.
    #[arg(long, value_name = "DIR", env = "XDG_RUNTIME_DIR", hide = true)]
    pub runtime_dir: Option<PathBuf>,

    /// What the process tells about itself.
    #[command(flatten)]
    pub telemetry: telemetry::Flags,
}

/// Validated settings; see [`Flags::validated`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Address to listen on.
    pub listen: Address,
    /// Serve only while holding a lock on this file.
    pub standby: Option<PathBuf>,
    /// Socket of the loader daemon.
    pub loader_socket: PathBuf,
    /// Where models run.
    pub device: DeviceFlags,
    /// Threads that compute.
    pub threads: NonZeroUsize,
    /// Keep each of them on a processor of its own.
    pub pin_threads: bool,
    /// Most bytes of weights on the device.
    pub weights_budget_bytes: Option<u64>,
    /// Most bytes of KV cache; what the device suggests where it is not given.
    pub kv_budget_bytes: Option<u64>,
    /// Models to load at start.
    pub preload: Vec<String>,
    /// Attach models that requests name.
    pub auto_attach: bool,
    /// Most requests worked on at a time.
    pub max_running: NonZeroUsize,
    /// Most requests waiting.
    pub max_queued: NonZeroUsize,
    /// Most prompt tokens in one step; what suits the device where it is not given.
    pub prefill_chunk_tokens: Option<NonZeroUsize>,
    /// How long a step may take on account of prompts while requests are running.
    pub step_target: Duration,
    /// Fetches at a time.
    pub fetch_threads: NonZeroUsize,
    /// How far ahead to fetch.
    pub prefetch_window_bytes: u64,
    /// How long to wait for the daemon.
    pub fetch_timeout: Duration,
    /// How long to wait for a client.
    pub slow_client_timeout: Duration,
    /// Threads for text.
    pub text_threads: NonZeroUsize,
    /// How long requests may go on once the service is told to end.
    pub drain_timeout: Duration,
    /// Largest request message.
    pub max_message_bytes: usize,
    /// Logs and traces.
    pub telemetry: telemetry::Config,
}

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value outside its range.
    #[error("{flag} {value}: must be {range}")]
    Range {
        /// The flag.
        flag: &'static str,
        /// What was given.
        value: String,
        /// What may be given.
        range: &'static str,
    },
    /// A telemetry flag.
    #[error(transparent)]
    Telemetry(#[from] telemetry::config::ConfigError),
}

/// Smallest message limit: a request with sixteen long stop strings and a short prompt.
const MESSAGE_BYTES_MIN: u64 = 64 << 10;
/// Largest message limit; a prompt of a million tokens has about 5 MB.
const MESSAGE_BYTES_MAX: u64 = 1 << 30;

// === impl Flags ===

impl Flags {
    /// Checks every flag.
    ///
    /// # Errors
    /// The first [`ConfigError`] found.
    pub fn validated(self) -> Result<Config, ConfigError> {
        self.check_counts()?;
        self.check_sizes()?;
        let max_message_bytes = usize::try_from(self.max_message_bytes.0).unwrap_or(usize::MAX);
        let loader_socket = self
            .loader_socket
            .unwrap_or_else(|| default_socket(self.runtime_dir.as_deref()));
        Ok(Config {
            listen: self.listen,
            standby: self.standby,
            loader_socket,
            device: self.device,
            threads: self.threads.unwrap_or_else(all_cores),
            pin_threads: self.pin_threads,
            weights_budget_bytes: self.weights_budget.map(|size| size.0),
            kv_budget_bytes: self.kv_budget.map(|size| size.0),
            preload: self.preload.into_iter().filter(|m| !m.is_empty()).collect(),
            auto_attach: !self.no_auto_attach,
            max_running: self.max_running,
            max_queued: self.max_queued,
            prefill_chunk_tokens: self.prefill_chunk,
            step_target: self.step_target,
            fetch_threads: self.fetch_threads,
            prefetch_window_bytes: self.prefetch_window.0,
            fetch_timeout: self.fetch_timeout,
            slow_client_timeout: self.slow_client_timeout,
            text_threads: self.text_threads,
            drain_timeout: self.drain_timeout,
            max_message_bytes,
            telemetry: self.telemetry.validated()?,
        })
    }

    fn check_counts(&self) -> Result<(), ConfigError> {
        let at_most = |flag, value: NonZeroUsize, max: usize, range| {
            let value = value.get();
            check(value <= max, flag, value.to_string(), range)
        };
        if let Some(threads) = self.threads {
            at_most("--threads", threads, 1024, "at most 1024")?;
        }
        at_most("--fetch-threads", self.fetch_threads, 256, "at most 256")?;
        at_most("--text-threads", self.text_threads, 256, "at most 256")?;
        at_most("--max-running", self.max_running, 4096, "at most 4096")?;
        at_most("--max-queued", self.max_queued, 65_536, "at most 65536")?;
        match self.prefill_chunk {
            Some(chunk) => at_most("--prefill-chunk", chunk, 65_536, "at most 65536"),
            None => Ok(()),
        }
    }

    fn check_sizes(&self) -> Result<(), ConfigError> {
        if let Some(budget) = self.kv_budget {
            check(budget.0 > 0, "--kv-budget", budget.to_string(), "above 0")?;
        }
        if let Some(budget) = self.weights_budget {
            let range = "above 0; leave it out for no limit";
            check(budget.0 > 0, "--weights-budget", budget.to_string(), range)?;
        }
        let message = self.max_message_bytes;
        let in_range = (MESSAGE_BYTES_MIN..=MESSAGE_BYTES_MAX).contains(&message.0);
        let range = "64KiB to 1GiB";
        check(in_range, "--max-message-bytes", message.to_string(), range)?;
        let long = |flag, time: Duration| {
            let enough = time >= Duration::from_millis(1);
            check(enough, flag, format!("{time:?}"), "at least 1ms")
        };
        long("--fetch-timeout", self.fetch_timeout)?;
        long("--slow-client-timeout", self.slow_client_timeout)
    }
}

fn check(
    holds: bool,
    flag: &'static str,
    value: String,
    range: &'static str,
) -> Result<(), ConfigError> {
    if holds {
        return Ok(());
    }
    Err(ConfigError::Range { flag, value, range })
}

fn all_cores() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// Where the daemon listens when it was told nothing either.
fn default_socket(runtime_dir: Option<&Path>) -> PathBuf {
    use std::os::unix::fs::MetadataExt as _;

    if let Some(dir) = runtime_dir.filter(|dir| dir.is_absolute()) {
        return dir.join("hearth").join("loader.sock");
    }
    let user = std::fs::metadata("/proc/self").map_or(0, |metadata| metadata.uid());
    PathBuf::from(format!("/tmp/hearth-{user}/loader.sock"))
}

#[cfg(test)]
mod tests;
