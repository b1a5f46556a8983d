use std::{io, path::Path, sync::Arc};

use engine::Resource;
use tonic_types::StatusExt as _;
use weights::{Directory, ExtentId, Weights};

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
        (
            Error::AttachedUnpinned { model: m() },
            "FAILED_PRECONDITION MODEL_NOT_PINNED precondition",
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
fn the_hand_off() {
    let accept = |error| Error::Accept {
        model: m(),
        source: Arc::new(error),
    };
    let refused = |refusal| accept(AcceptError::Refused(refusal));
    let gone = || io::Error::from(io::ErrorKind::NotFound);
    let connect = AcceptError::Connect {
        path: "/s".into(),
        source: gone(),
    };
    let open = Weights::open(Path::new("/nowhere/at/all.gguf")).unwrap_err();
    let protocol = AcceptError::Protocol {
        what: "noise".to_owned(),
    };
    check(vec![
        (accept(connect), "UNAVAILABLE LOADER_AWAY retry"),
        (
            accept(AcceptError::Io(gone())),
            "UNAVAILABLE LOADER_AWAY retry",
        ),
        (
            accept(AcceptError::Version { ours: 1, theirs: 2 }),
            "FAILED_PRECONDITION LOADER_VERSION precondition",
        ),
        (
            refused(Refusal::UnknownToken),
            "UNAVAILABLE LOADER_AWAY retry",
        ),
        (
            refused(Refusal::ShuttingDown),
            "UNAVAILABLE LOADER_AWAY retry",
        ),
        (
            refused(Refusal::NotPermitted),
            "PERMISSION_DENIED LOADER_DENIED",
        ),
        (refused(Refusal::Changed), "DATA_LOSS FILE_CHANGED"),
        (
            refused(Refusal::Busy),
            "RESOURCE_EXHAUSTED LOADER_BUSY retry quota",
        ),
        (refused(Refusal::Protocol), "INTERNAL INTERNAL"),
        (refused(Refusal::Internal), "INTERNAL INTERNAL"),
        (
            accept(AcceptError::Open(open)),
            "FAILED_PRECONDITION MODEL_INVALID precondition",
        ),
        (
            accept(AcceptError::Mismatch { what: "files" }),
            "DATA_LOSS FILE_CHANGED",
        ),
        (accept(protocol), "INTERNAL INTERNAL"),
        (accept(AcceptError::NoLease), "INTERNAL INTERNAL"),
    ]);
}

const INVALID_MODEL: &str = "FAILED_PRECONDITION MODEL_INVALID precondition";
const INVALID_FIELD: &str = "INVALID_ARGUMENT INVALID_FIELD fields";

fn x() -> String {
    "x".to_owned()
}

fn attach(error: AttachError) -> Error {
    Error::Attach {
        model: m(),
        source: Arc::new(error),
    }
}

#[test]
fn vocabularies() {
    use TokenizerError as E;
    let metadata = directory().metadata().require_str("k").unwrap_err();
    let (key, len, n_vocab) = ("k", 1, 2);
    let (n_strings, n_bytes) = (1, 1);
    let flag = "f";
    let unsupported = "UNIMPLEMENTED TOKENIZER_NOT_SUPPORTED";
    let table = vec![
        (E::UnsupportedModel { model: x() }, unsupported),
        (E::UnsupportedPreTokenizer { name: x() }, unsupported),
        (E::Metadata(metadata), INVALID_MODEL),
        (E::Empty, INVALID_MODEL),
        (E::Short { key, len, n_vocab }, INVALID_MODEL),
        (E::TooLarge { n_strings, n_bytes }, INVALID_MODEL),
        (E::MissingSpecial { flag, key }, INVALID_MODEL),
    ];
    let wrap = |error| Error::Tokenizer {
        model: m(),
        source: Arc::new(error),
    };
    check(table.into_iter().map(|(e, line)| (wrap(e), line)).collect());
}

#[test]
fn configurations() {
    use ConfigError as E;
    let metadata = directory().metadata().require_str("k").unwrap_err();
    let (key, value, reason) = (x(), x(), x());
    let unsupported = E::Unsupported {
        key: x(),
        value: x(),
    };
    let table = vec![
        (
            E::Architecture { found: x() },
            "UNIMPLEMENTED ARCHITECTURE_NOT_SUPPORTED",
        ),
        (unsupported, "UNIMPLEMENTED FEATURE_NOT_SUPPORTED"),
        (E::Metadata(metadata), INVALID_MODEL),
        (E::Invalid { key, value, reason }, INVALID_MODEL),
    ];
    let wrap = |error| attach(AttachError::Config(error));
    check(table.into_iter().map(|(e, line)| (wrap(e), line)).collect());
}

#[test]
fn plans() {
    use PlanError as E;
    let directory = directory();
    let tensor_type = directory.tensors()[0].tensor_type;
    let missing = directory.require("x").unwrap_err();
    let name = x();
    let unused = E::Unused {
        name: x(),
        architecture: x(),
    };
    let shape = E::Shape {
        name: x(),
        found: vec![],
        expected: vec![],
    };
    let table = vec![
        (
            E::TensorType { name, tensor_type },
            "UNIMPLEMENTED TENSOR_TYPE_NOT_SUPPORTED",
        ),
        (unused, "UNIMPLEMENTED FEATURE_NOT_SUPPORTED"),
        (E::Missing(missing), INVALID_MODEL),
        (shape, INVALID_MODEL),
    ];
    let wrap = |error| attach(AttachError::Plan(error));
    check(table.into_iter().map(|(e, line)| (wrap(e), line)).collect());
}

#[test]
fn attaching() {
    use AttachError as E;
    let (tokenizer, model) = (1, 2);
    let does_not_fit = E::DoesNotFit {
        resource: Resource::Weights,
        need_bytes: 3,
        free_bytes: 1,
    };
    let threads = E::Threads(io::Error::other("limit"));
    check(vec![
        (attach(E::Vocabulary { tokenizer, model }), INVALID_MODEL),
        (
            attach(does_not_fit),
            "FAILED_PRECONDITION DOES_NOT_FIT precondition",
        ),
        (attach(E::ShuttingDown), "UNAVAILABLE DRAINING retry"),
        (attach(E::AlreadyAttached { id: x() }), "INTERNAL INTERNAL"),
        (attach(threads), "INTERNAL INTERNAL"),
    ]);
}

fn check_engine(table: Vec<(EngineError, &str)>) {
    let wrap = |(error, line)| (Error::Engine(error), line);
    check(table.into_iter().map(wrap).collect());
}

#[test]
fn requests_that_the_engine_refuses() {
    use EngineError as E;
    let token = E::TokenOutOfRange {
        token: 9,
        index: 0,
        n_vocab: 5,
    };
    let too_long = E::PromptTooLong {
        prompt_tokens: 9,
        context_length: 5,
    };
    let (field, reason) = ("f", "r");
    let known = vec![];
    check_engine(vec![
        (
            E::UnknownModel { model: m(), known },
            "NOT_FOUND MODEL_NOT_ATTACHED resource",
        ),
        (E::PromptEmpty, INVALID_FIELD),
        (too_long, INVALID_FIELD),
        (token, INVALID_FIELD),
        (E::Invalid { field, reason }, INVALID_FIELD),
        (
            E::Unsupported { what: x() },
            "UNIMPLEMENTED FIELD_NOT_SERVED",
        ),
        (
            E::QueueFull { max_queued: 1 },
            "RESOURCE_EXHAUSTED QUEUE_FULL retry quota",
        ),
    ]);
}

#[test]
fn requests_that_the_engine_ends() {
    use EngineError as E;
    let cause = || -> engine::Cause { Arc::new(io::Error::other("no disk")) };
    let fetch = E::Fetch {
        model: m(),
        extent: ExtentId(0),
        cause: cause(),
    };
    let does_not_fit = E::DoesNotFit {
        resource: Resource::KvCache,
        need_bytes: 3,
        free_bytes: 1,
    };
    let kv_full = E::KvFull {
        need_blocks: 2,
        total_blocks: 1,
    };
    let slow = E::SlowClient {
        waited: Duration::ZERO,
    };
    let data_loss = E::DataLoss {
        model: m(),
        cause: None,
    };
    check_engine(vec![
        (
            does_not_fit,
            "FAILED_PRECONDITION DOES_NOT_FIT precondition",
        ),
        (kv_full, "RESOURCE_EXHAUSTED KV_CACHE_FULL retry quota"),
        (slow, "RESOURCE_EXHAUSTED SLOW_CLIENT retry quota"),
        (E::DeadlineExceeded, "DEADLINE_EXCEEDED DEADLINE"),
        (E::Cancelled, "CANCELLED CANCELLED"),
        (E::Unloaded { model: m() }, "CANCELLED MODEL_UNLOADED"),
        (fetch, "UNAVAILABLE FETCH_FAILED retry"),
        (data_loss, "DATA_LOSS FILE_CHANGED"),
        (E::ShuttingDown, "UNAVAILABLE DRAINING retry"),
        (E::Device(cause()), "INTERNAL INTERNAL"),
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
    }));
    let status = Status::from(Error::Attach { model: m(), source });
    assert_eq!(
        status.message(),
        "attaching model 'm': architecture 'mamba' is not supported"
    );
}
