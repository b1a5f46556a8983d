//! A gRPC status as a sentence: code, message, the details that the message does not already hold, and the way out.

use std::{borrow::Cow, collections::BTreeMap};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::units;

/// `INVALID_ARGUMENT: … (sampling.top_p: must be in (0, 1])`.
pub(crate) fn render(status: &Status) -> String {
    let details = status.get_error_details();
    let message = match status.message() {
        "" => "no reason given",
        message => message,
    };
    let mut text = format!("{}: {message}", name(status.code()));
    let extras: Vec<String> = extras(&details)
        .into_iter()
        .filter(|extra| !says(message, extra))
        .map(|extra| extra.text)
        .collect();
    if !extras.is_empty() {
        text.push_str(" (");
        text.push_str(&extras.join("; "));
        text.push(')');
    }
    if let Some(way_out) = way_out(status.code(), &details) {
        text.push_str("; ");
        text.push_str(&way_out);
    }
    text
}

/// One detail: how it is shown, and the part of it that a message may already hold.
struct Extra {
    text: String,
    essence: String,
    /// The essence is names with spaces between.
    is_list: bool,
}

/// Whether the message holds the detail: as it is, or, of a list, every name.
fn says(message: &str, extra: &Extra) -> bool {
    if extra.is_list {
        let mut names = extra.essence.split_whitespace();
        return names.all(|name| holds(message, name));
    }
    holds(message, &extra.essence)
}

/// Whether `message` holds `part`, not merely as a part of longer words.
fn holds(message: &str, part: &str) -> bool {
    let whole = |(start, found): (usize, &str)| {
        let before = message[..start].chars().next_back();
        let after = message[start + found.len()..].chars().next();
        let mut neighbours = before.into_iter().chain(after);
        !neighbours.any(char::is_alphanumeric)
    };
    message.match_indices(part).any(whole)
}

fn extras(details: &ErrorDetails) -> Vec<Extra> {
    let mut extras = Vec::new();
    let mut add = |label: &str, essence: &str, is_list: bool| {
        let text = if label.is_empty() {
            essence.to_owned()
        } else {
            format!("{label}: {essence}")
        };
        if !essence.is_empty() {
            extras.push(Extra {
                text,
                essence: essence.to_owned(),
                is_list,
            });
        }
    };
    for violation in details
        .bad_request()
        .iter()
        .flat_map(|bad| &bad.field_violations)
    {
        add(&violation.field, &violation.description, false);
    }
    for violation in details
        .precondition_failure()
        .iter()
        .flat_map(|failure| &failure.violations)
    {
        add(&violation.subject, &violation.description, false);
    }
    for violation in details
        .quota_failure()
        .iter()
        .flat_map(|failure| &failure.violations)
    {
        add(&violation.subject, &violation.description, false);
    }
    if let Some(resource) = details.resource_info() {
        add("", &resource.description, false);
    }
    let metadata: BTreeMap<_, _> = details
        .error_info()
        .iter()
        .flat_map(|info| &info.metadata)
        .collect();
    for (key, value) in metadata {
        add(&key.replace('_', " "), value, true);
    }
    extras
}

fn way_out(code: Code, details: &ErrorDetails) -> Option<Cow<'static, str>> {
    if let Some(delay) = details.retry_info().and_then(|info| info.retry_delay) {
        return Some(format!("try again in {}", units::duration(delay)).into());
    }
    let reason = details.error_info().map(|info| info.reason.as_str());
    match code {
        Code::FailedPrecondition if reason == Some("NO_CHAT_TEMPLATE") => {
            Some("`hearth generate` goes on from plain text".into())
        }
        Code::NotFound => Some("`hearth models` lists what is there".into()),
        Code::ResourceExhausted => Some("try again later".into()),
        Code::DeadlineExceeded => Some("allow more time with --timeout".into()),
        Code::DataLoss => {
            Some("`hearth unload` and `hearth load` pick up the file as it is now".into())
        }
        Code::Internal | Code::Unknown => Some("the service's log says more".into()),
        _ => None,
    }
}

fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn check(code: Code, message: &str, details: ErrorDetails, expected: &str) {
        assert_eq!(
            render(&Status::with_error_details(code, message, details)),
            expected
        );
    }

    #[test]
    fn field_violations_are_named_once() {
        let mut details = ErrorDetails::new();
        details.add_bad_request_violation("sampling.top_p", "must be in (0, 1]");
        details.add_bad_request_violation("stopping.stop", "at most 16");
        check(
            Code::InvalidArgument,
            "the request is not valid",
            details.clone(),
            "INVALID_ARGUMENT: the request is not valid (sampling.top_p: must be in (0, 1]; stopping.stop: at most 16)",
        );
        check(
            Code::InvalidArgument,
            "sampling.top_p must be in (0, 1]",
            details,
            "INVALID_ARGUMENT: sampling.top_p must be in (0, 1] (stopping.stop: at most 16)",
        );
    }

    #[test]
    fn known_models_and_the_way_to_list_them() {
        let details = ErrorDetails::with_resource_info("model", "x", "", "known models: a, b");
        check(
            Code::NotFound,
            "no model `x`",
            details,
            "NOT_FOUND: no model `x` (known models: a, b); `hearth models` lists what is there",
        );
    }

    #[test]
    fn retry_info_wins_over_general_advice() {
        let details = ErrorDetails::with_retry_info(Some(Duration::from_millis(500)));
        check(
            Code::ResourceExhausted,
            "the queue is full",
            details,
            "RESOURCE_EXHAUSTED: the queue is full; try again in 500.0 ms",
        );
        check(
            Code::ResourceExhausted,
            "too large",
            ErrorDetails::new(),
            "RESOURCE_EXHAUSTED: too large; try again later",
        );
    }

    #[test]
    fn error_info_metadata_is_sorted() {
        let metadata = [
            ("need_bytes".to_owned(), "10".to_owned()),
            ("free_bytes".to_owned(), "4".to_owned()),
        ];
        let details = ErrorDetails::with_error_info("DOES_NOT_FIT", "hearth", metadata);
        check(
            Code::FailedPrecondition,
            "the model does not fit",
            details,
            "FAILED_PRECONDITION: the model does not fit (free bytes: 4; need bytes: 10)",
        );
    }

    #[test]
    fn a_name_inside_a_longer_name_is_not_the_same() {
        let known = |model: &str| {
            ErrorDetails::with_error_info(
                "UNKNOWN_MODEL",
                "hearth",
                [("known_models".to_owned(), model.to_owned())],
            )
        };
        check(
            Code::NotFound,
            "no model \"demox\"",
            known("demo"),
            "NOT_FOUND: no model \"demox\" (known models: demo); `hearth models` lists what is there",
        );
        check(
            Code::NotFound,
            "no model 'x'; known: a, demo",
            known("demo a"),
            "NOT_FOUND: no model 'x'; known: a, demo; `hearth models` lists what is there",
        );
    }

    #[test]
    fn a_bare_status_still_reads_as_a_sentence() {
        check(
            Code::Internal,
            "",
            ErrorDetails::new(),
            "INTERNAL: no reason given; the service's log says more",
        );
    }
}
