//! A node as Kubernetes would run it: one loader daemon, and inference services beside it, each a process of its own on sockets of its own.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use proto::inference::v1::inference_service_client::InferenceServiceClient;
use proto::inference::v1::model_service_client::ModelServiceClient;
use proto::loader::v1::loader_service_client::LoaderServiceClient;
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

use crate::client;

/// How long anything may take before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A folder for one test's models and sockets, on the file system of the build directory: a temporary directory in memory has no page cache to be cold.
///
/// # Panics
/// If it cannot be made.
#[must_use]
pub fn workspace() -> TempDir {
    let executable = std::env::current_exe().expect("a test knows its own path");
    let target = executable
        .ancestors()
        .nth(2)
        .expect("tests run from target/PROFILE/deps")
        .to_owned();
    tempfile::Builder::new()
        .prefix("e2e-")
        .tempdir_in(target)
        .expect("the build directory is writable")
}

/// A child process that is killed when its value goes, and whose log is shown when a test fails.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    fn spawn(mut command: Command, log: PathBuf) -> Process {
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .expect("the log file opens");
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a descriptor is free"))
            .stderr(output);
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        Process { child, log }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// If the process is gone.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("the process lives");
    }

    /// Kills it at once and waits until it is gone.
    pub fn kill(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it does not end within [`PATIENCE`].
    pub fn wait(&mut self) -> ExitStatus {
        let give_up = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return status;
            }
            assert!(
                Instant::now() < give_up,
                "the process does not end:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether it still runs.
    pub fn alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// All that it has written to stdout and stderr.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the log of a failed test belongs on its stderr"
)]
impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(Some(status)) = self.child.try_wait()
            && let Some(signal) = status.signal()
            && signal != Signal::SIGKILL as i32
        {
            eprintln!("{} died of signal {signal}", self.log.display());
        }
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- {} ---\n{}", self.log.display(), self.log());
        }
    }
}

/// How to start a service: the executable, and the user to run it as.
#[derive(Debug, Clone, Default)]
pub struct Launch {
    flags: Vec<String>,
    environment: Vec<(String, String)>,
    uid: Option<u32>,
}

impl Launch {
    /// With no flags but the necessary ones.
    #[must_use]
    pub fn new() -> Launch {
        Launch::default()
    }

    /// Adds flags.
    #[must_use]
    pub fn flags<S: AsRef<str>>(mut self, flags: impl IntoIterator<Item = S>) -> Launch {
        self.flags
            .extend(flags.into_iter().map(|flag| flag.as_ref().to_owned()));
        self
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Launch {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs as another user of the same group, which needs root. The group is what opens the daemon's sockets.
    #[must_use]
    pub fn uid(mut self, uid: u32) -> Launch {
        self.uid = Some(uid);
        self
    }

    fn command(&self, service: &str) -> Command {
        use std::os::unix::process::CommandExt as _;

        let executable = std::env::current_exe().expect("a program knows its own path");
        // Tests run from target/PROFILE/deps, benches from target/PROFILE, where the services' executable is.
        let node = executable
            .ancestors()
            .skip(1)
            .take(2)
            .map(|folder| folder.join("e2e-node"))
            .find(|node| node.is_file());
        let node = node.unwrap_or_else(|| {
            panic!(
                "no e2e-node near {}: run this through cargo",
                executable.display()
            )
        });
        let mut command = Command::new(node);
        command
            .arg(service)
            .args(&self.flags)
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some(uid) = self.uid {
            command.uid(uid);
        }
        command
    }
}

/// A running loader daemon.
#[derive(Debug)]
pub struct Daemon {
    /// The process.
    pub process: Process,
    /// Its gRPC socket.
    pub socket: PathBuf,
}

impl Daemon {
    /// Starts a daemon over `models` with its sockets in `home`, and waits until it serves.
    ///
    /// # Panics
    /// If it does not serve within [`PATIENCE`].
    pub async fn start(home: &Path, models: &Path, launch: &Launch) -> Daemon {
        let socket = home.join("loader.sock");
        let mut command = launch.command("loader");
        command
            .arg("--models")
            .arg(models)
            .arg("--socket")
            .arg(&socket);
        let mut daemon = Daemon {
            process: Process::spawn(command, home.join("loader.log")),
            socket,
        };
        serving(
            &daemon.socket,
            "hearth.loader.v1.LoaderService",
            &mut daemon.process,
        )
        .await;
        daemon
    }

    /// A client of this daemon.
    pub async fn client(&self) -> LoaderServiceClient<Channel> {
        LoaderServiceClient::new(
            client::connect(&self.socket)
                .await
                .expect("the daemon listens"),
        )
    }
}

/// A running inference service.
#[derive(Debug)]
pub struct Service {
    /// The process.
    pub process: Process,
    /// Its gRPC socket.
    pub socket: PathBuf,
}

impl Service {
    /// Starts a service named `name` on `daemon`, and waits until it serves.
    ///
    /// # Panics
    /// If it does not serve within [`PATIENCE`].
    pub async fn start(home: &Path, name: &str, daemon: &Daemon, launch: &Launch) -> Service {
        let mut service = Service::spawn(home, name, daemon, launch);
        serving(
            &service.socket,
            "hearth.inference.v1.InferenceService",
            &mut service.process,
        )
        .await;
        service
    }

    /// Starts a service without waiting for it.
    #[must_use]
    pub fn spawn(home: &Path, name: &str, daemon: &Daemon, launch: &Launch) -> Service {
        let socket = home.join(format!("{name}.sock"));
        let mut command = launch.command("inference");
        command
            .arg("--listen")
            .arg(format!("unix:{}", socket.display()))
            .arg("--loader-socket")
            .arg(&daemon.socket);
        Service {
            process: Process::spawn(command, home.join(format!("{name}.log"))),
            socket,
        }
    }

    /// A client of its `InferenceService`. Every call makes a connection of its own.
    pub async fn client(&self) -> InferenceServiceClient<Channel> {
        let channel = client::connect(&self.socket)
            .await
            .expect("the service listens");
        InferenceServiceClient::new(channel)
            .max_decoding_message_size(256 << 20)
            .max_encoding_message_size(256 << 20)
    }

    /// A client of its `ModelService`.
    pub async fn models(&self) -> ModelServiceClient<Channel> {
        ModelServiceClient::new(
            client::connect(&self.socket)
                .await
                .expect("the service listens"),
        )
    }
}

/// Waits until `service` is SERVING on `socket`.
///
/// # Panics
/// If it is not within [`PATIENCE`], or if the process ends.
pub async fn serving(socket: &Path, service: &str, process: &mut Process) {
    let give_up = Instant::now() + PATIENCE;
    loop {
        if health(socket, service).await == Some(ServingStatus::Serving) {
            return;
        }
        assert!(process.alive(), "the process ended:\n{}", process.log());
        assert!(
            Instant::now() < give_up,
            "{service} is not serving:\n{}",
            process.log()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What health says of a service; `None` where nobody answers.
pub async fn health(socket: &Path, service: &str) -> Option<ServingStatus> {
    let mut client = HealthClient::new(client::connect(socket).await.ok()?);
    let answer = client
        .check(HealthCheckRequest {
            service: service.to_owned(),
        })
        .await
        .ok()?;
    ServingStatus::try_from(answer.into_inner().status).ok()
}
