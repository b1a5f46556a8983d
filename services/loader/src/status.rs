//! From errors to gRPC statuses with `google.rpc` details: the only place that does it.
//!
//! Every status carries `ErrorInfo` with a reason that programs can match, in the domain below. What went wrong inside this process is told to the log, not to the caller.

use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use weights::FetchError;

use crate::error::Error;

/// `ErrorInfo.domain` of every error of ours.
const DOMAIN: &str = "loader.hearth";
/// When to try again after a limit was hit: leases and prefetches end within seconds.
const RETRY_BUSY: Duration = Duration::from_secs(1);
/// When to try again after a shutdown: by then another daemon is up, or none will be.
const RETRY_RESTART: Duration = Duration::from_secs(2);

impl From<Error> for Status {
    fn from(error: Error) -> Status {
        let (code, reason) = code_and_reason(&error);
        let mut details = details(&error);
        details.set_error_info(reason, DOMAIN, facts(&error));
        let message = match code {
            Code::Internal => {
                tracing::error!(error = &error as &dyn std::error::Error, "internal error");
                "internal error; the daemon's log has the cause".to_owned()
            }
            _ => error.to_string(),
        };
        Status::with_error_details(code, message, details)
    }
}

fn code_and_reason(error: &Error) -> (Code, &'static str) {
    match error {
        Error::UnknownModel { .. } => (Code::NotFound, "UNKNOWN_MODEL"),
        Error::InvalidModel { .. } => (Code::FailedPrecondition, "INVALID_MODEL"),
        Error::UnknownLease => (Code::NotFound, "UNKNOWN_LEASE"),
        Error::UnknownTensor(_) => (Code::NotFound, "UNKNOWN_TENSOR"),
        Error::OutOfRange { .. } => (Code::OutOfRange, "OUT_OF_RANGE"),
        Error::BadField { .. } => (Code::InvalidArgument, "BAD_FIELD"),
        Error::TooMany { .. } => (Code::ResourceExhausted, "TOO_MANY"),
        Error::WatcherBehind { .. } => (Code::ResourceExhausted, "WATCHER_BEHIND"),
        Error::AnswerTooLong { .. } => (Code::ResourceExhausted, "ANSWER_TOO_LONG"),
        Error::OverBudget { .. } => (Code::FailedPrecondition, "OVER_CACHE_BUDGET"),
        Error::Changed { .. } => (Code::DataLoss, "FILE_CHANGED"),
        Error::Fetch { source, .. } => fetch_code(source),
        Error::Residency { .. } => (Code::FailedPrecondition, "RESIDENCY_UNKNOWN"),
        Error::Deadline => (Code::DeadlineExceeded, "DEADLINE"),
        Error::ShuttingDown => (Code::Unavailable, "SHUTTING_DOWN"),
        Error::System { .. } | Error::WorkerDied => (Code::Internal, "INTERNAL"),
    }
}

fn fetch_code(error: &FetchError) -> (Code, &'static str) {
    match error {
        FetchError::Truncated { .. } | FetchError::Poisoned { .. } => {
            (Code::DataLoss, "FILE_TRUNCATED")
        }
        FetchError::Changed { .. } => (Code::DataLoss, "FILE_CHANGED"),
        FetchError::Stopped => (Code::Unavailable, "SHUTTING_DOWN"),
        // An error that `weights` learns of later is ours to look at, not the caller's.
        _ => (Code::Internal, "INTERNAL"),
    }
}

/// The details that the code calls for, besides `ErrorInfo`.
fn details(error: &Error) -> ErrorDetails {
    let why = error.to_string();
    match error {
        Error::UnknownModel { model, .. } => {
            ErrorDetails::with_resource_info("model", model.as_str(), "", why)
        }
        Error::UnknownLease => ErrorDetails::with_resource_info("lease", "", "", why),
        Error::UnknownTensor(_) => ErrorDetails::with_resource_info("tensor", "", "", why),
        Error::BadField { field, rule } => ErrorDetails::with_bad_request_violation(*field, *rule),
        Error::OutOfRange { .. } => ErrorDetails::with_bad_request_violation("offset_bytes", why),
        Error::TooMany { what, .. } => {
            let mut details = ErrorDetails::with_quota_failure_violation(*what, why);
            details.set_retry_info(Some(RETRY_BUSY));
            details
        }
        Error::WatcherBehind { .. } => ErrorDetails::with_retry_info(Some(Duration::ZERO)),
        Error::InvalidModel { model, .. } => {
            ErrorDetails::with_precondition_failure_violation("VALID_MODEL", model.as_str(), why)
        }
        Error::OverBudget { model, .. } => {
            ErrorDetails::with_precondition_failure_violation("CACHE_BUDGET", model.as_str(), why)
        }
        Error::Residency { model, .. } => {
            ErrorDetails::with_precondition_failure_violation("RESIDENCY", model.as_str(), why)
        }
        Error::ShuttingDown
        | Error::Fetch {
            source: FetchError::Stopped,
            ..
        } => ErrorDetails::with_retry_info(Some(RETRY_RESTART)),
        Error::AnswerTooLong { .. }
        | Error::Changed { .. }
        | Error::Fetch { .. }
        | Error::Deadline
        | Error::System { .. }
        | Error::WorkerDied => ErrorDetails::new(),
    }
}

/// `ErrorInfo.metadata`: the figures and names that a program may want.
fn facts(error: &Error) -> HashMap<String, String> {
    let facts: Vec<(&str, String)> = match error {
        Error::UnknownModel { known, .. } => vec![("known_models", known.join(" "))],
        Error::OverBudget {
            need_bytes,
            free_bytes,
            ..
        } => vec![
            ("need_bytes", need_bytes.to_string()),
            ("free_bytes", free_bytes.to_string()),
            (
                "shortfall_bytes",
                need_bytes.saturating_sub(*free_bytes).to_string(),
            ),
        ],
        Error::OutOfRange { tensor_bytes, .. } => vec![("tensor_bytes", tensor_bytes.to_string())],
        Error::TooMany { limit, .. } => vec![("limit", limit.to_string())],
        Error::WatcherBehind { missed } => vec![("missed", missed.to_string())],
        Error::AnswerTooLong { bytes, limit } => {
            vec![("bytes", bytes.to_string()), ("limit", limit.to_string())]
        }
        Error::InvalidModel { .. }
        | Error::UnknownLease
        | Error::UnknownTensor(_)
        | Error::BadField { .. }
        | Error::Changed { .. }
        | Error::Fetch { .. }
        | Error::Residency { .. }
        | Error::Deadline
        | Error::ShuttingDown
        | Error::System { .. }
        | Error::WorkerDied => Vec::new(),
    };
    facts
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

#[cfg(test)]
mod tests;
