mod models;
mod requests;

use std::{io, sync::Arc};

use engine::Resource;
use tonic_types::StatusExt as _;
use weights::{Directory, ExtentId};

use super::*;
use crate::error::Violation;

/// A status as a line: code, reason, and which details it carries.
fn seen(error: Error) -> String {
    let status = Status::from(error);
    let details = status.get_error_details();
    let info = details
        .error_info()
        .expect("every status carries ErrorInfo");
    assert_eq!(info.domain, DOMAIN);
    let carried = [
        (details.bad_request().is_some(), "fields"),
        (details.resource_info().is_some(), "resource"),
        (details.retry_info().is_some(), "retry"),
        (details.quota_failure().is_some(), "quota"),
        (details.precondition_failure().is_some(), "precondition"),
    ];
    let mut line = format!(
        "{} {}",
        telemetry::names::status_code(status.code()),
        info.reason
    );
    for (_, name) in carried.into_iter().filter(|(is_carried, _)| *is_carried) {
        line.push(' ');
        line.push_str(name);
    }
    line
}

fn check(table: Vec<(Error, &str)>) {
    for (error, expected) in table {
        let text = format!("{error:?}");
        assert_eq!(seen(error), expected, "{text}");
    }
}

fn m() -> String {
    "m".to_owned()
}

fn x() -> String {
    "x".to_owned()
}

/// A file of one F32 tensor called `t`, without metadata.
fn directory() -> Directory {
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(3_u32.to_le_bytes());
    for number in [1_u64, 0, 1] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.push(b't');
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend(1_u64.to_le_bytes());
    bytes.extend(0_u32.to_le_bytes());
    bytes.extend(0_u64.to_le_bytes());
    let data = bytes.len().next_multiple_of(32);
    bytes.resize(data + 32, 0);
    Directory::parse(&bytes, bytes.len() as u64).unwrap()
}

#[test]
fn our_own_errors() {
    let violation = Violation {
        field: "text".to_owned(),
        reason: "must not be empty".to_owned(),
    };
    check(vec![
        (
            Error::Invalid {
                violations: vec![violation],
            },
            "INVALID_ARGUMENT INVALID_FIELD fields",
        ),
        (
            Error::NotServed { field: "chat" },
            "UNIMPLEMENTED FIELD_NOT_SERVED",
        ),
        (
            Error::UnknownModel {
                model: m(),
                known: vec![],
            },
            "NOT_FOUND UNKNOWN_MODEL resource",
        ),
        (
            Error::NotAttached {
                model: m(),
                attached: vec![],
            },
            "NOT_FOUND MODEL_NOT_ATTACHED resource",
        ),
        (
            Error::AutoAttachOff { model: m() },
            "FAILED_PRECONDITION MODEL_NOT_ATTACHED precondition",
        ),
        (Error::Degraded { model: m() }, "DATA_LOSS MODEL_DEGRADED"),
        (Error::Draining, "UNAVAILABLE DRAINING retry"),
        (
            Error::TooMany { limit: 1 },
            "RESOURCE_EXHAUSTED QUEUE_FULL retry quota",
        ),
        (
            Error::MessageTooLarge { limit_bytes: 1 },
            "RESOURCE_EXHAUSTED MESSAGE_TOO_LARGE quota",
        ),
        (Error::Deadline, "DEADLINE_EXCEEDED DEADLINE"),
        (Error::Lost { what: "a task" }, "INTERNAL INTERNAL"),
    ]);
}

#[test]
fn the_daemon_s_answers() {
    let refused = |code| {
        let message = "because".to_owned();
        Error::Daemon(DaemonError::Refused { code, message })
    };
    let away = DaemonError::Away {
        socket: "/s".to_owned(),
        reason: "gone".to_owned(),
    };
    check(vec![
        (away.into(), "UNAVAILABLE LOADER_AWAY retry"),
        (
            DaemonError::Malformed { what: "x" }.into(),
            "INTERNAL INTERNAL",
        ),
        (
            refused(Code::FailedPrecondition),
            "FAILED_PRECONDITION MODEL_INVALID precondition",
        ),
        (
            refused(Code::ResourceExhausted),
            "RESOURCE_EXHAUSTED LOADER_BUSY retry quota",
        ),
        (refused(Code::DataLoss), "DATA_LOSS FILE_CHANGED"),
        (refused(Code::NotFound), "NOT_FOUND UNKNOWN_MODEL resource"),
        (
            refused(Code::DeadlineExceeded),
            "UNAVAILABLE LOADER_AWAY retry",
        ),
        (
            refused(Code::PermissionDenied),
            "PERMISSION_DENIED LOADER_DENIED",
        ),
        (refused(Code::Internal), "INTERNAL INTERNAL"),
        (refused(Code::InvalidArgument), "INTERNAL INTERNAL"),
        (refused(Code::Unimplemented), "INTERNAL INTERNAL"),
        (refused(Code::Unauthenticated), "INTERNAL INTERNAL"),
    ]);
}

#[test]
fn faults_tell_the_caller_nothing() {
    let cause: engine::Cause = Arc::new(io::Error::other("secret path"));
    let device = Status::from(Error::Engine(EngineError::Device(Arc::clone(&cause))));
    assert_eq!(device.message(), FAULT);
    let fetch = EngineError::Fetch {
        model: m(),
        extent: ExtentId(0),
        cause,
    };
    let fetch = Status::from(Error::Engine(fetch));
    for status in [device, fetch] {
        assert!(!status.message().contains("secret"), "{}", status.message());
        assert!(!format!("{:?}", status.get_error_details()).contains("secret"));
    }
}

#[test]
fn what_does_not_fit_comes_with_figures() {
    let error = EngineError::DoesNotFit {
        resource: Resource::Weights,
        need_bytes: 30,
        free_bytes: 10,
    };
    let status = Status::from(Error::Engine(error));
    let details = status.get_error_details();
    let facts = &details.error_info().unwrap().metadata;
    assert_eq!(
        (
            &*facts["need_bytes"],
            &*facts["free_bytes"],
            &*facts["shortfall_bytes"]
        ),
        ("30", "10", "20")
    );
}

#[test]
fn every_field_and_the_known_models_are_named() {
    let violation = |field: &str| Violation {
        field: field.to_owned(),
        reason: "bad".to_owned(),
    };
    let error = Error::Invalid {
        violations: vec![violation("a"), violation("b")],
    };
    let details = Status::from(error).get_error_details();
    let fields: Vec<_> = details
        .bad_request()
        .unwrap()
        .field_violations
        .iter()
        .map(|v| v.field.clone())
        .collect();
    assert_eq!(fields, ["a", "b"]);
    let error = Error::UnknownModel {
        model: m(),
        known: vec!["a/b".to_owned(), "c".to_owned()],
    };
    let status = Status::from(error);
    assert_eq!(
        status.get_error_details().error_info().unwrap().metadata["known_models"],
        "a/b c"
    );
    assert_eq!(status.message(), "no model 'm'; known: a/b, c");
}

#[test]
fn a_model_that_cannot_be_attached_says_why() {
    let source = Arc::new(AttachError::Config(ConfigError::Architecture {
        found: "mamba".to_owned(),
        known: "llama".to_owned(),
    }));
    let status = Status::from(Error::Attach { model: m(), source });
    assert_eq!(
        status.message(),
        "attaching model 'm': architecture 'mamba' is not supported; supported are llama"
    );
}
