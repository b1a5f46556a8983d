//! Models that cannot be taken over or attached.

use std::path::Path;

use weights::Weights;

use super::*;

const INVALID_MODEL: &str = "FAILED_PRECONDITION MODEL_INVALID precondition";
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
    let on_device = E::Device {
        architecture: x(),
        feature: x(),
        device: "hip",
        limit: x(),
    };
    let table = vec![
        (
            E::Architecture {
                found: x(),
                known: x(),
            },
            "UNIMPLEMENTED ARCHITECTURE_NOT_SUPPORTED",
        ),
        (unsupported, "UNIMPLEMENTED FEATURE_NOT_SUPPORTED"),
        (on_device, "UNIMPLEMENTED FEATURE_NOT_SUPPORTED"),
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
