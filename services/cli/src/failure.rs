//! Everything that can end a command, as one line and an exit status.
//!
//! Exit statuses are those of `sysexits.h`, so that a script can tell a typing mistake (64) from a service that is away (69) or busy (75).

use std::{io, path::PathBuf, process::ExitCode};

use tonic::{Code, Status};

use crate::{
    address::{Address, Peer},
    output, status_text,
};

/// Why a command ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line asks for something that cannot be.
    #[error("{0}")]
    Usage(String),
    /// Nobody answers at an address.
    #[error("cannot reach the {peer} at {address}: {reason}; {}", way_to(*peer))]
    Unreachable {
        peer: Peer,
        address: Address,
        reason: String,
    },
    /// Somebody else has the address that a service is to listen on.
    #[error("cannot start the {peer}: another process listens on {address} already")]
    Occupied { peer: Peer, address: Address },
    /// A service refused or failed.
    #[error("cannot {doing}: {}", status_text::render(status))]
    Rpc { doing: String, status: Box<Status> },
    /// A service broke its contract.
    #[error("cannot {doing}: {what}")]
    Protocol { doing: String, what: &'static str },
    /// A file or folder cannot be used.
    #[error("{}: {source}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A file is not a GGUF file that Hearth could serve.
    #[error("{}: {source}", path.display())]
    Gguf {
        path: PathBuf,
        #[source]
        source: gguf::ParseError,
    },
    /// A service that this process started is not what it should be.
    #[error("{0}")]
    Child(String),
    /// A standard stream cannot be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    /// The user had enough.
    #[error("interrupted")]
    Interrupted,
}

impl Failure {
    /// For `map_err` on a call: `doing` completes "cannot …".
    pub(crate) fn rpc(doing: impl Into<String>) -> impl FnOnce(Status) -> Failure {
        let doing = doing.into();
        move |status| Failure::Rpc {
            doing,
            status: Box::new(status),
        }
    }

    /// For `map_err` on a file operation.
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Failure {
        let path = path.into();
        move |source| Failure::File { path, source }
    }

    /// Says what happened on standard error, unless the reader of a pipe merely left, and returns the exit status.
    pub(crate) fn report(&self) -> ExitCode {
        if !self.is_closed_pipe() {
            self.say();
        }
        ExitCode::from(self.exit_status())
    }

    /// Says what happened on standard error.
    pub(crate) fn say(&self) {
        let mut stderr = output::stderr();
        let label = stderr.style.red("hearth:");
        // Nothing is left to tell a failure of standard error to.
        let _ = stderr.line(format!("{label} {}", output::one_line(&self.to_string())));
    }

    /// Whether nothing can be done after it, whatever the user types.
    pub(crate) fn ends_everything(&self) -> bool {
        matches!(self, Failure::Output(_) | Failure::File { .. })
    }

    fn is_closed_pipe(&self) -> bool {
        matches!(self, Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    fn exit_status(&self) -> u8 {
        match self {
            Failure::Usage(_) => exit::USAGE,
            Failure::Unreachable { .. } | Failure::Occupied { .. } => exit::UNAVAILABLE,
            Failure::Rpc { status, .. } => exit_of(status.code()),
            Failure::Protocol { .. } => exit::PROTOCOL,
            Failure::File { source, .. } => match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::IsADirectory => exit::NO_INPUT,
                io::ErrorKind::PermissionDenied => exit::NO_PERMISSION,
                _ => exit::IO,
            },
            Failure::Gguf { .. } => exit::DATA,
            Failure::Child(_) => exit::SOFTWARE,
            Failure::Output(_) if self.is_closed_pipe() => 0,
            Failure::Output(_) => exit::IO,
            Failure::Interrupted => exit::INTERRUPTED,
        }
    }
}

/// `sysexits.h`, and what a shell says of a process that SIGINT ended.
pub(crate) mod exit {
    pub(crate) const USAGE: u8 = 64;
    pub(crate) const DATA: u8 = 65;
    pub(crate) const NO_INPUT: u8 = 66;
    pub(crate) const UNAVAILABLE: u8 = 69;
    pub(crate) const SOFTWARE: u8 = 70;
    pub(crate) const IO: u8 = 74;
    pub(crate) const TEMPORARY: u8 = 75;
    pub(crate) const PROTOCOL: u8 = 76;
    pub(crate) const NO_PERMISSION: u8 = 77;
    pub(crate) const CONFIG: u8 = 78;
    pub(crate) const INTERRUPTED: u8 = 130;
}

fn exit_of(code: Code) -> u8 {
    match code {
        Code::Ok => 0,
        Code::InvalidArgument | Code::OutOfRange => exit::USAGE,
        Code::DataLoss => exit::DATA,
        Code::NotFound => exit::NO_INPUT,
        Code::Unavailable | Code::Unimplemented => exit::UNAVAILABLE,
        Code::ResourceExhausted | Code::DeadlineExceeded | Code::Cancelled | Code::Aborted => {
            exit::TEMPORARY
        }
        Code::Unauthenticated | Code::PermissionDenied => exit::NO_PERMISSION,
        Code::FailedPrecondition | Code::AlreadyExists => exit::CONFIG,
        Code::Internal | Code::Unknown => exit::SOFTWARE,
    }
}

fn way_to(peer: Peer) -> &'static str {
    match peer {
        Peer::Inference => "start one with `hearth up --models DIR`, or name another with --server",
        Peer::Loader => {
            "start one with `hearth up --models DIR`, or name another with --loader-socket"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_is_away_says_how_to_start_one() {
        let failure = Failure::Unreachable {
            peer: Peer::Inference,
            address: Address::Tcp("127.0.0.1:1".into()),
            reason: "connection refused".into(),
        };
        assert_eq!(
            failure.to_string(),
            "cannot reach the inference service at 127.0.0.1:1: connection refused; start one with `hearth up --models DIR`, or name another with --server"
        );
        assert_eq!(failure.exit_status(), 69);
    }

    #[test]
    fn a_reader_that_left_is_no_failure() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(failure.exit_status(), 0);
        assert_eq!(
            Failure::from(io::Error::from(io::ErrorKind::StorageFull)).exit_status(),
            74
        );
    }

    #[test]
    fn exit_statuses_tell_causes_apart() {
        for (code, expected) in [
            (Code::InvalidArgument, 64),
            (Code::DataLoss, 65),
            (Code::NotFound, 66),
            (Code::Unavailable, 69),
            (Code::Internal, 70),
            (Code::ResourceExhausted, 75),
            (Code::PermissionDenied, 77),
            (Code::FailedPrecondition, 78),
        ] {
            assert_eq!(exit_of(code), expected, "{code:?}");
        }
    }
}
