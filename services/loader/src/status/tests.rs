use std::io;

use gguf::{TensorType, write::Writer};
use weights::ResidencyError;

use super::*;

/// What a client gets to see of an error.
struct Expected {
    code: Code,
    reason: &'static str,
    /// A detail besides `ErrorInfo`.
    detail: Detail,
    /// Words of the message.
    says: &'static str,
}

#[derive(Debug, Eq, PartialEq)]
enum Detail {
    None,
    Resource(&'static str),
    Field(&'static str),
    Precondition(&'static str),
    Quota(&'static str),
    Retry,
}

fn model() -> String {
    "org/m".to_owned()
}

fn fetch(source: FetchError) -> Error {
    Error::Fetch {
        model: model(),
        source,
    }
}

fn no_such_tensor() -> Error {
    let header = Writer::new()
        .tensor("output.weight", &[32], TensorType::F32)
        .finish()
        .unwrap();
    Error::from(header.directory.require("output.wieght").unwrap_err())
}

fn row(
    error: Error,
    code: Code,
    reason: &'static str,
    detail: Detail,
    says: &'static str,
) -> (Error, Expected) {
    let expected = Expected {
        code,
        reason,
        detail,
        says,
    };
    (error, expected)
}

/// Every variant, with what it becomes.
fn table() -> Vec<(Error, Expected)> {
    let groups = [
        what_is_asked(),
        what_is_limited(),
        what_files_do(),
        what_we_do(),
    ];
    groups.into_iter().flatten().collect()
}

fn what_is_asked() -> Vec<(Error, Expected)> {
    use Code::{InvalidArgument, NotFound, OutOfRange};
    use Detail::{Field, Resource};
    let known = vec!["a".to_owned(), "b".to_owned()];
    let unknown = Error::UnknownModel {
        model: model(),
        known,
    };
    let tensor = "t".to_owned();
    let beyond = Error::OutOfRange {
        tensor,
        offset_bytes: 5,
        length_bytes: 6,
        tensor_bytes: 10,
    };
    let long = Error::BadField {
        field: "client",
        rule: "at most 128 characters",
    };
    vec![
        row(
            unknown,
            NotFound,
            "UNKNOWN_MODEL",
            Resource("model"),
            "no model \"org/m\"",
        ),
        row(
            Error::UnknownLease,
            NotFound,
            "UNKNOWN_LEASE",
            Resource("lease"),
            "token",
        ),
        row(
            no_such_tensor(),
            NotFound,
            "UNKNOWN_TENSOR",
            Resource("tensor"),
            "'output.weight'",
        ),
        row(
            beyond,
            OutOfRange,
            "OUT_OF_RANGE",
            Field("offset_bytes"),
            "5..+6",
        ),
        row(long, InvalidArgument, "BAD_FIELD", Field("client"), "128"),
    ]
}

fn what_is_limited() -> Vec<(Error, Expected)> {
    use Code::{DeadlineExceeded, FailedPrecondition, ResourceExhausted};
    use Detail::{Precondition, Quota, Retry};
    let leases = Error::TooMany {
        what: "leases",
        limit: 3,
    };
    let behind = Error::WatcherBehind { missed: 9 };
    let long = Error::AnswerTooLong { bytes: 9, limit: 8 };
    let large = Error::OverBudget {
        model: model(),
        need_bytes: 10,
        free_bytes: 4,
    };
    let budget = Precondition("CACHE_BUDGET");
    vec![
        row(
            leases,
            ResourceExhausted,
            "TOO_MANY",
            Quota("leases"),
            "limit is 3",
        ),
        row(
            behind,
            ResourceExhausted,
            "WATCHER_BEHIND",
            Retry,
            "9 changes",
        ),
        row(
            long,
            ResourceExhausted,
            "ANSWER_TOO_LONG",
            Detail::None,
            "9 bytes",
        ),
        row(
            large,
            FailedPrecondition,
            "OVER_CACHE_BUDGET",
            budget,
            "6 short",
        ),
        row(
            Error::Deadline,
            DeadlineExceeded,
            "DEADLINE",
            Detail::None,
            "deadline",
        ),
    ]
}

fn what_files_do() -> Vec<(Error, Expected)> {
    use Code::{DataLoss, FailedPrecondition, Internal};
    use Detail::{None, Precondition};
    let invalid = Error::InvalidModel {
        model: model(),
        reason: "too short".to_owned(),
    };
    let truncated = fetch(FetchError::Truncated {
        split: 0,
        need_bytes: 9,
        file_bytes: 3,
    });
    let poisoned = fetch(FetchError::Poisoned { split: 0 });
    let modified = fetch(FetchError::Changed { split: 0 });
    let io = fetch(FetchError::Io {
        split: 0,
        source: io::Error::other("secret detail"),
    });
    let secret = Error::Residency {
        model: model(),
        source: ResidencyError::NotPermitted,
    };
    let residency = Precondition("RESIDENCY");
    vec![
        row(
            invalid,
            FailedPrecondition,
            "INVALID_MODEL",
            Precondition("VALID_MODEL"),
            "too short",
        ),
        row(
            Error::Changed { model: model() },
            DataLoss,
            "FILE_CHANGED",
            None,
            "changed",
        ),
        row(truncated, DataLoss, "FILE_TRUNCATED", None, "truncated"),
        row(poisoned, DataLoss, "FILE_TRUNCATED", None, "lost pages"),
        row(modified, DataLoss, "FILE_CHANGED", None, "modified"),
        row(io, Internal, "INTERNAL", None, "internal error"),
        row(
            secret,
            FailedPrecondition,
            "RESIDENCY_UNKNOWN",
            residency,
            "owner",
        ),
    ]
}

fn what_we_do() -> Vec<(Error, Expected)> {
    use Code::{Internal, Unavailable};
    use Detail::{None, Retry};
    let system = Error::System {
        doing: "drawing",
        source: io::Error::other("secret detail"),
    };
    let stopped = fetch(FetchError::Stopped);
    vec![
        row(
            Error::ShuttingDown,
            Unavailable,
            "SHUTTING_DOWN",
            Retry,
            "shutting down",
        ),
        row(stopped, Unavailable, "SHUTTING_DOWN", Retry, "stopped"),
        row(system, Internal, "INTERNAL", None, "internal error"),
        row(
            Error::WorkerDied,
            Internal,
            "INTERNAL",
            None,
            "internal error",
        ),
    ]
}

fn detail(details: &ErrorDetails) -> Detail {
    let leak = |text: &str| -> &'static str { Box::leak(text.to_owned().into_boxed_str()) };
    if let Some(resource) = details.resource_info() {
        return Detail::Resource(leak(&resource.resource_type));
    }
    if let Some(request) = details.bad_request() {
        return Detail::Field(leak(&request.field_violations[0].field));
    }
    if let Some(failure) = details.precondition_failure() {
        return Detail::Precondition(leak(&failure.violations[0].r#type));
    }
    if let Some(quota) = details.quota_failure() {
        assert!(details.retry_info().is_some());
        return Detail::Quota(leak(&quota.violations[0].subject));
    }
    if details.retry_info().is_some() {
        Detail::Retry
    } else {
        Detail::None
    }
}

#[test]
fn every_error_has_its_status() {
    for (error, expected) in table() {
        let label = format!("{error:?}");
        let status = Status::from(error);
        assert_eq!(status.code(), expected.code, "{label}");
        assert!(
            status.message().contains(expected.says),
            "{label}: {}",
            status.message()
        );
        assert!(!status.message().contains("secret"), "{label}");
        let details = status.get_error_details();
        let info = details
            .error_info()
            .unwrap_or_else(|| panic!("{label} carries no ErrorInfo"));
        assert_eq!(
            (info.reason.as_str(), info.domain.as_str()),
            (expected.reason, DOMAIN),
            "{label}"
        );
        assert_eq!(detail(&details), expected.detail, "{label}");
    }
}

#[test]
fn the_table_knows_every_variant() {
    // A new variant does not compile until it has a number here, and fails until it has a row above.
    let number = |error: &Error| match error {
        Error::UnknownModel { .. } => 0,
        Error::InvalidModel { .. } => 1,
        Error::UnknownLease => 2,
        Error::UnknownTensor(_) => 3,
        Error::OutOfRange { .. } => 4,
        Error::BadField { .. } => 5,
        Error::TooMany { .. } => 6,
        Error::WatcherBehind { .. } => 7,
        Error::AnswerTooLong { .. } => 8,
        Error::OverBudget { .. } => 9,
        Error::Changed { .. } => 10,
        Error::Fetch { .. } => 11,
        Error::Residency { .. } => 12,
        Error::Deadline => 13,
        Error::ShuttingDown => 14,
        Error::System { .. } => 15,
        Error::WorkerDied => 16,
    };
    let seen: std::collections::BTreeSet<i32> =
        table().iter().map(|(error, _)| number(error)).collect();
    assert_eq!(seen, (0..=16).collect());
}

#[test]
fn figures_are_there_for_programs() {
    let facts = |error: Error| {
        Status::from(error)
            .get_error_details()
            .error_info()
            .unwrap()
            .metadata
            .clone()
    };
    let known = facts(Error::UnknownModel {
        model: model(),
        known: vec!["a".to_owned(), "b".to_owned()],
    });
    assert_eq!(known["known_models"], "a b");
    let short = facts(Error::OverBudget {
        model: model(),
        need_bytes: 10,
        free_bytes: 4,
    });
    assert_eq!(
        (
            short["need_bytes"].as_str(),
            short["free_bytes"].as_str(),
            short["shortfall_bytes"].as_str()
        ),
        ("10", "4", "6")
    );
}
