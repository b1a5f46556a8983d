//! Generate requests: the GenAI server metrics.

use std::time::Duration;

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram},
};

use super::meter;
use crate::names;

/// Bucket bounds of request durations, seconds.
const REQUEST_SECONDS: [f64; 14] = [
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
];
/// Bucket bounds of the time to first token, seconds.
const FIRST_TOKEN_SECONDS: [f64; 16] = [
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];
/// Bucket bounds of the time per output token, seconds.
const TOKEN_SECONDS: [f64; 13] = [
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5,
];

/// Instruments of finished requests.
#[derive(Clone, Debug)]
pub struct Requests {
    duration: Histogram<f64>,
    time_to_first_token: Histogram<f64>,
    time_per_output_token: Histogram<f64>,
    load_wait: Histogram<f64>,
    tokens: Counter<u64>,
}

/// How a request went.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RequestOutcome {
    /// The model that was asked for; empty when it is not known to this server, so that a client cannot invent time series.
    pub model: String,
    /// Name of the status code, when it failed.
    pub error: Option<&'static str>,
    /// From arrival to the end.
    pub total: Duration,
    /// From arrival to the first token, when there was one.
    pub time_to_first_token: Option<Duration>,
    /// From the first token to the last.
    pub decode: Duration,
    /// Waiting for the model's weights.
    pub load_wait: Duration,
    /// Prompt tokens, cached ones included.
    pub prompt_tokens: u64,
    /// Prompt tokens found in the KV cache.
    pub cached_tokens: u64,
    /// Output tokens.
    pub completion_tokens: u64,
}

// === impl Requests ===

impl Default for Requests {
    fn default() -> Requests {
        let meter = meter();
        let seconds = |name: &'static str, description: &'static str, bounds: &[f64]| {
            meter
                .f64_histogram(name)
                .with_description(description)
                .with_unit("s")
                .with_boundaries(bounds.to_vec())
                .build()
        };
        Requests {
            duration: seconds(
                names::GEN_AI_SERVER_REQUEST_DURATION,
                "Duration of requests",
                &REQUEST_SECONDS,
            ),
            time_to_first_token: seconds(
                names::GEN_AI_SERVER_TIME_TO_FIRST_TOKEN,
                "Time to first token",
                &FIRST_TOKEN_SECONDS,
            ),
            time_per_output_token: seconds(
                names::GEN_AI_SERVER_TIME_PER_OUTPUT_TOKEN,
                "Time per output token after the first",
                &TOKEN_SECONDS,
            ),
            load_wait: seconds(
                names::LOAD_WAIT,
                "Time that requests waited for weights",
                &REQUEST_SECONDS,
            ),
            tokens: meter
                .u64_counter(names::TOKENS)
                .with_description("Tokens worked on")
                .with_unit("{token}")
                .build(),
        }
    }
}

impl Requests {
    /// Instruments on the process's meter; make them after [`crate::init`].
    #[must_use]
    pub fn new() -> Requests {
        Requests::default()
    }

    /// Records one finished request; a failed one counts in the duration only.
    pub fn record(&self, outcome: &RequestOutcome) {
        let mut attributes = vec![
            KeyValue::new(names::GEN_AI_OPERATION, names::OPERATION),
            KeyValue::new(names::GEN_AI_PROVIDER, names::PROVIDER),
            KeyValue::new(names::GEN_AI_REQUEST_MODEL, outcome.model.clone()),
        ];
        if let Some(error) = outcome.error {
            attributes.push(KeyValue::new(names::ERROR_TYPE, error));
            self.duration
                .record(outcome.total.as_secs_f64(), &attributes);
            return;
        }
        self.duration
            .record(outcome.total.as_secs_f64(), &attributes);
        self.load_wait
            .record(outcome.load_wait.as_secs_f64(), &attributes);
        if let Some(first) = outcome.time_to_first_token {
            self.time_to_first_token
                .record(first.as_secs_f64(), &attributes);
        }
        if let Some(per_token) = per_output_token(outcome) {
            self.time_per_output_token.record(per_token, &attributes);
        }
        self.count_tokens(outcome, &attributes);
    }

    fn count_tokens(&self, outcome: &RequestOutcome, attributes: &[KeyValue]) {
        let computed = outcome.prompt_tokens.saturating_sub(outcome.cached_tokens);
        for (kind, count) in [
            ("input", computed),
            ("cached", outcome.cached_tokens),
            ("output", outcome.completion_tokens),
        ] {
            let mut attributes = attributes.to_vec();
            attributes.push(KeyValue::new(names::GEN_AI_TOKEN_TYPE, kind));
            self.tokens.add(count, &attributes);
        }
    }
}

/// Seconds per token after the first; `None` when there was no second one.
fn per_output_token(outcome: &RequestOutcome) -> Option<f64> {
    let later_tokens = u32::try_from(outcome.completion_tokens.checked_sub(1)?).ok()?;
    (later_tokens > 0).then(|| outcome.decode.as_secs_f64() / f64::from(later_tokens))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_token_does_not_count() {
        let outcome = |completion_tokens| RequestOutcome {
            completion_tokens,
            decode: Duration::from_secs(1),
            ..RequestOutcome::default()
        };
        assert_eq!(per_output_token(&outcome(0)), None);
        assert_eq!(per_output_token(&outcome(1)), None);
        assert_eq!(per_output_token(&outcome(11)), Some(0.1));
    }
}
