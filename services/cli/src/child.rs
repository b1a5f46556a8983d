//! A service as a child process.
//!
//! Children are started from the main thread: the kernel's promise to kill them with their parent is bound to the thread that made them.
//! They get process groups of their own, so that Ctrl-C reaches only the parent, which then ends them in the right order.

use std::{
    env, fs,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use proto::{inference::v1::inference_service_server, loader::v1::loader_service_server};
use tokio::{
    process::Command,
    time::{self, MissedTickBehavior},
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{
    address::{Address, Peer},
    failure::Failure,
    output,
    service::PARENT_FLAG,
    units,
};

/// Between two looks at the health of a service that is starting.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// After this long, a person is told what is being waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much of a log is quoted when its writer fails.
const LOG_TAIL_LINES: usize = 8;

/// Where a child's standard error goes.
#[derive(Clone, Debug)]
pub(crate) enum Log {
    /// To this process's own.
    Inherit,
    /// To a file, quoted when the child fails.
    File(PathBuf),
}

/// What to start.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) peer: Peer,
    /// Flags of the service.
    pub(crate) args: Vec<String>,
    /// Where it will listen.
    pub(crate) address: Address,
    pub(crate) log: Log,
    /// Keep `HEARTH_*` variables, which would set further flags, from the child.
    pub(crate) private: bool,
}

/// A running service. Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Child {
    peer: Peer,
    process: tokio::process::Child,
    address: Address,
    log: Log,
}

impl Plan {
    /// Starts the service and waits until it says that it serves.
    ///
    /// # Errors
    /// [`Failure::Occupied`] if somebody else answers at the address already, [`Failure::Child`] if the process does not start or dies.
    pub(crate) async fn start(&self) -> Result<Child, Failure> {
        if self.address.connect(self.peer).await.is_ok() {
            return Err(Failure::Occupied {
                peer: self.peer,
                address: self.address.clone(),
            });
        }
        let mut child = self.spawn()?;
        child.serving().await?;
        Ok(child)
    }

    fn spawn(&self) -> Result<Child, Failure> {
        let failed = |what: &str, error: std::io::Error| {
            Failure::Child(format!("cannot start the {}: {what}: {error}", self.peer))
        };
        let program = own_executable().map_err(|error| failed("this executable", error))?;
        let subcommand = match self.peer {
            Peer::Inference => "inference",
            Peer::Loader => "loader",
        };
        let mut command = Command::new(&program);
        command
            .arg(subcommand)
            .args(&self.args)
            .arg(PARENT_FLAG)
            .arg(std::process::id().to_string());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0)
            .kill_on_drop(true);
        if let Log::File(path) = &self.log {
            let file = fs::File::options().create(true).append(true).open(path);
            command.stderr(file.map_err(|error| failed("its log", error))?);
        }
        if self.private {
            let variables = env::vars_os().map(|(name, _)| name);
            let ours = variables.filter(|name| name.as_encoded_bytes().starts_with(b"HEARTH_"));
            ours.for_each(|name| {
                command.env_remove(name);
            });
        }
        let process = command
            .spawn()
            .map_err(|error| failed("the process", error))?;
        Ok(Child {
            peer: self.peer,
            process,
            address: self.address.clone(),
            log: self.log.clone(),
        })
    }
}

impl Child {
    /// Resolves when the process has ended; may be dropped and called again.
    pub(crate) async fn ended(&mut self) -> Failure {
        let what = match self.process.wait().await {
            Ok(status) => status_words(status),
            Err(error) => format!("cannot be waited for: {error}"),
        };
        Failure::Child(format!("the {} {what}{}", self.peer, self.log_tail()))
    }

    /// The process's id, for people.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.id()
    }

    /// Ends the process at once, as a crash would.
    pub(crate) async fn kill(mut self) -> Result<(), Failure> {
        self.process
            .kill()
            .await
            .map_err(|error| Failure::Child(format!("cannot kill the {}: {error}", self.peer)))
    }

    /// Asks the process to drain and end; kills it if it is still there after `patience`.
    ///
    /// # Errors
    /// [`Failure::Child`] if it had to be killed or did not end well.
    pub(crate) async fn stop(mut self, patience: Duration) -> Result<(), Failure> {
        self.ask_to_end();
        match time::timeout(patience, self.process.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(Failure::Child(format!(
                "the {} {}{}",
                self.peer,
                status_words(status),
                self.log_tail()
            ))),
            Ok(Err(error)) => Err(Failure::Child(format!(
                "the {} cannot be waited for: {error}",
                self.peer
            ))),
            Err(_) => {
                let peer = self.peer;
                self.kill().await?;
                Err(Failure::Child(format!(
                    "the {peer} was still draining after {} and was killed",
                    units::duration(patience)
                )))
            }
        }
    }

    fn ask_to_end(&self) {
        if let Some(pid) = self.process.id().and_then(|pid| i32::try_from(pid).ok()) {
            // A process that is gone already needs no signal, and no other process has its id before it is waited for.
            let _ = signal::kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
    }

    /// Waits until the health service says that the process serves.
    async fn serving(&mut self) -> Result<(), Failure> {
        let (address, peer) = (self.address.clone(), self.peer);
        tokio::select! {
            failure = self.ended() => Err(failure),
            () = serves(&address, peer) => Ok(()),
            never = still_waiting(peer) => Err(never),
        }
    }

    fn log_tail(&self) -> String {
        match &self.log {
            Log::Inherit => String::new(),
            Log::File(path) => tail_words(&fs::read_to_string(path).unwrap_or_default(), path),
        }
    }
}

async fn serves(address: &Address, peer: Peer) {
    let mut looks = time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let name = match peer {
        Peer::Inference => inference_service_server::SERVICE_NAME,
        Peer::Loader => loader_service_server::SERVICE_NAME,
    };
    loop {
        looks.tick().await;
        let Ok(channel) = address.connect(peer).await else {
            continue;
        };
        let request = HealthCheckRequest {
            service: name.to_owned(),
        };
        let answer = HealthClient::new(channel).check(request).await;
        if answer.is_ok_and(|answer| answer.get_ref().status() == ServingStatus::Serving) {
            return;
        }
    }
}

/// Says now and then what is being waited for; ends only when standard error does.
async fn still_waiting(peer: Peer) -> Failure {
    let mut stderr = output::stderr();
    loop {
        time::sleep(PATIENCE).await;
        if let Err(error) = stderr.line(format!("hearth: still waiting for the {peer} to be ready"))
        {
            return error.into();
        }
    }
}

/// The file of this process, or the kernel's own handle on it if the file was replaced since (a rebuild does that).
fn own_executable() -> std::io::Result<PathBuf> {
    let path = env::current_exe()?;
    Ok(if path.exists() {
        path
    } else {
        PathBuf::from("/proc/self/exe")
    })
}

fn status_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit status {code}"),
        (None, Some(number)) => match Signal::try_from(number) {
            Ok(signal) => format!("was killed by signal {number} ({signal})"),
            Err(_) => format!("was killed by signal {number}"),
        },
        (None, None) => format!("ended: {status}"),
    }
}

/// The last lines of a log, on one line.
fn tail_words(log: &str, path: &Path) -> String {
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    let tail = &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..];
    if tail.is_empty() {
        return format!("; its log {} is empty", path.display());
    }
    format!("; its log ends: {}", tail.join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_name_code_or_signal() {
        assert_eq!(
            status_words(ExitStatus::from_raw(70 << 8)),
            "ended with exit status 70"
        );
        assert_eq!(
            status_words(ExitStatus::from_raw(9)),
            "was killed by signal 9 (SIGKILL)"
        );
    }

    #[test]
    fn the_end_of_a_log_is_quoted() {
        let log: String = (0..20).map(|line| format!("line {line}\n")).collect();
        let words = tail_words(&log, Path::new("/x"));
        assert!(
            words.starts_with("; its log ends: line 12 | ") && words.ends_with("line 19"),
            "{words}"
        );
        assert_eq!(tail_words("\n", Path::new("/x")), "; its log /x is empty");
    }
}
