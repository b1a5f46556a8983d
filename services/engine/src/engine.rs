//! The handle that callers hold: everything goes to the worker, answers come back.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kernels::{Device, KvType};
use text::Tokenizer;
use tokio::sync::{Semaphore, oneshot, watch};
use tracing::field::Empty;

use crate::command::{Attachment, Command, Submission};
use crate::config::ModelConfig;
use crate::kv_cache::Chain;
use crate::model::Model;
use crate::plan::Plan;
use crate::residency::ModelKey;
use crate::scheduler::SequenceId;
use crate::source::WeightSource;
use crate::stats::Stats;
use crate::stream::EventStream;
use crate::upload::{self, Room};
use crate::worker::{Lines, Worker};
use crate::{AttachError, EngineError, LoadStats, Request, StartError, SubmitError};

/// What the engine is made of and what bounds it.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Where tensors live and ops run.
    pub device: Device,
    /// Bytes of weights that may be resident at once; `None` for no bound.
    pub weights_budget_bytes: Option<u64>,
    /// Another process uses the device's memory now, and will have ended when this engine begins to work: what is free counts for nothing.
    pub parked: bool,
    /// Bytes of KV blocks that may be in use at once, over all models.
    pub kv_budget_bytes: u64,
    /// How keys and values are kept.
    pub kv_type: KvType,
    /// Fetches of one model that may run at once.
    pub fetch_threads: NonZeroUsize,
    /// How far ahead of a step extents are fetched, in bytes; 0 switches prefetch off.
    pub prefetch_window_bytes: u64,
    /// Sequences of one model that may hold KV blocks at once.
    pub max_running: usize,
    /// Sequences of one model that may wait for their turn.
    pub max_queued: usize,
    /// Prompt tokens in one step, over all of its sequences.
    pub prefill_chunk_tokens: usize,
    /// How long a step that carries running sequences may take on account of the prompts beside them.
    pub step_target: Duration,
    /// Rows of one step; at least `max_running`.
    pub max_batch_rows: usize,
    /// Events of one completion that may lie unread before its sequence stands still.
    pub event_capacity: usize,
    /// How long a sequence stands still for its reader before it is ended.
    pub slow_client_timeout: Duration,
}

/// A model to attach.
#[derive(Debug)]
pub struct AttachRequest {
    /// The name under which requests ask for it.
    pub id: String,
    /// Its weights; none is read.
    pub weights: Arc<dyn WeightSource>,
    /// Its tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// Keep its extents on the device once they are there.
    pub pin: bool,
}

/// What an attach found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachReport {
    /// Which attach this is; never used twice.
    pub generation: u64,
    /// How long configuration and plan took.
    pub plan_build: Duration,
    /// Tokens that a prompt and its completion may have together.
    pub context_length: u32,
    /// Size of the vocabulary.
    pub n_vocab: u32,
    /// Extents of the plan.
    pub n_extents: u32,
    /// Bytes of the plan's extents.
    pub tensor_bytes: u64,
}

/// How far an eager load is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadProgress {
    /// Bytes that are resident.
    pub done_bytes: u64,
    /// Bytes that will be.
    pub total_bytes: u64,
}

/// What a request has to know about its model, as the worker publishes it.
#[derive(Clone, Debug)]
pub(crate) struct ModelFacts {
    pub(crate) key: ModelKey,
    pub(crate) n_vocab: u32,
    pub(crate) context_length: usize,
    /// One for each sequence of the model that may run or wait.
    pub(crate) permits: Arc<Semaphore>,
}

/// The models that requests can ask for, by id.
#[derive(Clone, Debug, Default)]
pub(crate) struct Published {
    pub(crate) models: BTreeMap<String, ModelFacts>,
}

/// Handle to the engine; clones lead to the same worker. When the last one goes, the worker ends as in [`shutdown`](Engine::shutdown), but nobody waits for it.
#[derive(Clone, Debug)]
pub struct Engine {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: EngineConfig,
    commands: Sender<Command>,
    stats: watch::Receiver<Stats>,
    published: watch::Receiver<Published>,
    last_sequence: AtomicU64,
    /// Taken by whoever waits for its end.
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Engine {
    /// Starts the worker thread.
    /// # Errors
    /// [`StartError`].
    pub fn start(config: EngineConfig) -> Result<Engine, StartError> {
        config.validate()?;
        let weights_budget_bytes = upload::budget_bytes(&config)?;
        let config = EngineConfig {
            weights_budget_bytes,
            ..config
        };
        let room = Room::new(&config.device, weights_budget_bytes).map_err(StartError::Thread)?;
        let (commands, queue) = std::sync::mpsc::channel();
        let (stats_in, stats) = watch::channel(Stats::default());
        let (published_in, published) = watch::channel(Published::default());
        let lines = Lines {
            commands: queue,
            to_self: commands.clone(),
            stats: stats_in,
            published: published_in,
        };
        let worker_config = config.clone();
        let thread = std::thread::Builder::new().name("engine".to_owned());
        let thread = thread
            .spawn(move || Worker::new(worker_config, room, lines).run())
            .map_err(StartError::Thread)?;
        let shared = Shared {
            config,
            commands,
            stats,
            published,
            last_sequence: AtomicU64::new(0),
            thread: Mutex::new(Some(thread)),
        };
        Ok(Engine {
            shared: Arc::new(shared),
        })
    }

    /// Makes a model known: builds its configuration and plan and reads no weight.
    /// # Errors
    /// [`AttachError`].
    pub async fn attach(&self, request: AttachRequest) -> Result<AttachReport, AttachError> {
        let span = tracing::info_span!("model.attach", model = %request.id, plan_build_us = Empty, extents = Empty, tensor_bytes = Empty);
        let attachment = span.in_scope(|| self.plan(request))?;
        let report = self
            .ask(|reply| Command::Attach(Box::new(attachment), reply))
            .await
            .ok_or(AttachError::ShuttingDown)??;
        span.record(
            "plan_build_us",
            u64::try_from(report.plan_build.as_micros()).unwrap_or(u64::MAX),
        );
        span.record("extents", report.n_extents);
        span.record("tensor_bytes", report.tensor_bytes);
        Ok(report)
    }

    /// The part of an attach that needs no worker.
    fn plan(&self, request: AttachRequest) -> Result<Attachment, AttachError> {
        let AttachRequest {
            id,
            weights,
            tokenizer,
            pin,
        } = request;
        let device = &self.shared.config.device;
        let begun = Instant::now();
        let config = ModelConfig::from_directory(weights.directory())?;
        config.check_device(device)?;
        let plan = Plan::build(&config, weights.directory(), |tensor_type| {
            device.supports(tensor_type)
        })?;
        if tokenizer.n_vocab() != config.n_vocab {
            return Err(AttachError::Vocabulary {
                tokenizer: tokenizer.n_vocab(),
                model: config.n_vocab,
            });
        }
        let plan_build = begun.elapsed();
        Ok(Attachment {
            id,
            model: Model::new(
                config,
                plan,
                weights,
                device.clone(),
                self.shared.config.kv_type,
            ),
            tokenizer,
            pin,
            plan_build,
        })
    }

    /// Makes everything that the model has resident at once; answers when it is. Dropping the future gives the load up.
    /// # Errors
    /// [`EngineError::UnknownModel`], [`EngineError::DoesNotFit`], [`EngineError::Fetch`], [`EngineError::DataLoss`], [`EngineError::Unloaded`], [`EngineError::ShuttingDown`].
    pub async fn load(
        &self,
        id: &str,
        progress: watch::Sender<LoadProgress>,
    ) -> Result<LoadStats, EngineError> {
        let id = id.to_owned();
        let answer = self.ask(|reply| Command::Load {
            id,
            progress,
            reply,
        });
        answer.await.ok_or(EngineError::ShuttingDown)?
    }

    /// Keeps the model's extents on the device from now on, as if it had been attached with `pin`.
    /// # Errors
    /// [`EngineError::UnknownModel`], [`EngineError::DoesNotFit`], [`EngineError::ShuttingDown`].
    pub async fn pin(&self, id: &str) -> Result<(), EngineError> {
        let id = id.to_owned();
        let answer = self.ask(|reply| Command::Pin { id, reply });
        answer.await.ok_or(EngineError::ShuttingDown)?
    }

    /// Frees the model's weights and ends its sequences with [`EngineError::Unloaded`]; answers the bytes freed. With `keep_attached` only the weights that no step holds go, and its sequences live on.
    /// # Errors
    /// [`EngineError::UnknownModel`], [`EngineError::ShuttingDown`].
    pub async fn unload(&self, id: &str, keep_attached: bool) -> Result<u64, EngineError> {
        let id = id.to_owned();
        let answer = self.ask(|reply| Command::Unload {
            id,
            keep_attached,
            reply,
        });
        answer.await.ok_or(EngineError::ShuttingDown)?
    }

    /// Hands a request to the worker.
    /// # Errors
    /// [`EngineError::UnknownModel`], [`EngineError::PromptEmpty`], [`EngineError::PromptTooLong`], [`EngineError::TokenOutOfRange`], [`EngineError::Invalid`],
    /// [`EngineError::QueueFull`], [`EngineError::ShuttingDown`]. What goes wrong later ends the stream.
    pub fn submit(&self, request: Request) -> Result<EventStream, SubmitError> {
        request.validate()?;
        let facts = self.facts(&request.model)?;
        facts.validate(&request)?;
        let permit = Arc::clone(&facts.permits)
            .try_acquire_owned()
            .map_err(|_| EngineError::QueueFull {
                max_queued: self.shared.config.max_queued,
            })?;
        let id = SequenceId(self.shared.last_sequence.fetch_add(1, Ordering::Relaxed) + 1);
        let (sink, stream) = crate::stream::channel(
            id,
            self.shared.config.event_capacity,
            self.shared.commands.clone(),
        );
        // Here and not on the worker's thread: hashing a long prompt takes time.
        let chain = Chain::new(facts.key.0, &request.cache_salt, &request.prompt);
        let submission = Submission {
            id,
            model: facts.key,
            request,
            chain,
            sink,
            permit,
        };
        let sent = self
            .shared
            .commands
            .send(Command::Submit(Box::new(submission)));
        sent.map_err(|_| EngineError::ShuttingDown)?;
        Ok(stream)
    }

    fn facts(&self, id: &str) -> Result<ModelFacts, EngineError> {
        if !self.is_running() {
            return Err(EngineError::ShuttingDown);
        }
        let published = self.shared.published.borrow();
        published
            .models
            .get(id)
            .cloned()
            .ok_or_else(|| EngineError::UnknownModel {
                model: id.to_owned(),
                known: published.models.keys().cloned().collect(),
            })
    }

    /// What the engine is doing.
    pub fn stats(&self) -> Stats {
        self.shared.stats.borrow().clone()
    }

    /// Sees every snapshot that the worker publishes.
    pub fn watch_stats(&self) -> watch::Receiver<Stats> {
        self.shared.stats.clone()
    }

    /// Whether the worker lives. It ends by [`shutdown`](Engine::shutdown), or by a fault of ours.
    pub fn is_running(&self) -> bool {
        self.shared.stats.has_changed().is_ok()
    }

    /// Ends every sequence as cancelled, frees everything and waits for the worker's end. Clones of the handle answer [`EngineError::ShuttingDown`] from then on.
    pub async fn shutdown(self) {
        let mut stats = self.shared.stats.clone();
        // It may be gone already.
        let _ = self.shared.commands.send(Command::Shutdown);
        while stats.changed().await.is_ok() {}
        let thread = self
            .shared
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        // The worker has let go of its last channel, so this takes no time. If it panicked, that was said when it happened.
        let _ = thread.map(JoinHandle::join);
    }

    /// Sends a command and waits for its answer; `None` if the worker is gone.
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.shared.commands.send(command(reply)).ok()?;
        answer.await.ok()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Shutdown);
    }
}

impl ModelFacts {
    /// Checks a request against its model.
    fn validate(&self, request: &Request) -> Result<(), EngineError> {
        if request.prompt.len() > self.context_length {
            return Err(EngineError::PromptTooLong {
                prompt_tokens: request.prompt.len(),
                context_length: self.context_length,
            });
        }
        let outside = |ids: &[u32]| {
            let index = ids.iter().position(|&id| id >= self.n_vocab)?;
            Some((index, ids[index]))
        };
        if let Some((index, token)) = outside(&request.prompt) {
            return Err(EngineError::TokenOutOfRange {
                token,
                index,
                n_vocab: self.n_vocab,
            });
        }
        let invalid = |field| {
            let reason = "must be tokens of the vocabulary";
            Err(EngineError::Invalid { field, reason })
        };
        if outside(&request.stopping.stop_token_ids).is_some() {
            return invalid("stopping.stop_token_ids");
        }
        let mut biased = request.sampling.logit_bias.iter();
        if biased.any(|&(id, _)| id >= self.n_vocab) {
            return invalid("sampling.logit_bias");
        }
        Ok(())
    }
}

impl EngineConfig {
    fn validate(&self) -> Result<(), StartError> {
        let positive = [
            ("max_running", self.max_running),
            ("prefill_chunk_tokens", self.prefill_chunk_tokens),
            ("event_capacity", self.event_capacity),
        ];
        if let Some((field, _)) = positive.into_iter().find(|&(_, value)| value == 0) {
            let reason = "must be above 0";
            return Err(StartError::Invalid { field, reason });
        }
        if self.max_batch_rows < self.max_running {
            return Err(StartError::Invalid {
                field: "max_batch_rows",
                reason: "must be at least max_running: every running sequence has a row",
            });
        }
        Ok(())
    }
}
