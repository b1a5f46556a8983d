//! Why a request, an attach or the start of the engine failed.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use gguf::ExtentId;

use crate::config::ConfigError;
use crate::plan::PlanError;

/// What lies below an error. Shared, because one failed fetch ends every sequence that waited for it.
pub type Cause = Arc<dyn Error + Send + Sync>;

/// What did not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Device memory for weights.
    Weights,
    /// Device memory for the KV cache.
    KvCache,
}

impl std::fmt::Display for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Resource::Weights => "weights",
            Resource::KvCache => "KV cache",
        })
    }
}

/// Why a request ended without an answer, or a command failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError {
    /// No such model is attached.
    #[error("model '{model}' is not attached")]
    UnknownModel {
        /// The id that was asked for.
        model: String,
        /// The ids of the attached models.
        known: Vec<String>,
    },
    /// A prompt without tokens.
    #[error("the prompt has no tokens")]
    PromptEmpty,
    /// The prompt leaves the context.
    #[error("the prompt has {prompt_tokens} tokens; the context holds {context_length}")]
    PromptTooLong {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Tokens of the model's context.
        context_length: usize,
    },
    /// A token id that the vocabulary does not have.
    #[error("token {token} at index {index} is outside the vocabulary of {n_vocab} tokens")]
    TokenOutOfRange {
        /// The id.
        token: u32,
        /// Where in the prompt.
        index: usize,
        /// Size of the vocabulary.
        n_vocab: u32,
    },
    /// A budget is too small for what was asked.
    #[error("{resource}: {need_bytes} bytes are needed, {free_bytes} are free, {} short", need_bytes.saturating_sub(*free_bytes))]
    DoesNotFit {
        /// Which budget.
        resource: Resource,
        /// Bytes that must be there at once.
        need_bytes: u64,
        /// Bytes that can be had.
        free_bytes: u64,
    },
    /// As many requests wait as may wait.
    #[error("the queue is full: {max_queued} requests wait")]
    QueueFull {
        /// The bound.
        max_queued: usize,
    },
    /// One sequence alone outgrew the KV cache.
    #[error("the sequence needs {need_blocks} KV blocks; there are {total_blocks}")]
    KvFull {
        /// Blocks for the whole sequence.
        need_blocks: usize,
        /// Blocks that one sequence can have.
        total_blocks: usize,
    },
    /// The reader of the events did not keep up.
    #[error("events were not read for {} ms", waited.as_millis())]
    SlowClient {
        /// How long the sequence stood still for its reader.
        waited: Duration,
    },
    /// The request's deadline passed.
    #[error("the deadline passed")]
    DeadlineExceeded,
    /// Whoever asked let go of the stream. Nobody reads this; it is what the request's span says.
    #[error("cancelled by the caller")]
    Cancelled,
    /// A weight could not be fetched; trying again may help.
    #[error("model '{model}': extent {} could not be fetched", extent.0)]
    Fetch {
        /// The model.
        model: String,
        /// The extent.
        extent: ExtentId,
        /// What the source said.
        #[source]
        cause: Cause,
    },
    /// The file changed or was truncated while in use. The model serves nothing more until it is attached anew.
    #[error("model '{model}': the file changed while in use")]
    DataLoss {
        /// The model.
        model: String,
        /// What the source said; `None` when a read of the mapping found it.
        #[source]
        cause: Option<Cause>,
    },
    /// A field is out of range.
    #[error("{field}: {reason}")]
    Invalid {
        /// Path of the field, as the protocol names it.
        field: &'static str,
        /// What it must be.
        reason: &'static str,
    },
    /// The model was unloaded meanwhile.
    #[error("model '{model}' was unloaded")]
    Unloaded {
        /// The model.
        model: String,
    },
    /// The engine is going down, or is gone.
    #[error("the engine is shutting down")]
    ShuttingDown,
    /// The device has no memory for the model's steps beside the models that run; trying again may help.
    #[error(
        "the device has no memory left for steps of model '{model}' beside those that run: unload a model, or give --kv-budget or --weights-budget less"
    )]
    DeviceMemory {
        /// The model.
        model: String,
        /// What the device said.
        #[source]
        cause: Cause,
    },
    /// The device refused an operation: a fault of ours or of the machine.
    #[error("the device failed")]
    Device(#[source] Cause),
}

/// What [`Engine::submit`](crate::Engine::submit) answers at once; everything else arrives on the stream.
pub type SubmitError = EngineError;

/// Why a model could not be attached. No weight has been read.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The metadata does not describe a model that can run here.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The tensors do not make up the model that the metadata describes.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Tokenizer and model disagree.
    #[error("the tokenizer has {tokenizer} tokens, the model's vocabulary {model}")]
    Vocabulary {
        /// Tokens of the tokenizer.
        tokenizer: u32,
        /// Rows of the embedding.
        model: u32,
    },
    /// A budget is too small even for the largest layer, or for one KV block.
    #[error("{resource}: {need_bytes} bytes are needed, {free_bytes} are free, {} short", need_bytes.saturating_sub(*free_bytes))]
    DoesNotFit {
        /// Which budget.
        resource: Resource,
        /// Bytes that must be there at once.
        need_bytes: u64,
        /// Bytes that can be had.
        free_bytes: u64,
    },
    /// The model's fetch threads could not be made.
    #[error("the fetch threads could not be started")]
    Threads(#[source] std::io::Error),
    /// The id is taken.
    #[error("model '{id}' is already attached")]
    AlreadyAttached {
        /// The id.
        id: String,
    },
    /// The engine is going down, or is gone.
    #[error("the engine is shutting down")]
    ShuttingDown,
}

/// Why the engine could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A limit of the configuration is zero or contradicts another.
    #[error("{field}: {reason}")]
    Invalid {
        /// The field of [`EngineConfig`](crate::EngineConfig).
        field: &'static str,
        /// What it must be.
        reason: &'static str,
    },
    /// The device does not have the memory that the budgets ask for.
    #[error("the budgets need {need_bytes} bytes of device memory, {free_bytes} are free: {} short", need_bytes - free_bytes)]
    DeviceMemory {
        /// What weights, KV cache and working memory take.
        need_bytes: u64,
        /// What is free now.
        free_bytes: u64,
    },
    /// The device failed.
    #[error("the device failed")]
    Device(#[from] kernels::hip::HipError),
    /// The worker's thread could not be made.
    #[error("the worker thread could not be started")]
    Thread(#[source] std::io::Error),
}
