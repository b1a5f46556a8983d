//! What comes back: the events of one completion, and the stream that carries them.

use std::time::Duration;

/// One event of a completion, in this order: `Started`, `Prefilled`, any number of `Delta`, `Finished`.
#[derive(Clone, Debug, PartialEq)]
pub enum TokenEvent {
    /// The sequence is in its first batch.
    Started {
        /// Number of prompt tokens.
        prompt_tokens: u32,
    },
    /// The prompt's KV cache stands.
    Prefilled {
        /// Prompt tokens whose KV cache was found instead of computed.
        cached_tokens: u32,
        /// Where the weights came from.
        load: LoadStats,
        /// When asked for: item `i` scores prompt token `i`; item 0 carries no log-probability.
        prompt_logprobs: Vec<TokenLogprob>,
    },
    /// New output since the event before.
    Delta {
        /// Complete UTF-8; what might be part of a character or of a stop string is held back.
        text: String,
        /// The tokens that this event reports.
        tokens: Vec<Token>,
    },
    /// The completion is over.
    Finished {
        /// Why.
        reason: FinishReason,
        /// What it took.
        usage: Usage,
        /// How long each part took.
        timings: Timings,
    },
}

/// One output token.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// Its own bytes, which need not be valid UTF-8; empty for control tokens.
    pub bytes: Vec<u8>,
    /// Natural log of its probability in the model's raw distribution, when asked for.
    pub logprob: Option<f32>,
    /// The most likely tokens at its position and their log-probabilities, best first.
    pub top: Vec<(u32, f32)>,
}

/// A prompt token's score.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprob {
    /// Its id.
    pub id: u32,
    /// Natural log of its probability given the tokens before it; `None` for the first.
    pub logprob: Option<f32>,
    /// The most likely tokens at its position and their log-probabilities, best first.
    pub top: Vec<(u32, f32)>,
}

/// Where the weights that a piece of work used came from, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadStats {
    /// Moved for this load from the storage device.
    pub cold_bytes: u64,
    /// Moved for this load out of the page cache.
    pub warm_bytes: u64,
    /// Used, and moved by no fetch of this load.
    pub hot_bytes: u64,
    /// Moved for this load from a file system that does not account for its reads.
    pub unknown_bytes: u64,
    /// Of the moved ones: read by this process because the daemon did not answer.
    pub self_read_bytes: u64,
}

impl LoadStats {
    /// Bytes that fetches of this load moved.
    pub fn moved_bytes(&self) -> u64 {
        self.cold_bytes + self.warm_bytes + self.unknown_bytes
    }
}

/// Why a completion ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// Something that ends the output was found.
    Stop(StopMatch),
    /// `max_tokens` were made, or the context is full.
    Length,
    /// The engine went down meanwhile.
    Cancelled,
}

/// What stopped a completion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopMatch {
    /// One of the request's stop strings.
    Text(String),
    /// One of the request's stop tokens, or an end-of-generation token of the model.
    Token(u32),
}

/// Token counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Prompt tokens, cached ones included.
    pub prompt_tokens: u32,
    /// Output tokens, the one that stopped it included.
    pub completion_tokens: u32,
    /// Prompt tokens whose KV cache was found instead of computed.
    pub cached_tokens: u32,
}

/// Wall-clock parts of a completion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// From arrival to the first batch that held this sequence, without the wait for an attach.
    pub queue: Duration,
    /// Waiting for the model: attaching it, and steps that stood still for a weight.
    pub load_wait: Duration,
    /// From the first batch to the end of the prompt's work, waits for weights excluded.
    pub prefill: Duration,
    /// From arrival to the first output token.
    pub time_to_first_token: Duration,
    /// From the first output token to the last.
    pub decode: Duration,
    /// From arrival to the end.
    pub total: Duration,
}
