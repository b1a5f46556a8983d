//! What a caller asks for: one completion of one model.

use std::time::{Duration, Instant};

use crate::EngineError;

/// The most stop strings that one request may carry.
pub const MAX_STOPS: usize = 16;
/// The longest stop string, in bytes.
pub const MAX_STOP_BYTES: usize = 1024;
/// The most stop token ids that one request may carry.
pub const MAX_STOP_TOKEN_IDS: usize = 256;
/// The largest top-n of log-probabilities.
pub const MAX_TOP_LOGPROBS: u32 = 20;

/// One completion to generate.
#[derive(Debug)]
pub struct Request {
    /// Id of an attached model.
    pub model: String,
    /// Token ids, used as they are; each below the model's `n_vocab`.
    pub prompt: Vec<u32>,
    /// How the next token is chosen.
    pub sampling: SamplingParams,
    /// When to stop.
    pub stopping: Stopping,
    /// What to report besides text.
    pub output: OutputOptions,
    /// Makes the choice of tokens reproducible whatever else is in the batch.
    pub seed: u64,
    /// When to give up; checked in the queue and between layers.
    pub deadline: Option<Instant>,
    /// When the request reached the service; timings count from here.
    pub arrived: Instant,
    /// Time already spent waiting for the model to be attached.
    pub load_wait: Duration,
    /// Sequences share cached prefixes only with sequences of the same salt. Nothing is shared at present, so every salt is kept apart.
    pub cache_salt: String,
    /// The request's span; the engine opens children of it.
    pub span: tracing::Span,
}

/// How the next token is chosen from the logits.
///
/// The steps run in this order: `top_k`, `top_p`, `min_p` (each on what the one before left, with the probabilities of temperature 1), then `temperature`, then the draw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplingParams {
    /// 0 is greedy: the most likely token, the lowest id on a tie. At most 100.
    pub temperature: f32,
    /// Keep the k most likely tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep the smallest set of tokens whose probabilities add up to at least this, in (0, 1]; 1 keeps all.
    pub top_p: f32,
    /// Drop tokens less likely than this share of the most likely one, in `[0, 1]`; 0 drops none.
    pub min_p: f32,
}

impl SamplingParams {
    /// The most likely token, always.
    pub const GREEDY: SamplingParams = SamplingParams {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
    };

    /// Checks the range of every field.
    /// # Errors
    /// [`EngineError::Invalid`] names the first field that is out of range or not a number.
    pub fn validate(&self) -> Result<(), EngineError> {
        let invalid = |field, reason| Err(EngineError::Invalid { field, reason });
        if !(0.0..=100.0).contains(&self.temperature) {
            return invalid("sampling.temperature", "must be a number from 0 to 100");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return invalid("sampling.top_p", "must be a number above 0 and at most 1");
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return invalid("sampling.min_p", "must be a number from 0 to 1");
        }
        Ok(())
    }
}

/// When a completion ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stopping {
    /// At most so many tokens; `None`: until the context is full. 0 asks for the prompt's work alone.
    pub max_tokens: Option<u32>,
    /// Strings that end the output and are no part of it.
    pub stop: Vec<String>,
    /// Tokens that end the output and are no part of its text.
    pub stop_token_ids: Vec<u32>,
    /// Go on past the model's own end-of-generation tokens.
    pub ignore_eos: bool,
    /// No stop before so many tokens. Only 0 is served.
    pub min_tokens: u32,
}

/// What to report besides text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutputOptions {
    /// `Some(n)`: the log-probability of every output token and of the `n` most likely ones at its position.
    pub logprobs: Option<u32>,
    /// The same for the prompt's tokens.
    pub prompt_logprobs: Option<u32>,
}

impl Request {
    /// Checks what can be checked without knowing the model.
    /// # Errors
    /// [`EngineError::PromptEmpty`], [`EngineError::Invalid`] or [`EngineError::Unsupported`].
    pub fn validate(&self) -> Result<(), EngineError> {
        let invalid = |field, reason| Err(EngineError::Invalid { field, reason });
        if self.prompt.is_empty() {
            return Err(EngineError::PromptEmpty);
        }
        self.sampling.validate()?;
        let stopping = &self.stopping;
        if stopping.stop.len() > MAX_STOPS {
            return invalid("stopping.stop", "must have at most 16 items");
        }
        if stopping
            .stop
            .iter()
            .any(|stop| stop.is_empty() || stop.len() > MAX_STOP_BYTES)
        {
            return invalid("stopping.stop", "each must be 1 to 1,024 bytes long");
        }
        if stopping.stop_token_ids.len() > MAX_STOP_TOKEN_IDS {
            return invalid("stopping.stop_token_ids", "must have at most 256 items");
        }
        if stopping.min_tokens > 0 {
            return Err(EngineError::Unsupported {
                what: "stopping.min_tokens".to_owned(),
            });
        }
        if self.output.logprobs.is_some_and(|n| n > MAX_TOP_LOGPROBS) {
            return invalid("output.logprobs", "must be at most 20");
        }
        if self
            .output
            .prompt_logprobs
            .is_some_and(|n| n > MAX_TOP_LOGPROBS)
        {
            return invalid("output.prompt_logprobs", "must be at most 20");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sampling_ranges() {
        let check = |change: fn(&mut SamplingParams), expected: Option<&str>| {
            let mut params = SamplingParams::GREEDY;
            change(&mut params);
            let found = params.validate().err().map(|error| match error {
                EngineError::Invalid { field, .. } => field,
                other => panic!("{other}"),
            });
            assert_eq!(found, expected, "{params:?}");
        };
        check(|_| {}, None);
        check(|p| p.temperature = 100.0, None);
        check(|p| p.temperature = 100.5, Some("sampling.temperature"));
        check(|p| p.temperature = -0.1, Some("sampling.temperature"));
        check(|p| p.temperature = f32::NAN, Some("sampling.temperature"));
        check(|p| p.top_p = 0.0, Some("sampling.top_p"));
        check(|p| p.top_p = f32::NAN, Some("sampling.top_p"));
        check(|p| p.top_p = 1.1, Some("sampling.top_p"));
        check(|p| p.min_p = 1.0, None);
        check(|p| p.min_p = -1.0, Some("sampling.min_p"));
        check(|p| p.min_p = f32::INFINITY, Some("sampling.min_p"));
    }
}
