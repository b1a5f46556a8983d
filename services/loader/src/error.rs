//! Why a call was refused or failed.

use std::io;

use gguf::MissingTensor;
use weights::{FetchError, ResidencyError};

/// What goes wrong behind an rpc, as data. [`crate::status`] says what a client is told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No such model.
    #[error("no model {model:?}")]
    UnknownModel {
        /// What was asked for.
        model: String,
        /// Models that there are; not all of them if there are many.
        known: Vec<String>,
    },
    /// The model's file cannot be used.
    #[error("model {model:?} is invalid: {reason}")]
    InvalidModel {
        /// The model.
        model: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The token was never issued, is used up, or has timed out.
    #[error("the lease token is unknown, used up or expired")]
    UnknownLease,
    /// The model has no such tensor.
    #[error(transparent)]
    UnknownTensor(#[from] MissingTensor),
    /// A range that leaves the tensor.
    #[error(
        "bytes {offset_bytes}..+{length_bytes} leave tensor {tensor:?} of {tensor_bytes} bytes"
    )]
    OutOfRange {
        /// The tensor.
        tensor: String,
        /// First byte asked for.
        offset_bytes: u64,
        /// How many.
        length_bytes: u64,
        /// How many there are.
        tensor_bytes: u64,
    },
    /// A field of the request breaks its rule.
    #[error("{field}: {rule}")]
    BadField {
        /// The field.
        field: &'static str,
        /// The rule.
        rule: &'static str,
    },
    /// Something is limited, and all of it is in use.
    #[error("too many {what}: the limit is {limit}")]
    TooMany {
        /// What is limited.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// The watcher did not take changes in as fast as they came.
    #[error("fell behind by {missed} changes; start to watch again")]
    WatcherBehind {
        /// How many it did not get.
        missed: u64,
    },
    /// An answer that no client should be made to swallow.
    #[error("the answer is {bytes} bytes long, more than {limit}")]
    AnswerTooLong {
        /// Its length.
        bytes: usize,
        /// The most.
        limit: usize,
    },
    /// The model does not fit the cache budget.
    #[error("model {model:?} does not fit the cache budget: {need_bytes} bytes needed, {free_bytes} free, {} short", need_bytes.saturating_sub(*free_bytes))]
    OverBudget {
        /// The model.
        model: String,
        /// Bytes of its tensors.
        need_bytes: u64,
        /// Bytes of the budget that are not pinned for others.
        free_bytes: u64,
    },
    /// The file changed since it was listed.
    #[error("the files of model {model:?} changed since they were listed")]
    Changed {
        /// The model.
        model: String,
    },
    /// Reading the model failed.
    #[error("reading model {model:?}: {source}")]
    Fetch {
        /// The model.
        model: String,
        /// Why.
        source: FetchError,
    },
    /// The kernel does not tell what is in the page cache.
    #[error("residency of model {model:?}: {source}")]
    Residency {
        /// The model.
        model: String,
        /// Why not.
        source: ResidencyError,
    },
    /// The caller's deadline has passed.
    #[error("the deadline has passed")]
    Deadline,
    /// The daemon is ending.
    #[error("the daemon is shutting down")]
    ShuttingDown,
    /// The system failed us.
    #[error("{doing}: {source}")]
    System {
        /// What we were doing.
        doing: &'static str,
        /// What happened.
        source: io::Error,
    },
    /// A thread that worked on the call is gone: a bug.
    #[error("a worker died")]
    WorkerDied,
}
