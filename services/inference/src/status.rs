//! From errors to gRPC statuses with `google.rpc` details: the only place that does it.
//!
//! Every status carries `ErrorInfo` with a reason that programs can match, in the domain below. What went wrong inside this process goes to the log and the span, not to the caller.

use std::time::Duration;

use engine::{AttachError, EngineError, config::ConfigError, plan::PlanError};
use text::{TokenizerError, chat::ChatError};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use tracing::Span;
use weights::handoff::{AcceptError, Refusal};

use crate::error::{Chain, DaemonError, Error};

/// `ErrorInfo.domain` of every error of ours.
const DOMAIN: &str = "inference.hearth";
/// When to try again what was full: a queue moves on within seconds.
const RETRY_FULL: Duration = Duration::from_secs(1);
/// When to try again what was away: by then another replica answers, or the daemon is back.
const RETRY_AWAY: Duration = Duration::from_secs(2);
/// What a caller is told of faults of ours.
const FAULT: &str = "internal error; the service's log and the request's trace have the cause";

/// What the caller is told.
struct Outward {
    code: Code,
    /// `ErrorInfo.reason`.
    reason: &'static str,
    /// `ErrorInfo.metadata`.
    facts: Vec<(&'static str, String)>,
    details: ErrorDetails,
}

/// Makes a status of an error, and records the error with all its causes in the current span and, when it is ours to look at, in the log.
impl From<Error> for Status {
    fn from(error: Error) -> Status {
        let Outward {
            code,
            reason,
            facts,
            mut details,
        } = outward(&error);
        let chain = Chain(&error).to_string();
        Span::current().record("cause", chain.as_str());
        let message = if code == Code::Internal {
            tracing::error!(reason, cause = chain, "fault");
            FAULT.to_owned()
        } else {
            tracing::debug!(reason, cause = chain, "refused");
            told(&error)
        };
        let facts = facts
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value));
        details.set_error_info(
            reason,
            DOMAIN,
            facts.collect::<std::collections::HashMap<_, _>>(),
        );
        Status::with_error_details(code, message, details)
    }
}

/// What the caller reads. Why a model cannot be attached lies below the error that says so; elsewhere, what lies below is ours alone.
fn told(error: &Error) -> String {
    match error {
        Error::Accept { .. } | Error::Tokenizer { .. } | Error::Attach { .. } => {
            Chain(error).to_string()
        }
        _ => error.to_string(),
    }
}

/// The code that an error leaves with.
pub(crate) fn code(error: &Error) -> Code {
    outward(error).code
}

fn outward(error: &Error) -> Outward {
    match error {
        Error::Invalid { violations } => violations.iter().fold(
            Outward::new(Code::InvalidArgument, "INVALID_FIELD"),
            |outward, violation| outward.violation(&violation.field, &violation.reason),
        ),
        Error::NotServed { field } => {
            Outward::new(Code::Unimplemented, "FIELD_NOT_SERVED").fact("field", *field)
        }
        Error::UnknownModel { model, known } => Outward::new(Code::NotFound, "UNKNOWN_MODEL")
            .resource(model, error)
            .fact("known_models", known.join(" ")),
        Error::NotAttached { model, attached } => {
            Outward::new(Code::NotFound, "MODEL_NOT_ATTACHED")
                .resource(model, error)
                .fact("attached_models", attached.join(" "))
        }
        Error::AutoAttachOff { model } => {
            Outward::new(Code::FailedPrecondition, "MODEL_NOT_ATTACHED")
                .precondition("ATTACHED", model, error)
        }
        Error::Degraded { .. } => Outward::new(Code::DataLoss, "MODEL_DEGRADED"),
        Error::Draining => Outward::new(Code::Unavailable, "DRAINING").retry(RETRY_AWAY),
        Error::TooMany { limit } => Outward::new(Code::ResourceExhausted, "QUEUE_FULL")
            .quota("requests", error)
            .fact("limit", limit)
            .retry(RETRY_FULL),
        Error::MessageTooLarge { limit_bytes } => {
            Outward::new(Code::ResourceExhausted, "MESSAGE_TOO_LARGE")
                .quota("message", error)
                .fact("limit_bytes", limit_bytes)
        }
        Error::Deadline => Outward::new(Code::DeadlineExceeded, "DEADLINE"),
        Error::Daemon(error) => daemon(error),
        Error::Accept { model, source } => accept(model, source),
        Error::Tokenizer { model, source } => tokenizer(model, source),
        Error::Chat { model, source } => chat(model, source),
        Error::Attach { model, source } => attach(model, source),
        Error::Engine(error) => engine(error),
        Error::Lost { .. } => Outward::fault(),
    }
}

fn daemon(error: &DaemonError) -> Outward {
    match error {
        DaemonError::Away { .. } => {
            Outward::new(Code::Unavailable, "LOADER_AWAY").retry(RETRY_AWAY)
        }
        DaemonError::Refused { code, .. } => match code {
            Code::FailedPrecondition => Outward::new(Code::FailedPrecondition, "MODEL_INVALID")
                .precondition("VALID_MODEL", "", error),
            Code::ResourceExhausted => Outward::new(Code::ResourceExhausted, "LOADER_BUSY")
                .quota("leases", error)
                .retry(RETRY_FULL),
            Code::DataLoss => Outward::new(Code::DataLoss, "FILE_CHANGED"),
            Code::NotFound => Outward::new(Code::NotFound, "UNKNOWN_MODEL").resource("", error),
            Code::DeadlineExceeded => {
                Outward::new(Code::Unavailable, "LOADER_AWAY").retry(RETRY_AWAY)
            }
            Code::PermissionDenied => Outward::new(Code::PermissionDenied, "LOADER_DENIED"),
            // The caller did not speak to the daemon: whatever else it says is between us and it.
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::InvalidArgument
            | Code::AlreadyExists
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::Unauthenticated => Outward::fault(),
        },
        DaemonError::Malformed { .. } => Outward::fault(),
    }
}

fn accept(model: &str, error: &AcceptError) -> Outward {
    match error {
        AcceptError::Connect { .. } | AcceptError::Io(_) => {
            Outward::new(Code::Unavailable, "LOADER_AWAY").retry(RETRY_AWAY)
        }
        AcceptError::Version { .. } => Outward::new(Code::FailedPrecondition, "LOADER_VERSION")
            .precondition("LOADER_VERSION", model, error),
        AcceptError::Refused(refusal) => match refusal {
            Refusal::UnknownToken | Refusal::ShuttingDown => {
                Outward::new(Code::Unavailable, "LOADER_AWAY").retry(RETRY_AWAY)
            }
            Refusal::NotPermitted => Outward::new(Code::PermissionDenied, "LOADER_DENIED"),
            Refusal::Changed => Outward::new(Code::DataLoss, "FILE_CHANGED"),
            Refusal::Busy => Outward::new(Code::ResourceExhausted, "LOADER_BUSY")
                .quota("leases", error)
                .retry(RETRY_FULL),
            Refusal::Protocol | Refusal::Internal => Outward::fault(),
        },
        AcceptError::Open(_) => Outward::new(Code::FailedPrecondition, "MODEL_INVALID")
            .precondition("VALID_MODEL", model, error),
        AcceptError::Mismatch { .. } => Outward::new(Code::DataLoss, "FILE_CHANGED"),
        // Protocol violations and descriptors that are not what was promised; also what `weights` learns of later.
        _ => Outward::fault(),
    }
}

fn tokenizer(model: &str, error: &TokenizerError) -> Outward {
    match error {
        TokenizerError::UnsupportedModel { .. }
        | TokenizerError::UnsupportedPreTokenizer { .. } => {
            Outward::new(Code::Unimplemented, "TOKENIZER_NOT_SUPPORTED")
        }
        TokenizerError::Metadata(_)
        | TokenizerError::Empty
        | TokenizerError::Short { .. }
        | TokenizerError::TooLarge { .. }
        | TokenizerError::MissingSpecial { .. } => invalid_model(model, error),
    }
}

fn chat(model: &str, error: &ChatError) -> Outward {
    let because_of = |reason, field| {
        Outward::new(Code::InvalidArgument, reason).violation(field, &error.to_string())
    };
    let not_for = |reason| {
        Outward::new(Code::FailedPrecondition, reason).precondition("CHAT_TEMPLATE", model, error)
    };
    match error {
        ChatError::NoTemplate { .. } => not_for("NO_CHAT_TEMPLATE"),
        ChatError::Invalid { .. } => not_for("CHAT_TEMPLATE_INVALID"),
        ChatError::UnknownTemplate { .. } => {
            because_of("UNKNOWN_CHAT_TEMPLATE", "chat.template_kwargs_json")
        }
        ChatError::Refused { .. } => because_of("CHAT_REFUSED", "chat"),
        ChatError::Failed { .. } => because_of("CHAT_TEMPLATE_FAILED", "chat"),
        ChatError::TooMuch { .. } => because_of("CHAT_TOO_LARGE", "chat"),
        ChatError::Thread(_) => Outward::fault(),
    }
}

fn attach(model: &str, error: &AttachError) -> Outward {
    match error {
        AttachError::Config(config) => match config {
            ConfigError::Architecture { .. } => {
                Outward::new(Code::Unimplemented, "ARCHITECTURE_NOT_SUPPORTED")
            }
            ConfigError::Unsupported { .. } | ConfigError::Device { .. } => {
                Outward::new(Code::Unimplemented, "FEATURE_NOT_SUPPORTED")
            }
            ConfigError::Metadata(_) | ConfigError::Invalid { .. } => invalid_model(model, error),
        },
        AttachError::Plan(plan) => match plan {
            PlanError::TensorType { .. } => {
                Outward::new(Code::Unimplemented, "TENSOR_TYPE_NOT_SUPPORTED")
            }
            PlanError::Unused { .. } => Outward::new(Code::Unimplemented, "FEATURE_NOT_SUPPORTED"),
            PlanError::Missing(_) | PlanError::Shape { .. } => invalid_model(model, error),
        },
        AttachError::Vocabulary { .. } => invalid_model(model, error),
        AttachError::DoesNotFit {
            need_bytes,
            free_bytes,
            ..
        } => does_not_fit(model, *need_bytes, *free_bytes, error),
        AttachError::ShuttingDown => Outward::new(Code::Unavailable, "DRAINING").retry(RETRY_AWAY),
        // Single flight lets one attach of an id run at a time; threads run out when the process is at its limits.
        AttachError::AlreadyAttached { .. } | AttachError::Threads(_) => Outward::fault(),
    }
}

fn engine(error: &EngineError) -> Outward {
    match error {
        EngineError::UnknownModel { model, known } => {
            Outward::new(Code::NotFound, "MODEL_NOT_ATTACHED")
                .resource(model, error)
                .fact("attached_models", known.join(" "))
        }
        EngineError::PromptEmpty | EngineError::PromptTooLong { .. } => {
            Outward::new(Code::InvalidArgument, "INVALID_FIELD")
                .violation("prompt", &error.to_string())
        }
        EngineError::TokenOutOfRange { .. } => Outward::new(Code::InvalidArgument, "INVALID_FIELD")
            .violation("token_ids", &error.to_string()),
        EngineError::Invalid { field, reason } => {
            Outward::new(Code::InvalidArgument, "INVALID_FIELD").violation(field, reason)
        }
        EngineError::DoesNotFit {
            need_bytes,
            free_bytes,
            ..
        } => does_not_fit("", *need_bytes, *free_bytes, error),
        EngineError::QueueFull { max_queued } => {
            Outward::new(Code::ResourceExhausted, "QUEUE_FULL")
                .quota("requests", error)
                .fact("limit", max_queued)
                .retry(RETRY_FULL)
        }
        // One sequence alone is larger than the whole cache: no later time is better.
        EngineError::KvFull {
            need_blocks,
            total_blocks,
        } => Outward::new(Code::ResourceExhausted, "KV_CACHE_FULL")
            .quota("kv_cache", error)
            .fact("need_blocks", need_blocks)
            .fact("total_blocks", total_blocks),
        EngineError::SlowClient { .. } => Outward::new(Code::ResourceExhausted, "SLOW_CLIENT")
            .quota("unread_events", error)
            .retry(RETRY_FULL),
        EngineError::DeadlineExceeded => Outward::new(Code::DeadlineExceeded, "DEADLINE"),
        EngineError::Cancelled => Outward::new(Code::Cancelled, "CANCELLED"),
        EngineError::Unloaded { .. } => Outward::new(Code::Cancelled, "MODEL_UNLOADED"),
        EngineError::Fetch { .. } => {
            Outward::new(Code::Unavailable, "FETCH_FAILED").retry(RETRY_AWAY)
        }
        EngineError::DataLoss { .. } => Outward::new(Code::DataLoss, "FILE_CHANGED"),
        EngineError::ShuttingDown => Outward::new(Code::Unavailable, "DRAINING").retry(RETRY_AWAY),
        EngineError::DeviceMemory { .. } => Outward::new(Code::ResourceExhausted, "DEVICE_MEMORY")
            .quota("device_memory", error)
            .retry(RETRY_FULL),
        EngineError::Device(_) => Outward::fault(),
    }
}

fn invalid_model(model: &str, error: &dyn std::error::Error) -> Outward {
    Outward::new(Code::FailedPrecondition, "MODEL_INVALID").precondition(
        "VALID_MODEL",
        model,
        error,
    )
}

fn does_not_fit(
    model: &str,
    need_bytes: u64,
    free_bytes: u64,
    error: &dyn std::error::Error,
) -> Outward {
    Outward::new(Code::FailedPrecondition, "DOES_NOT_FIT")
        .precondition("MEMORY", model, error)
        .fact("need_bytes", need_bytes)
        .fact("free_bytes", free_bytes)
        .fact("shortfall_bytes", need_bytes.saturating_sub(free_bytes))
}

// === impl Outward ===

impl Outward {
    fn new(code: Code, reason: &'static str) -> Outward {
        Outward {
            code,
            reason,
            facts: Vec::new(),
            details: ErrorDetails::new(),
        }
    }

    fn fault() -> Outward {
        Outward::new(Code::Internal, "INTERNAL")
    }

    fn fact(mut self, key: &'static str, value: impl ToString) -> Outward {
        self.facts.push((key, value.to_string()));
        self
    }

    fn retry(mut self, delay: Duration) -> Outward {
        self.details.set_retry_info(Some(delay));
        self
    }

    fn violation(mut self, field: &str, reason: &str) -> Outward {
        self.details.add_bad_request_violation(field, reason);
        self
    }

    fn quota(mut self, subject: &str, error: &dyn std::error::Error) -> Outward {
        self.details
            .add_quota_failure_violation(subject, error.to_string());
        self
    }

    fn precondition(mut self, kind: &str, subject: &str, error: &dyn std::error::Error) -> Outward {
        self.details
            .add_precondition_failure_violation(kind, subject, Chain(error).to_string());
        self
    }

    fn resource(mut self, name: &str, error: &dyn std::error::Error) -> Outward {
        self.details
            .set_resource_info("model", name, "", error.to_string());
        self
    }
}

#[cfg(test)]
mod tests;
