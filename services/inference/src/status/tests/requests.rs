//! Requests that the engine refuses or ends.

use super::*;

const INVALID_FIELD: &str = "INVALID_ARGUMENT INVALID_FIELD fields";

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
    let device_memory = E::DeviceMemory {
        model: m(),
        cause: cause(),
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
        (kv_full, "RESOURCE_EXHAUSTED KV_CACHE_FULL quota"),
        (slow, "RESOURCE_EXHAUSTED SLOW_CLIENT retry quota"),
        (E::DeadlineExceeded, "DEADLINE_EXCEEDED DEADLINE"),
        (E::Cancelled, "CANCELLED CANCELLED"),
        (E::Unloaded { model: m() }, "CANCELLED MODEL_UNLOADED"),
        (fetch, "UNAVAILABLE FETCH_FAILED retry"),
        (data_loss, "DATA_LOSS FILE_CHANGED"),
        (E::ShuttingDown, "UNAVAILABLE DRAINING retry"),
        (
            device_memory,
            "RESOURCE_EXHAUSTED DEVICE_MEMORY retry quota",
        ),
        (E::Device(cause()), "INTERNAL INTERNAL"),
    ]);
}

#[test]
fn conversations_without_a_prompt() {
    use text::chat::ChatError as C;
    let chat = |source| Error::Chat { model: m(), source };
    let named = || vec![x()];
    let (template, line, reason) = (x(), Some(3), x());
    let invalid = C::Invalid {
        template,
        line,
        reason,
    };
    let (template, reason) = (x(), x());
    let failed = C::Failed {
        template,
        line,
        reason,
    };
    let unknown = C::UnknownTemplate {
        name: x(),
        known: named(),
    };
    let template = x();
    check(vec![
        (
            chat(C::NoTemplate { named: named() }),
            "FAILED_PRECONDITION NO_CHAT_TEMPLATE precondition",
        ),
        (
            chat(invalid),
            "FAILED_PRECONDITION CHAT_TEMPLATE_INVALID precondition",
        ),
        (
            chat(unknown),
            "INVALID_ARGUMENT UNKNOWN_CHAT_TEMPLATE fields",
        ),
        (
            chat(C::Refused { message: x() }),
            "INVALID_ARGUMENT CHAT_REFUSED fields",
        ),
        (chat(failed), "INVALID_ARGUMENT CHAT_TEMPLATE_FAILED fields"),
        (
            chat(C::TooMuch { template, line }),
            "INVALID_ARGUMENT CHAT_TOO_LARGE fields",
        ),
        (chat(C::Thread(x())), "INTERNAL INTERNAL"),
    ]);
}
