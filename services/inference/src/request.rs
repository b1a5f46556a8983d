//! From a `GenerateRequest` to what the engine is asked: the last sight of the protocol.
//!
//! Two steps, because tokens need a model and a model is only looked for once the request makes sense: [`Checked::try_from`] looks at every field, [`Checked::into_engine`] adds the rest.

mod chat;
mod check;

use std::{
    collections::HashSet,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    time::{Duration, Instant},
};

use engine::{MAX_LOGIT_BIASES, OutputOptions, SamplingParams, Stopping};
use proto::inference::v1::{
    Constraint, GenerateRequest, Sampling, Stopping as StoppingFields, constraint, generate_request,
};
use text::chat::Conversation;
use tracing::Span;

use self::check::Check;
use crate::error::Error;

/// Longest `request_id` and `cache_salt`, in characters.
const ID_CHARS_MAX: usize = 128;
/// Longest model id, in bytes: a path of a file system.
const MODEL_BYTES_MAX: usize = 4096;

/// A request whose fields have been looked at.
#[derive(Debug, PartialEq)]
pub(crate) struct Checked {
    /// The caller's id, or one made here.
    pub(crate) request_id: String,
    /// Id of the model; `None` means the only attached one.
    pub(crate) model: Option<String>,
    /// What to go on from.
    pub(crate) prompt: Prompt,
    /// The caller's seed, or one drawn here.
    pub(crate) seed: u64,
    /// How the next token is chosen.
    pub(crate) sampling: SamplingParams,
    /// When to stop.
    pub(crate) stopping: Stopping,
    /// What to report besides text.
    pub(crate) output: OutputOptions,
    /// Whom cached prefixes may be shared with.
    pub(crate) cache_salt: String,
}

/// A prompt, not empty.
#[derive(Debug, PartialEq)]
pub(crate) enum Prompt {
    /// To be tokenised.
    Text(String),
    /// To be rendered by the model's template and tokenised.
    Chat(Conversation),
    /// Used as they are.
    Tokens(Vec<u32>),
}

/// What the engine wants to know besides the caller's fields.
#[derive(Debug)]
pub(crate) struct Admission {
    /// Id of the attached model.
    pub(crate) model: String,
    /// The prompt's tokens.
    pub(crate) tokens: Vec<u32>,
    /// When the request reached us.
    pub(crate) arrived: Instant,
    /// When its caller stops caring.
    pub(crate) deadline: Option<Instant>,
    /// How long it waited for the model to be attached.
    pub(crate) load_wait: Duration,
    /// Its span.
    pub(crate) span: Span,
}

// === impl Checked ===

impl TryFrom<GenerateRequest> for Checked {
    type Error = Error;

    /// # Errors
    /// [`Error::Invalid`] with every field that is out of range; else [`Error::NotServed`] with the first that is not served.
    fn try_from(request: GenerateRequest) -> Result<Checked, Error> {
        let mut check = Check::default();
        let prompt = prompt(&mut check, request.prompt);
        check.that(
            chars_fit(&request.request_id),
            "request_id",
            "must have at most 128 characters",
        );
        check.that(
            chars_fit(&request.cache_salt),
            "cache_salt",
            "must have at most 128 characters",
        );
        check.that(
            request.model.len() <= MODEL_BYTES_MAX,
            "model",
            "must have at most 4,096 bytes",
        );
        let wanted = request.sampling.unwrap_or_default();
        let seed = wanted.seed;
        let sampling = sampling(&mut check, wanted);
        let stopping = stopping(&mut check, request.stopping.unwrap_or_default());
        constraint(&mut check, request.constraint);
        let output = request.output.unwrap_or_default();
        let output = OutputOptions {
            logprobs: check.top_n(output.logprobs, "output.logprobs"),
            prompt_logprobs: check.top_n(output.prompt_logprobs, "output.prompt_logprobs"),
        };
        check.finish()?;
        let request_id = match request.request_id {
            id if id.is_empty() => format!("{:016x}", draw()),
            id => id,
        };
        Ok(Checked {
            request_id,
            model: Some(request.model).filter(|model| !model.is_empty()),
            prompt: prompt.ok_or(Error::Lost {
                what: "the check of a prompt",
            })?,
            seed: seed.unwrap_or_else(draw),
            sampling,
            stopping,
            output,
            cache_salt: request.cache_salt,
        })
    }
}

impl Checked {
    /// Checks the token ids that were sent against the model's vocabulary.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the first id of each list that is outside it.
    pub(crate) fn check_tokens(&self, n_vocab: u32) -> Result<(), Error> {
        let mut check = Check::default();
        let outside = |id: u32| id >= n_vocab;
        let mut list = |found: Option<usize>, field, below| {
            if let Some(index) = found {
                let reason = format!("must be below the vocabulary's size, {n_vocab}");
                check.item(false, field, index, below, &reason);
            }
        };
        if let Prompt::Tokens(ids) = &self.prompt {
            let found = ids.iter().position(|&id| outside(id));
            list(found, "token_ids.ids", "");
        }
        let stops = &self.stopping.stop_token_ids;
        let found = stops.iter().position(|&id| outside(id));
        list(found, "stopping.stop_token_ids", "");
        let biases = &self.sampling.logit_bias;
        let found = biases.iter().position(|&(id, _)| outside(id));
        list(found, "sampling.logit_bias", ".token_id");
        check.finish()
    }

    /// What the engine is asked. The prompt itself is in `admission`, as tokens.
    pub(crate) fn into_engine(self, admission: Admission) -> engine::Request {
        engine::Request {
            model: admission.model,
            prompt: admission.tokens,
            sampling: self.sampling,
            stopping: self.stopping,
            output: self.output,
            seed: self.seed,
            deadline: admission.deadline,
            arrived: admission.arrived,
            load_wait: admission.load_wait,
            cache_salt: self.cache_salt,
            span: admission.span,
        }
    }
}

/// `None` only if the check failed.
fn prompt(check: &mut Check, prompt: Option<generate_request::Prompt>) -> Option<Prompt> {
    use generate_request::Prompt as Field;
    match prompt {
        None => {
            check.that(false, "prompt", "must be set: text, token_ids or chat");
            None
        }
        Some(Field::Text(text)) => {
            check.that(!text.is_empty(), "text", "must not be empty");
            Some(Prompt::Text(text))
        }
        Some(Field::TokenIds(tokens)) => {
            check.that(!tokens.ids.is_empty(), "token_ids.ids", "must not be empty");
            Some(Prompt::Tokens(tokens.ids))
        }
        Some(Field::Chat(prompt)) => Some(Prompt::Chat(chat::conversation(check, prompt))),
    }
}

fn sampling(check: &mut Check, wanted: Sampling) -> SamplingParams {
    let greedy = SamplingParams::GREEDY;
    let biases = wanted.logit_bias;
    let params = SamplingParams {
        temperature: wanted.temperature.unwrap_or(greedy.temperature),
        top_k: wanted.top_k.unwrap_or(greedy.top_k),
        top_p: wanted.top_p.unwrap_or(greedy.top_p),
        min_p: wanted.min_p.unwrap_or(greedy.min_p),
        repetition_penalty: wanted
            .repetition_penalty
            .unwrap_or(greedy.repetition_penalty),
        frequency_penalty: wanted.frequency_penalty.unwrap_or(greedy.frequency_penalty),
        presence_penalty: wanted.presence_penalty.unwrap_or(greedy.presence_penalty),
        logit_bias: biases
            .iter()
            .map(|bias| (bias.token_id, bias.bias))
            .collect(),
    };
    let in_0_100 = (0.0..=100.0).contains(&params.temperature);
    check.that(
        in_0_100,
        "sampling.temperature",
        "must be a number from 0 to 100",
    );
    let in_0_1 = params.top_p > 0.0 && params.top_p <= 1.0;
    check.that(
        in_0_1,
        "sampling.top_p",
        "must be a number above 0 and at most 1",
    );
    let in_0_1 = (0.0..=1.0).contains(&params.min_p);
    check.that(in_0_1, "sampling.min_p", "must be a number from 0 to 1");
    penalties(check, &params);
    logit_biases(check, &params.logit_bias);
    params
}

fn penalties(check: &mut Check, params: &SamplingParams) {
    let repetition = params.repetition_penalty;
    check.that(
        repetition > 0.0 && repetition.is_finite(),
        "sampling.repetition_penalty",
        "must be a number above 0",
    );
    for (field, penalty) in [
        ("sampling.frequency_penalty", params.frequency_penalty),
        ("sampling.presence_penalty", params.presence_penalty),
    ] {
        check.that(
            (-2.0..=2.0).contains(&penalty),
            field,
            "must be a number from -2 to 2",
        );
    }
}

fn logit_biases(check: &mut Check, biases: &[(u32, f32)]) {
    const LIST: &str = "sampling.logit_bias";
    check.that(
        biases.len() <= MAX_LOGIT_BIASES,
        LIST,
        "must have at most 1,024 items",
    );
    let mut named = HashSet::new();
    // A list that is refused for its length is not looked at item by item.
    for (index, &(token, bias)) in biases.iter().take(MAX_LOGIT_BIASES).enumerate() {
        check.item(
            named.insert(token),
            LIST,
            index,
            ".token_id",
            "must be named once",
        );
        check.item(
            (-100.0..=100.0).contains(&bias),
            LIST,
            index,
            ".bias",
            "must be a number from -100 to 100",
        );
    }
}

fn stopping(check: &mut Check, wanted: StoppingFields) -> Stopping {
    use engine::{MAX_STOP_BYTES, MAX_STOP_TOKEN_IDS, MAX_STOPS};
    check.that(
        wanted.stop.len() <= MAX_STOPS,
        "stopping.stop",
        "must have at most 16 items",
    );
    // A list that is refused for its length is not looked at item by item.
    for (index, stop) in wanted.stop.iter().take(MAX_STOPS).enumerate() {
        let valid = (1..=MAX_STOP_BYTES).contains(&stop.len());
        check.item(
            valid,
            "stopping.stop",
            index,
            "",
            "must have 1 to 1,024 bytes",
        );
    }
    let few = wanted.stop_token_ids.len() <= MAX_STOP_TOKEN_IDS;
    check.that(
        few,
        "stopping.stop_token_ids",
        "must have at most 256 items",
    );
    let within = wanted.max_tokens.is_none_or(|max| wanted.min_tokens <= max);
    check.that(within, "stopping.min_tokens", "must be at most max_tokens");
    Stopping {
        max_tokens: wanted.max_tokens,
        stop: wanted.stop,
        stop_token_ids: wanted.stop_token_ids,
        ignore_eos: wanted.ignore_eos,
        min_tokens: wanted.min_tokens,
    }
}

fn constraint(check: &mut Check, wanted: Option<Constraint>) {
    let Some(wanted) = wanted else { return };
    match wanted.kind {
        None => check.that(
            false,
            "constraint",
            "must name a kind: json_schema, regex or grammar",
        ),
        Some(constraint::Kind::JsonSchema(_)) => check.served(false, "constraint.json_schema"),
        Some(constraint::Kind::Regex(_)) => check.served(false, "constraint.regex"),
        Some(constraint::Kind::Grammar(_)) => check.served(false, "constraint.grammar"),
    }
}

fn chars_fit(text: &str) -> bool {
    text.len() <= ID_CHARS_MAX || text.chars().count() <= ID_CHARS_MAX
}

/// A number that nobody else gets: for seeds and ids, not for secrets. The standard library seeds its hash maps from the system's entropy.
pub(crate) fn draw() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests;
