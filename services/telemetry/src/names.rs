//! Every OpenTelemetry name that leaves this process, and which domain name each one stands for.
//!
//! The GenAI conventions are still in development and the RPC ones have just changed, so that the Rust constants crate marks both as moved: they are spelled out here, where one
//! edit follows the next change. Sources: open-telemetry/semantic-conventions (`rpc.*`) and open-telemetry/semantic-conventions-genai (`gen_ai.*`). What has no convention is `hearth.*` or
//! `model.load.*`.

/// `rpc.system.name` of every server span.
pub const RPC_SYSTEM_NAME: &str = "rpc.system.name";
/// Fully qualified method, `pkg.Service/Method`.
pub const RPC_METHOD: &str = "rpc.method";
/// Name of the status code, such as `OK`.
pub const RPC_STATUS_CODE: &str = "rpc.response.status_code";
/// Duration of calls served, seconds.
pub const RPC_SERVER_CALL_DURATION: &str = "rpc.server.call.duration";

/// What a GenAI request does.
pub const GEN_AI_OPERATION: &str = "gen_ai.operation.name";
/// Who serves it.
pub const GEN_AI_PROVIDER: &str = "gen_ai.provider.name";
/// The model that was asked for.
pub const GEN_AI_REQUEST_MODEL: &str = "gen_ai.request.model";
/// `input`, `cached` or `output`, on token counters.
pub const GEN_AI_TOKEN_TYPE: &str = "gen_ai.token.type";
/// What went wrong: the name of a status code.
pub const ERROR_TYPE: &str = "error.type";
/// Duration of requests, seconds.
pub const GEN_AI_SERVER_REQUEST_DURATION: &str = "gen_ai.server.request.duration";
/// Time to first token, seconds.
pub const GEN_AI_SERVER_TIME_TO_FIRST_TOKEN: &str = "gen_ai.server.time_to_first_token";
/// Time per output token after the first, seconds.
pub const GEN_AI_SERVER_TIME_PER_OUTPUT_TOKEN: &str = "gen_ai.server.time_per_output_token";
/// Tokens worked on, by [`GEN_AI_TOKEN_TYPE`]; the conventions have such a metric for clients only.
pub const TOKENS: &str = "hearth.tokens";

/// Time that requests waited for weights, seconds.
pub const LOAD_WAIT: &str = "hearth.request.load_wait";
/// `cold`, `warm`, `hot` or `unknown`, on byte counters.
pub const LOAD_KIND: &str = "model.load.kind";
/// Requests that wait for their first batch.
pub const REQUESTS_QUEUED: &str = "hearth.requests.queued";
/// Sequences that are being worked on.
pub const REQUESTS_RUNNING: &str = "hearth.requests.running";
/// Sequences that stand still because their events are not read.
pub const REQUESTS_PARKED: &str = "hearth.requests.parked";
/// Times that a sequence gave its KV cache to an older one.
pub const PREEMPTIONS: &str = "hearth.preemptions";
/// Bytes of KV cache in use.
pub const KV_USED: &str = "hearth.kv_cache.used";
/// Bytes of KV cache that are only kept for reuse.
pub const KV_KEPT: &str = "hearth.kv_cache.kept";
/// Prompt tokens of sequences that began.
pub const PREFIX_QUERIES: &str = "hearth.kv_cache.prefix.queries";
/// Prompt tokens whose KV cache was found.
pub const PREFIX_HITS: &str = "hearth.kv_cache.prefix.hits";
/// KV blocks that made room for others.
pub const KV_EVICTIONS: &str = "hearth.kv_cache.evictions";
/// Most bytes of KV cache.
pub const KV_BUDGET: &str = "hearth.kv_cache.budget";
/// Share of the KV cache in use.
pub const KV_UTILIZATION: &str = "hearth.kv_cache.utilization";
/// Bytes of weights on the device.
pub const WEIGHTS_RESIDENT: &str = "hearth.weights.resident";
/// Most bytes of weights kept on the device.
pub const WEIGHTS_BUDGET: &str = "hearth.weights.budget";
/// Bytes of weights fetched, by [`LOAD_KIND`].
pub const FETCHED: &str = "hearth.weights.fetched";
/// Bytes of weights that the service read itself.
pub const SELF_READ: &str = "hearth.weights.self_read";
/// Bytes of one model on the device.
pub const MODEL_RESIDENT: &str = "hearth.model.resident";
/// Times a step found an extent resident.
pub const PLAN_HITS: &str = "hearth.plan.hits";
/// Times a step had to wait for an extent.
pub const PLAN_MISSES: &str = "hearth.plan.misses";
/// Extents fetched.
pub const PLAN_LOADS: &str = "hearth.plan.loads";
/// Extents evicted.
pub const PLAN_EVICTIONS: &str = "hearth.plan.evictions";
/// Fetches that failed.
pub const PLAN_FAILURES: &str = "hearth.plan.failures";
/// Forward passes.
pub const STEPS: &str = "hearth.steps";
/// Models that the daemon can lease.
pub const LOADER_MODELS: &str = "hearth.loader.models";
/// Files that the daemon cannot use.
pub const LOADER_INVALID: &str = "hearth.loader.invalid_models";
/// Leases held.
pub const LOADER_LEASES: &str = "hearth.loader.leases";
/// Bytes that the daemon keeps in the page cache.
pub const LOADER_KEPT: &str = "hearth.loader.kept";
/// Of these, bytes of pinned models.
pub const LOADER_PINNED: &str = "hearth.loader.pinned";
/// Most bytes for the daemon to keep.
pub const LOADER_BUDGET: &str = "hearth.loader.budget";
/// Bytes that the daemon read, by [`LOAD_KIND`].
pub const LOADER_READ: &str = "hearth.loader.read";
/// Bytes that the daemon dropped from the page cache.
pub const LOADER_DROPPED: &str = "hearth.loader.dropped";
/// Reads of the daemon that failed.
pub const LOADER_FAILURES: &str = "hearth.loader.failures";

/// Value of [`GEN_AI_PROVIDER`].
pub const PROVIDER: &str = "hearth";
/// Value of [`GEN_AI_OPERATION`] for [`SPAN_GENERATE`].
pub const OPERATION: &str = "text_completion";

/// The span of one rpc served. Leaves under its method's name, as a server span.
pub const SPAN_RPC: &str = "rpc";
/// The span of one Generate request, below the server span of its rpc. Leaves as `text_completion {model}`.
pub const SPAN_GENERATE: &str = "generate";
/// The span of finding or waiting for a model, below its rpc's and before [`SPAN_GENERATE`]; linked to the load that the model is owed to.
pub const SPAN_MODEL_ACQUIRE: &str = "model.acquire";
/// The span of one load, which many requests may link to. Its phases are its children and are named below it: `model.load.lease` and so on.
pub const SPAN_MODEL_LOAD: &str = "model.load";

/// Domain field → attribute. Fields that are not listed leave under their own name.
pub const ATTRIBUTES: &[(&str, &str)] = &[
    ("method", RPC_METHOD),
    ("code", RPC_STATUS_CODE),
    ("cause", "error.message"),
    ("model", GEN_AI_REQUEST_MODEL),
    ("max_tokens", "gen_ai.request.max_tokens"),
    ("temperature", "gen_ai.request.temperature"),
    ("top_p", "gen_ai.request.top_p"),
    ("top_k", "gen_ai.request.top_k"),
    ("seed", "gen_ai.request.seed"),
    ("request_id", "gen_ai.response.id"),
    ("finish_reason", "gen_ai.response.finish_reasons"),
    ("prompt_tokens", "gen_ai.usage.input_tokens"),
    ("completion_tokens", "gen_ai.usage.output_tokens"),
    ("cached_tokens", "gen_ai.usage.cache_read.input_tokens"),
    ("queue_seconds", "gen_ai.latency.time_in_queue"),
    (
        "time_to_first_token_seconds",
        "gen_ai.latency.time_to_first_token",
    ),
    ("prefill_seconds", "gen_ai.latency.time_in_model_prefill"),
    ("decode_seconds", "gen_ai.latency.time_in_model_decode"),
    ("total_seconds", "gen_ai.latency.e2e"),
    ("load_wait_seconds", "model.load.wait"),
    ("load_kind", "model.load.kind"),
    ("cold_bytes", "model.load.cold_bytes"),
    ("warm_bytes", "model.load.warm_bytes"),
    ("hot_bytes", "model.load.hot_bytes"),
    ("unknown_bytes", "model.load.unknown_bytes"),
    ("total_bytes", "model.load.bytes_total"),
    ("load_mode", "model.load.mode"),
    ("load_source", "model.load.source"),
];

/// Fields that count something without saying so by a unit at their end; see [`is_number`].
const COUNTS: &[&str] = &[
    "extents",
    "failures",
    "generation",
    "models",
    "rows",
    "seed",
    "stalls",
    "steps",
    "top_k",
];
/// What fields that hold whole numbers end in.
const UNITS: &[&str] = &["_bytes", "_tokens", "_count", "_ms", "_us"];

/// Whether a domain field holds a whole number. Unsigned ones reach the exporter as text, because its fields know signed ones only; text that merely looks like a number must stay text.
#[must_use]
pub fn is_number(field: &str) -> bool {
    COUNTS.contains(&field) || UNITS.iter().any(|unit| field.ends_with(unit))
}

/// Attributes whose convention is a list: a single value leaves as a list of one.
pub const LISTS: &[&str] = &["gen_ai.response.finish_reasons"];

/// The attribute that a domain field leaves as.
#[must_use]
pub fn attribute(field: &str) -> Option<&'static str> {
    ATTRIBUTES
        .iter()
        .find(|(domain, _)| *domain == field)
        .map(|(_, otel)| *otel)
}

/// Name of a gRPC status code, as the RPC conventions spell it.
#[must_use]
pub fn status_code(code: tonic::Code) -> &'static str {
    use tonic::Code;
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

/// Whether a server span that ended with `code` is an error of the server, as the RPC conventions sort them.
#[must_use]
pub fn is_server_error(code: tonic::Code) -> bool {
    use tonic::Code;
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_field_is_mapped_twice() {
        for (index, (domain, _)) in ATTRIBUTES.iter().enumerate() {
            assert!(
                !ATTRIBUTES[..index]
                    .iter()
                    .any(|(earlier, _)| earlier == domain),
                "{domain}"
            );
        }
    }

    #[test]
    fn fields_are_found() {
        assert_eq!(
            attribute("prompt_tokens"),
            Some("gen_ai.usage.input_tokens")
        );
        assert_eq!(attribute("extent"), None);
        assert!(is_number("cold_bytes") && is_number("extents"));
        assert!(!is_number("request_id") && !is_number("model"));
    }
}
