//! The daemon's flags, and what they are once checked.

use std::{
    net::SocketAddr,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::Duration,
};

use bytesize::ByteSize;
use clap::{Args, Parser};
use humantime::parse_duration;

use crate::id::ModelId;

/// Keeps GGUF model files warm on this node and hands them to inference services.
///
/// Scans a directory for model files and follows it, publishes each file's tensor directory over gRPC, reads weights into the page cache with its own
/// threads (so that its own cgroup is charged for them) and passes read-only descriptors to services over a second socket. One daemon serves a whole node.
#[derive(Clone, Debug, Parser)]
#[command(name = "hearth-loader", version, max_term_width = 110)]
pub(crate) struct CommandLine {
    /// Everything that can be set.
    #[command(flatten)]
    pub flags: Flags,
}

/// Command-line flags and environment variables of the daemon.
///
/// Every flag may be given by its environment variable instead; the flag wins.
#[derive(Args, Clone, Debug)]
// No argument group of its own: the name would collide with that of the telemetry flags.
#[group(skip)]
#[command(next_help_heading = "Loader")]
pub struct Flags {
    /// Directory that holds the models
    ///
    /// A model's name is its path below this directory without `.gguf` and without the suffix of a split. Links that stay inside are followed; what
    /// cannot be used is listed as invalid with the reason.
    #[arg(long, value_name = "DIR", env = "HEARTH_MODELS")]
    pub models: PathBuf,

    /// Unix socket to serve gRPC on [default: $XDG_RUNTIME_DIR/hearth/loader.sock, else /tmp/hearth-UID/loader.sock]
    ///
    /// A socket file left by a dead daemon is replaced; one that a live daemon answers on is not.
    #[arg(long, value_name = "PATH", env = "HEARTH_LOADER_SOCKET")]
    pub socket: Option<PathBuf>,

    /// Socket over which descriptors are passed; must lie beside --socket [default: --socket with `.handoff` added]
    #[arg(long, value_name = "PATH", env = "HEARTH_HANDOFF_SOCKET")]
    pub handoff_socket: Option<PathBuf>,

    /// Serve gRPC on this TCP address too
    ///
    /// There is no authentication on it: whoever reaches it can read every model. Descriptors never travel over it.
    #[arg(long, value_name = "ADDR:PORT", env = "HEARTH_LOADER_LISTEN")]
    pub listen: Option<SocketAddr>,

    /// Most bytes to keep in the page cache, such as 48GiB [default: as the kernel decides]
    ///
    /// Above it, the least recently used extents that no service holds are dropped. What services hold and what is pinned stays even if it exceeds this.
    #[arg(long, value_name = "BYTES", env = "HEARTH_CACHE_BUDGET")]
    pub cache_budget: Option<ByteSize>,

    /// Keep this model in the page cache (may be given several times, or as a list with commas)
    ///
    /// Its pages are locked where the system allows that, and read again when they vanish where it does not.
    #[arg(long, value_name = "MODEL", env = "HEARTH_PIN", value_delimiter = ',')]
    pub pin: Vec<String>,

    /// Threads that read from storage
    #[arg(
        long,
        value_name = "N",
        env = "HEARTH_LOADER_FETCH_THREADS",
        default_value = "8"
    )]
    pub fetch_threads: NonZeroUsize,

    /// Most bytes a second to read from storage, such as 500MB; 0 sets no limit. Bytes that lie in the page cache are free
    #[arg(
        long,
        value_name = "BYTES",
        env = "HEARTH_READ_RATE_MAX",
        default_value = "0"
    )]
    pub read_rate_max: ByteSize,

    /// How long a lease lives that is not used
    #[arg(long, value_name = "TIME", env = "HEARTH_LEASE_TTL", default_value = "30s", value_parser = parse_duration)]
    pub lease_ttl: Duration,

    /// Most leases at a time
    #[arg(
        long,
        value_name = "N",
        env = "HEARTH_MAX_LEASES",
        default_value = "1024"
    )]
    pub max_leases: NonZeroUsize,

    /// Most leases of one peer (a process on this node, or an address) at a time
    #[arg(
        long,
        value_name = "N",
        env = "HEARTH_MAX_LEASES_PER_PEER",
        default_value = "64"
    )]
    pub max_leases_per_peer: NonZeroUsize,

    /// How often to look at the model directory even if nothing was reported (network file systems report nothing); 0 never
    #[arg(long, value_name = "TIME", env = "HEARTH_RESCAN_EVERY", default_value = "60s", value_parser = parse_duration)]
    pub rescan_every: Duration,

    /// How often to look whether pinned models are still in the page cache
    #[arg(long, value_name = "TIME", env = "HEARTH_PIN_CHECK_EVERY", default_value = "10s", value_parser = parse_duration)]
    pub pin_check_every: Duration,

    /// How long calls may go on after SIGTERM before they are cut off; a second SIGTERM ends the process at once
    #[arg(long, value_name = "TIME", env = "HEARTH_LOADER_DRAIN_TIMEOUT", default_value = "10s", value_parser = parse_duration)]
    pub drain_timeout: Duration,

    /// Where sockets go when --socket is not given.
    #[arg(long, value_name = "DIR", env = "XDG_RUNTIME_DIR", hide = true)]
    pub runtime_dir: Option<PathBuf>,

    /// What the process tells about itself.
    #[command(flatten)]
    pub telemetry: telemetry::Flags,
}

/// Validated settings; see [`Flags::validated`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory that holds the models.
    pub models: PathBuf,
    /// Path of the gRPC socket.
    pub socket: PathBuf,
    /// Path of the hand-off socket, in the same directory.
    pub handoff_socket: PathBuf,
    /// TCP address to serve gRPC on, too.
    pub listen: Option<SocketAddr>,
    /// Most bytes to keep in the page cache.
    pub cache_budget_bytes: Option<u64>,
    /// Models to keep in the page cache.
    pub pin: Vec<ModelId>,
    /// Threads that read from storage.
    pub fetch_threads: NonZeroUsize,
    /// Most bytes a second to read from storage.
    pub read_rate_max: Option<u64>,
    /// How long an unused lease lives.
    pub lease_ttl: Duration,
    /// Most leases at a time.
    pub max_leases: NonZeroUsize,
    /// Most leases of one peer at a time.
    pub max_leases_per_peer: NonZeroUsize,
    /// How often to scan unasked.
    pub rescan_every: Option<Duration>,
    /// How often to look after pinned models.
    pub pin_check_every: Duration,
    /// How long calls may go on once the daemon is told to end.
    pub drain_timeout: Duration,
    /// Logs and traces.
    pub telemetry: telemetry::Config,
}

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// `--models` cannot be read as a directory.
    #[error("--models {}: {reason}", path.display())]
    Models {
        /// What was given.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A socket's path has no file name, or no room for one.
    #[error("{flag} {}: {reason}", path.display())]
    Socket {
        /// The flag.
        flag: &'static str,
        /// What was given.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// `--pin` names what cannot be a model.
    #[error("--pin {text:?}: a model's name is made of A-Z a-z 0-9 . _ - and /")]
    Pin {
        /// What was given.
        text: String,
    },
    /// A number outside its range.
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

/// `sockaddr_un` has room for 107 bytes and a zero; sockets are bound under a temporary name (a dot and a process id longer) before they get their own.
const SOCKET_PATH_BYTES_MAX: usize = 95;
const FETCH_THREADS_MAX: usize = 256;

// === impl Flags ===

impl Flags {
    /// Checks every flag.
    ///
    /// # Errors
    /// The first [`ConfigError`] found.
    pub fn validated(self) -> Result<Config, ConfigError> {
        check_models(&self.models)?;
        let socket = self
            .socket
            .clone()
            .unwrap_or_else(|| default_socket(self.runtime_dir.as_deref()));
        check_socket("--socket", &socket)?;
        let handoff_socket = self
            .handoff_socket
            .clone()
            .unwrap_or_else(|| handoff_beside(&socket));
        check_socket("--handoff-socket", &handoff_socket)?;
        if handoff_socket.parent() != socket.parent() || handoff_socket == socket {
            let reason = "must be another name in the directory of --socket: clients are told its file name only";
            return Err(ConfigError::Socket {
                flag: "--handoff-socket",
                path: handoff_socket,
                reason,
            });
        }
        self.check_ranges()?;
        let pin = self.pin.iter().filter(|text| !text.is_empty());
        let pin = pin.map(|text| {
            ModelId::parse(text).ok_or_else(|| ConfigError::Pin { text: text.clone() })
        });
        Ok(Config {
            pin: pin.collect::<Result<_, _>>()?,
            models: self.models,
            socket,
            handoff_socket,
            listen: self.listen,
            cache_budget_bytes: self.cache_budget.map(|size| size.0),
            fetch_threads: self.fetch_threads,
            read_rate_max: Some(self.read_rate_max.0).filter(|rate| *rate > 0),
            lease_ttl: self.lease_ttl,
            max_leases: self.max_leases,
            max_leases_per_peer: self.max_leases_per_peer,
            rescan_every: Some(self.rescan_every).filter(|every| !every.is_zero()),
            pin_check_every: self.pin_check_every,
            drain_timeout: self.drain_timeout,
            telemetry: self.telemetry.validated()?,
        })
    }

    fn check_ranges(&self) -> Result<(), ConfigError> {
        let range = |flag, value: String, range| Err(ConfigError::Range { flag, value, range });
        if self.fetch_threads.get() > FETCH_THREADS_MAX {
            return range(
                "--fetch-threads",
                self.fetch_threads.to_string(),
                "at most 256",
            );
        }
        if self.read_rate_max.0 != 0 && self.read_rate_max.0 < 4096 {
            return range(
                "--read-rate-max",
                self.read_rate_max.to_string(),
                "0 or at least 4096 bytes a second",
            );
        }
        if self.cache_budget.is_some_and(|size| size.0 == 0) {
            return range(
                "--cache-budget",
                "0".to_owned(),
                "at least one byte; leave it out for no budget",
            );
        }
        if self.lease_ttl.is_zero() {
            return range("--lease-ttl", "0".to_owned(), "longer than nothing");
        }
        if self.pin_check_every < Duration::from_millis(10) {
            return range(
                "--pin-check-every",
                format!("{:?}", self.pin_check_every),
                "at least 10ms",
            );
        }
        Ok(())
    }
}

/// The socket of a daemon that was told none: private to the user.
fn default_socket(runtime_dir: Option<&Path>) -> PathBuf {
    use std::os::unix::fs::MetadataExt as _;

    if let Some(dir) = runtime_dir.filter(|dir| dir.is_absolute()) {
        return dir.join("hearth").join("loader.sock");
    }
    let user = std::fs::metadata("/proc/self").map_or(0, |meta| meta.uid());
    PathBuf::from(format!("/tmp/hearth-{user}/loader.sock"))
}

fn handoff_beside(socket: &Path) -> PathBuf {
    let mut name = socket.as_os_str().to_owned();
    name.push(".handoff");
    PathBuf::from(name)
}

fn check_models(path: &Path) -> Result<(), ConfigError> {
    let reason = match std::fs::read_dir(path) {
        Ok(_) => return Ok(()),
        Err(error) => error.to_string(),
    };
    Err(ConfigError::Models {
        path: path.to_owned(),
        reason,
    })
}

fn check_socket(flag: &'static str, path: &Path) -> Result<(), ConfigError> {
    let bad = |reason| {
        Err(ConfigError::Socket {
            flag,
            path: path.to_owned(),
            reason,
        })
    };
    if path.file_name().is_none() || path.as_os_str().as_encoded_bytes().ends_with(b"/") {
        return bad("names no file");
    }
    if path.file_name().is_some_and(|name| name.to_str().is_none()) {
        return bad("its file name is not UTF-8, and clients are told it");
    }
    if path.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
        return bad("is longer than the 95 bytes that fit a socket's address");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
