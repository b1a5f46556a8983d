//! What a caller asks for: one completion of one model.

use std::time::{Duration, Instant};

use crate::EngineError;

/// The most stop strings that one request may carry.
pub const MAX_STOPS: usize = 16;
/// The longest stop string, in bytes.
pub const MAX_STOP_BYTES: usize = 1024;
/// The most stop token ids that one request may carry.
pub const MAX_STOP_TOKEN_IDS: usize = 256;
/// The most biases that one request may carry.
pub const MAX_LOGIT_BIASES: usize = 1024;
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
    /// Sequences share cached prefixes only with sequences of the same salt.
    pub cache_salt: String,
    /// The request's span; the engine opens children of it.
    pub span: tracing::Span,
}

/// How the next token is chosen from the logits.
///
/// The steps run in the order of [`sampler`](crate::sampler): penalties, biases, `top_k`, `top_p`, `min_p`, `temperature`, the draw.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// 0 is greedy: the most likely token, the lowest id on a tie. At most 100.
    pub temperature: f32,
    /// Keep the k most likely tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep the smallest set of tokens whose probabilities add up to at least this, in (0, 1]; 1 keeps all.
    pub top_p: f32,
    /// Drop tokens less likely than this share of the most likely one, in `[0, 1]`; 0 drops none.
    pub min_p: f32,
    /// Divides the positive and multiplies the negative logits of tokens that occur in the prompt or in the output so far, however often; above 0, 1 changes nothing.
    pub repetition_penalty: f32,
    /// Subtracted from a token's logit for each time that it occurs in the output so far; in `[-2, 2]`.
    pub frequency_penalty: f32,
    /// Subtracted from a token's logit if it occurs in the output so far; in `[-2, 2]`.
    pub presence_penalty: f32,
    /// Tokens, each at most once, and what is added to their logits, in `[-100, 100]`.
    pub logit_bias: Vec<(u32, f32)>,
}

impl SamplingParams {
    /// The most likely token, always.
    pub const GREEDY: SamplingParams = SamplingParams {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        frequency_penalty: 0.0,
        presence_penalty: 0.0,
        logit_bias: Vec::new(),
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
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            return invalid("sampling.repetition_penalty", "must be a number above 0");
        }
        for (field, penalty) in [
            ("sampling.frequency_penalty", self.frequency_penalty),
            ("sampling.presence_penalty", self.presence_penalty),
        ] {
            if !(-2.0..=2.0).contains(&penalty) {
                return invalid(field, "must be a number from -2 to 2");
            }
        }
        self.validate_biases()
    }

    fn validate_biases(&self) -> Result<(), EngineError> {
        let invalid = |reason| {
            let field = "sampling.logit_bias";
            Err(EngineError::Invalid { field, reason })
        };
        if self.logit_bias.len() > MAX_LOGIT_BIASES {
            return invalid("must have at most 1,024 items");
        }
        let mut ids: Vec<u32> = self.logit_bias.iter().map(|&(id, _)| id).collect();
        ids.sort_unstable();
        if ids.windows(2).any(|pair| pair[0] == pair[1]) {
            return invalid("must name each token once");
        }
        let mut biases = self.logit_bias.iter();
        if biases.any(|(_, bias)| !(-100.0..=100.0).contains(bias)) {
            return invalid("each bias must be a number from -100 to 100");
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
    /// No stop before so many tokens: until then, what would end the output is not chosen, and stop strings are not looked for. At most `max_tokens`.
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
    /// [`EngineError::PromptEmpty`] or [`EngineError::Invalid`].
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
        if stopping
            .max_tokens
            .is_some_and(|max| stopping.min_tokens > max)
        {
            return invalid("stopping.min_tokens", "must be at most max_tokens");
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
        let repetition = Some("sampling.repetition_penalty");
        check(|p| p.repetition_penalty = 1e-9, None);
        check(|p| p.repetition_penalty = 0.0, repetition);
        check(|p| p.repetition_penalty = f32::INFINITY, repetition);
        check(|p| p.repetition_penalty = f32::NAN, repetition);
        check(|p| p.frequency_penalty = -2.0, None);
        check(
            |p| p.frequency_penalty = 2.1,
            Some("sampling.frequency_penalty"),
        );
        check(
            |p| p.presence_penalty = f32::NAN,
            Some("sampling.presence_penalty"),
        );
        let bias = Some("sampling.logit_bias");
        check(|p| p.logit_bias = vec![(1, 100.0), (0, -100.0)], None);
        check(|p| p.logit_bias = vec![(1, 1.0), (2, 0.0), (1, 1.0)], bias);
        check(|p| p.logit_bias = vec![(1, f32::NAN)], bias);
        check(
            |p| p.logit_bias = (0..1025).map(|id| (id, 0.0)).collect(),
            bias,
        );
    }
}
