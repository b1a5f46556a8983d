//! The two services inside this executable: hidden subcommands that run them, bound to the life of the process that started them.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser};
use nix::{
    sys::{prctl, signal::Signal},
    unistd::{Pid, getppid},
};

use crate::failure::Failure;

/// Name of the flag that ties a service to its parent.
pub(crate) const PARENT_FLAG: &str = "--parent-pid";

/// A service, run by `hearth up` or `hearth demo`.
#[derive(Args, Debug)]
pub(crate) struct Service<F: Args> {
    /// Die with this process, which must be the parent
    #[arg(long, value_name = "PID", hide = true)]
    parent_pid: Option<i32>,
    #[command(flatten)]
    flags: F,
}

impl Service<loader::Flags> {
    /// Runs the loader daemon until it ends.
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        bind_to_parent(self.parent_pid)?;
        Ok(loader::main_with(self.flags))
    }
}

impl Service<inference::Flags> {
    /// Runs the inference service until it ends.
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        bind_to_parent(self.parent_pid)?;
        Ok(inference::main_with(self.flags))
    }
}

/// Asks the kernel to kill this process when its parent dies, however it dies.
///
/// The parent may be gone before the kernel was asked, and then nothing would ever come: so its id is compared afterwards.
fn bind_to_parent(expected: Option<i32>) -> Result<(), Failure> {
    let Some(expected) = expected else {
        return Ok(());
    };
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|errno| {
        Failure::Child(format!("cannot be bound to the parent process: {errno}"))
    })?;
    let parent = getppid();
    if parent == Pid::from_raw(expected) {
        Ok(())
    } else {
        Err(Failure::Child(format!(
            "process {expected}, which started this one, is gone"
        )))
    }
}

/// The daemon's flags alone, to check values before a child gets them.
#[derive(Parser)]
struct LoaderLine {
    #[command(flatten)]
    flags: loader::Flags,
}

/// The inference service's flags alone.
#[derive(Parser)]
struct InferenceLine {
    #[command(flatten)]
    flags: inference::Flags,
}

/// Checks flags for the daemon as the daemon will.
pub(crate) fn check_loader(args: &[String]) -> Result<loader::Config, Failure> {
    let line = LoaderLine::try_parse_from(with_program(args)).map_err(usage)?;
    line.flags
        .validated()
        .map_err(|error| Failure::Usage(error.to_string()))
}

/// Checks flags for the inference service as the service will.
pub(crate) fn check_inference(args: &[String]) -> Result<inference::Config, Failure> {
    let line = InferenceLine::try_parse_from(with_program(args)).map_err(usage)?;
    line.flags
        .validated()
        .map_err(|error| Failure::Usage(error.to_string()))
}

/// Where a daemon that is told no socket puts it.
pub(crate) fn default_loader_socket() -> Result<PathBuf, Failure> {
    // Only the socket is of interest; the root directory is a model directory that is always there.
    check_loader(&["--models".to_owned(), "/".to_owned()]).map(|config| config.socket)
}

fn with_program(args: &[String]) -> impl Iterator<Item = &str> {
    std::iter::once("hearth").chain(args.iter().map(String::as_str))
}

/// The first paragraph of clap's message, without its label: what is wrong, and what would be right.
fn usage(error: clap::Error) -> Failure {
    let text = error.to_string();
    let paragraph: Vec<&str> = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.is_empty())
        .collect();
    let words = paragraph.join(" ");
    Failure::Usage(words.trim_start_matches("error: ").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_without_a_parent_to_follow_is_free() {
        assert!(bind_to_parent(None).is_ok());
    }

    #[test]
    fn flags_are_checked_as_the_service_does() {
        let args = |list: &[&str]| list.iter().map(|&arg| arg.to_owned()).collect::<Vec<_>>();
        assert!(check_loader(&args(&["--models", "/"])).is_ok());
        let message = |list| check_loader(&args(list)).expect_err("refused").to_string();
        assert!(message(&["--models", "/nowhere/at/all"]).contains("/nowhere/at/all"));
        assert!(message(&["--models", "/", "--cache-budget", "much"]).contains("--cache-budget"));
    }
}
