//! Hop 1: what travels to the worker. Requests, commands, the ends of fetches and the wishes of readers all come over one channel, so the worker waits in one place.
//!
//! # What bounds it
//! Each request holds a permit of its model until its sequence ends, and there are as many permits as sequences may run and wait; a stream sends at most one message per event that it reads; fetches are bounded by
//! the residency's limits; every other command has a caller that waits for its answer.

use std::sync::Arc;
use std::time::Duration;

use text::Tokenizer;
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use crate::engine::LoadProgress;
use crate::fetch_pool::FetchDone;
use crate::kv_cache::Chain;
use crate::model::Model;
use crate::residency::ModelKey;
use crate::scheduler::SequenceId;
use crate::stream::EventSink;
use crate::{AttachError, AttachReport, EngineError, LoadStats, Request};

/// One message to the worker.
#[derive(Debug)]
pub(crate) enum Command {
    /// Take a model in.
    Attach(
        Box<Attachment>,
        oneshot::Sender<Result<AttachReport, AttachError>>,
    ),
    /// Make a model wholly resident.
    Load {
        id: String,
        progress: watch::Sender<LoadProgress>,
        reply: oneshot::Sender<Result<LoadStats, EngineError>>,
    },
    /// Keep a model's extents once they are there.
    Pin {
        id: String,
        reply: oneshot::Sender<Result<(), EngineError>>,
    },
    /// Free a model's weights.
    Unload {
        id: String,
        keep_attached: bool,
        reply: oneshot::Sender<Result<u64, EngineError>>,
    },
    /// Queue a sequence.
    Submit(Box<Submission>),
    /// A reader for whom a sequence stands still has read something.
    Read(SequenceId),
    /// A reader has gone.
    Gone(SequenceId),
    /// A fetch ended.
    Fetched(ModelKey, FetchDone),
    /// End everything.
    Shutdown,
}

/// A model whose plan stands.
#[derive(Debug)]
pub(crate) struct Attachment {
    pub(crate) id: String,
    pub(crate) model: Model,
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) pin: bool,
    pub(crate) plan_build: Duration,
}

/// A request on its way in.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) id: SequenceId,
    pub(crate) model: ModelKey,
    pub(crate) request: Request,
    /// The prompt as names of blocks.
    pub(crate) chain: Chain,
    pub(crate) sink: EventSink,
    pub(crate) permit: OwnedSemaphorePermit,
}
