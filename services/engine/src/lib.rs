//! Sequences in, token events out.

mod command;
pub mod config;
mod engine;
mod error;
mod event;
mod fetch_pool;
pub mod kv_cache;
pub mod model;
pub mod plan;
mod request;
pub mod residency;
pub mod sampler;
pub mod scheduler;
mod sequence;
mod source;
mod stats;
mod stream;
mod upload;
mod worker;

pub use engine::{AttachReport, AttachRequest, Engine, EngineConfig, LoadProgress};
pub use error::{AttachError, Cause, EngineError, Resource, StartError, SubmitError};
pub use event::{
    FinishReason, LoadStats, StopMatch, Timings, Token, TokenEvent, TokenLogprob, Usage,
};
pub use request::{
    MAX_LOGIT_BIASES, MAX_STOP_BYTES, MAX_STOP_TOKEN_IDS, MAX_STOPS, MAX_TOP_LOGPROBS,
    OutputOptions, Request, SamplingParams, Stopping,
};
pub use source::{Bytes, SourceError, WeightSource};
pub use stats::{ModelStats, Stats, WIDE_STEP_ROWS};
pub use stream::EventStream;
