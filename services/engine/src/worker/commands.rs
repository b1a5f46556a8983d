use std::sync::Arc;

use tokio::sync::{Semaphore, oneshot, watch};

use super::Worker;
use super::attached::{Attached, LoadWaiter};
use crate::command::{Attachment, Command, Submission};
use crate::engine::{LoadProgress, ModelFacts};
use crate::error::Resource;
use crate::fetch_pool::FetchPool;
use crate::kv_cache::{BLOCK_LEN, KvCache};
use crate::model::Model;
use crate::residency::{ModelExtents, ModelKey, Shortfall};
use crate::scheduler::Arrival;
use crate::sequence::{Ending, Place, Sequence};
use crate::stats::ModelStats;
use crate::stream::Flow;
use crate::{AttachError, AttachReport, EngineError, LoadStats};

/// Where the answer to a load goes.
type LoadReply = oneshot::Sender<Result<LoadStats, EngineError>>;

fn does_not_fit(short: Shortfall) -> EngineError {
    EngineError::DoesNotFit {
        resource: Resource::Weights,
        need_bytes: short.need_bytes,
        free_bytes: short.free_bytes,
    }
}

impl Worker {
    /// Whoever asked and went away meanwhile does not hear the answer.
    pub(super) fn handle(&mut self, command: Command) {
        self.changed = true;
        match command {
            Command::Attach(attachment, reply) => {
                let _ = reply.send(self.attach(*attachment));
            }
            Command::Load {
                id,
                progress,
                reply,
            } => self.load(&id, progress, reply),
            Command::Pin { id, reply } => {
                let pinned = self.pin(&id);
                self.publish();
                let _ = reply.send(pinned);
            }
            Command::Unload {
                id,
                keep_attached,
                reply,
            } => {
                let freed = self.unload(&id, keep_attached);
                self.publish();
                let _ = reply.send(freed);
            }
            Command::Submit(submission) => self.submit(*submission),
            Command::Read(id) => {
                if let Some(sequence) = self.sequences.get_mut(&id)
                    && sequence.flush() == Flow::Open
                {
                    self.scheduler.unpark(id);
                }
            }
            Command::Gone(id) => self.end(id, Err(EngineError::Cancelled)),
            Command::Fetched(key, done) => self.fetched(key, done),
            Command::Shutdown => self.stopping = true,
        }
    }

    fn attach(&mut self, attachment: Attachment) -> Result<AttachReport, AttachError> {
        let Attachment {
            id,
            model,
            pin,
            plan_build,
            ..
        } = attachment;
        if self.key_of(&id).is_some() {
            return Err(AttachError::AlreadyAttached { id });
        }
        let directory = Arc::clone(model.source().directory());
        let extents = extents_of(&model, pin);
        self.residency
            .fits(&extents)
            .map_err(|short| AttachError::DoesNotFit {
                resource: Resource::Weights,
                need_bytes: short.need_bytes,
                free_bytes: short.free_bytes,
            })?;
        let cache = self.kv_cache(&model)?;

        self.last_generation += 1;
        let key = ModelKey(self.last_generation);
        let pool = self.fetch_pool(key, &model)?;
        let report = AttachReport {
            generation: key.0,
            plan_build,
            context_length: model.config().context_length,
            n_vocab: model.config().n_vocab,
            n_extents: u32::try_from(model.plan().n_extents()).unwrap_or(u32::MAX),
            tensor_bytes: model.plan().tensor_bytes(&directory),
        };
        let counts = ModelStats {
            generation: key.0,
            tensor_bytes: report.tensor_bytes,
            ..ModelStats::default()
        };
        let attached = Attached {
            id,
            model,
            tokenizer: attachment.tokenizer,
            pool,
            step: None,
            workspace: None,
            n_blocks: cache.total_blocks(),
            degraded: false,
            waiters: Vec::new(),
            load: None,
            counts,
        };
        self.residency.add(key, extents);
        self.scheduler.add_model(key, cache);
        self.announce(key, &attached);
        self.models.insert(key, attached);
        self.publish();
        Ok(report)
    }

    /// Threads that fetch the model's extents and report to the worker.
    fn fetch_pool(&self, key: ModelKey, model: &Model) -> Result<FetchPool, AttachError> {
        let to_self = self.to_self.clone();
        let done = move |done| {
            // The worker outlives every fetch that it waits for; a later one interests nobody.
            let _ = to_self.send(Command::Fetched(key, done));
        };
        let n_threads = self.config.fetch_threads.get();
        let room = self.room.as_ref().map(|room| (room, model.layouts()));
        FetchPool::start(model.source(), n_threads, room, done).map_err(AttachError::Threads)
    }

    /// A cache for as many blocks as the budget pays for and the model's sequences can use.
    fn kv_cache(&self, model: &Model) -> Result<KvCache, AttachError> {
        let budget = self.scheduler.kv_budget();
        let block_bytes = model
            .kv_shape(1)
            .block_bytes()
            .map_or(u64::MAX, |bytes| bytes as u64);
        if block_bytes > budget.total_bytes() {
            return Err(AttachError::DoesNotFit {
                resource: Resource::KvCache,
                need_bytes: block_bytes,
                free_bytes: budget.total_bytes(),
            });
        }
        let per_sequence = (model.config().context_length as usize).div_ceil(BLOCK_LEN);
        let useful = per_sequence.saturating_mul(self.config.max_running);
        Ok(KvCache::new(
            budget,
            block_bytes,
            u32::try_from(useful).unwrap_or(u32::MAX),
        ))
    }

    /// Lets requests for the model in.
    fn announce(&self, key: ModelKey, attached: &Attached) {
        let config = attached.model.config();
        let facts = ModelFacts {
            key,
            n_vocab: config.n_vocab,
            context_length: config.context_length as usize,
            permits: Arc::new(Semaphore::new(
                self.config.max_running + self.config.max_queued,
            )),
        };
        self.published.send_modify(|published| {
            published.models.insert(attached.id.clone(), facts);
        });
    }

    fn submit(&mut self, submission: Submission) {
        let Submission {
            id,
            model,
            request,
            chain,
            sink,
            permit,
        } = submission;
        let refusal = match self.models.get(&model) {
            None => Some(EngineError::Unloaded {
                model: request.model.clone(),
            }),
            Some(attached) if attached.degraded => Some(attached.degraded_error()),
            Some(_) => None,
        };
        if let Some(error) = refusal {
            self.endings.push(Ending::refused(sink, error));
            return;
        }
        let attached = &self.models[&model];
        let arrival = Arrival {
            model,
            chain,
            score_prompt: request.output.prompt_logprobs.is_some(),
            deadline: request.deadline,
        };
        let place = Place {
            model,
            tokenizer: Arc::clone(&attached.tokenizer),
            context_length: attached.model.config().context_length as usize,
            n_extents: attached.model.source().directory().extents().len(),
            stamp: self.residency.now(),
            sink,
            permit,
        };
        self.scheduler.add(id, arrival);
        self.sequences.insert(id, Sequence::new(request, place));
    }

    fn load(&mut self, id: &str, progress: watch::Sender<LoadProgress>, reply: LoadReply) {
        let Some(key) = self.key_of(id) else {
            let _ = reply.send(Err(self.unknown(id)));
            return;
        };
        let attached = self.models.get_mut(&key).expect("its key was just found");
        if attached.degraded {
            let _ = reply.send(Err(attached.degraded_error()));
            return;
        }
        if let Err(short) = self.residency.fits_whole(key) {
            let _ = reply.send(Err(does_not_fit(short)));
            return;
        }
        attached.waiters.push(LoadWaiter {
            stamp: self.residency.now(),
            progress,
            reply,
        });
        self.residency.load_all(key);
        self.report_progress(key);
    }

    fn pin(&mut self, id: &str) -> Result<(), EngineError> {
        let key = self.key_of(id).ok_or_else(|| self.unknown(id))?;
        self.residency.fits_whole(key).map_err(does_not_fit)?;
        self.residency.pin(key);
        Ok(())
    }

    fn unload(&mut self, id: &str, keep_attached: bool) -> Result<u64, EngineError> {
        let key = self.key_of(id).ok_or_else(|| self.unknown(id))?;
        if !keep_attached {
            let error = EngineError::Unloaded {
                model: id.to_owned(),
            };
            return Ok(self.detach(key, &error));
        }
        self.scheduler.cache(key).forget();
        let before_bytes = self.residency.resident_bytes(key);
        let attached = self.models.get_mut(&key).expect("its key was just found");
        for extent in self.residency.clear(key) {
            attached.evict(extent);
        }
        Ok(before_bytes - self.residency.resident_bytes(key))
    }

    /// Lets a model go, and with `error` whoever wants something of it. Answers the bytes freed.
    pub(super) fn detach(&mut self, key: ModelKey, error: &EngineError) -> u64 {
        self.end_all(key, error);
        self.abandon(key);
        let counters = self.residency.counters(key);
        let freed_bytes = self.residency.resident_bytes(key);
        let idle = self.residency.in_flight(key) == 0;
        let resident = self.residency.remove(key);
        self.scheduler.remove_model(key);
        let mut attached = self.models.remove(&key).expect("an attached model");
        self.published.send_modify(|published| {
            published.models.remove(&attached.id);
        });
        attached.end_load(counters);
        for waiter in attached.waiters.drain(..) {
            let _ = waiter.reply.send(Err(error.clone()));
        }
        for extent in resident {
            attached.evict(extent);
        }
        attached.pool.stop(idle);
        freed_bytes
    }

    pub(super) fn key_of(&self, id: &str) -> Option<ModelKey> {
        let mut models = self.models.iter();
        models
            .find(|(_, attached)| attached.id == id)
            .map(|(&key, _)| key)
    }

    fn unknown(&self, id: &str) -> EngineError {
        EngineError::UnknownModel {
            model: id.to_owned(),
            known: self
                .models
                .values()
                .map(|attached| attached.id.clone())
                .collect(),
        }
    }
}

/// What the residency has to know of a model.
fn extents_of(model: &Model, pinned: bool) -> ModelExtents {
    let extents = model.source().directory().extents().iter();
    let plan = model.plan();
    ModelExtents {
        len_bytes: extents.map(|extent| extent.len_bytes).collect(),
        layers: plan.extents.clone(),
        routed: (0..plan.layers.len())
            .map(|layer| plan.is_routed(layer))
            .collect(),
        pinned,
    }
}
