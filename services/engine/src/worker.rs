//! The worker: one plain thread that owns the device, the plans and the KV cache.
//!
//! What is to be done is decided by the scheduler, the residency and the turns; this does it. It waits in one place, the command channel, and looks at it between any two layers: so a cancel, a deadline or an unload is
//! seen within a layer, and a model whose weights are still on their way costs the others nothing.

mod attached;
mod commands;
mod loads;
mod publish;
mod steps;
mod workspaces;

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Instant;

use tokio::sync::watch;

use crate::command::Command;
use crate::engine::{EngineConfig, Published};
use crate::kv_cache::KvBudget;
use crate::residency::{ModelKey, Residency, ResidencyLimits};
use crate::sampler::Scratch;
use crate::scheduler::{Expiry, Scheduler, SchedulerLimits, SequenceId, Turns};
use crate::sequence::{Ending, Sequence};
use crate::stats::Stats;
use crate::stream::Flow;
use crate::upload::Room;
use crate::{EngineError, FinishReason};

use attached::Attached;

/// Fetches that may be queued for each fetch thread: the worker hands out new ones only between layers, and the threads must not run dry meanwhile.
const QUEUED_PER_FETCH_THREAD: usize = 16;

/// Prompt rows of one step that are scored, besides the last row of each sequence: each takes a row of logits.
const MAX_SCORED_ROWS: usize = 64;

/// Everything that one device is used for.
pub(crate) struct Worker {
    config: EngineConfig,
    commands: Receiver<Command>,
    /// For fetch threads.
    to_self: Sender<Command>,
    stats: watch::Sender<Stats>,
    published: watch::Sender<Published>,
    residency: Residency,
    /// Where weights go that the device does not use where their source has them.
    room: Option<Room>,
    scheduler: Scheduler,
    turns: Turns,
    models: BTreeMap<ModelKey, Attached>,
    sequences: BTreeMap<SequenceId, Sequence>,
    /// What samplers work in.
    scratch: Scratch,
    /// Sequences that ended since the counters were last published.
    endings: Vec<Ending>,
    last_generation: u64,
    finished: u64,
    failed: u64,
    stopping: bool,
    /// Something happened that no snapshot shows yet.
    changed: bool,
}

/// The worker's ends of what leads to and from it.
#[derive(Debug)]
pub(crate) struct Lines {
    pub(crate) commands: Receiver<Command>,
    pub(crate) to_self: Sender<Command>,
    pub(crate) stats: watch::Sender<Stats>,
    pub(crate) published: watch::Sender<Published>,
}

impl Worker {
    pub(crate) fn new(config: EngineConfig, room: Option<Room>, lines: Lines) -> Worker {
        let residency = Residency::new(ResidencyLimits {
            budget_bytes: config.weights_budget_bytes,
            prefetch_window_bytes: config.prefetch_window_bytes,
            max_in_flight: config.fetch_threads.get() * QUEUED_PER_FETCH_THREAD,
        });
        let limits = SchedulerLimits {
            max_running: config.max_running,
            prefill_chunk_tokens: config.prefill_chunk_tokens,
            step_target: config.step_target,
            max_batch_rows: config.max_batch_rows,
            max_scored_rows: MAX_SCORED_ROWS,
        };
        Worker {
            scheduler: Scheduler::new(limits, KvBudget::new(config.kv_budget_bytes)),
            residency,
            room,
            commands: lines.commands,
            to_self: lines.to_self,
            stats: lines.stats,
            published: lines.published,
            turns: Turns::default(),
            models: BTreeMap::new(),
            sequences: BTreeMap::new(),
            scratch: Scratch::default(),
            endings: Vec::new(),
            last_generation: 0,
            finished: 0,
            failed: 0,
            stopping: false,
            changed: false,
            config,
        }
    }

    /// Works until it is told to shut down.
    pub(crate) fn run(mut self) {
        loop {
            while let Ok(command) = self.commands.try_recv() {
                self.handle(command);
            }
            if self.stopping {
                return self.end_everything();
            }
            self.end_expired(Instant::now());
            self.start_steps();
            self.settle_loads();
            self.act();
            self.publish_changes();
            match self.next_model() {
                Some(key) => self.advance(key),
                None => self.wait(),
            }
        }
    }

    /// The model whose step goes on.
    fn next_model(&mut self) -> Option<ModelKey> {
        let stepping = self
            .models
            .iter()
            .filter(|(_, attached)| attached.step.is_some());
        let ready = stepping.filter(|&(&key, _)| self.residency.is_ready(key));
        self.turns.next(ready.map(|(&key, _)| key))
    }

    /// Nothing can be done before the next command, or before somebody's time is up.
    fn wait(&mut self) {
        let command = match self.scheduler.next_expiry() {
            None => self
                .commands
                .recv()
                .map_err(|_| RecvTimeoutError::Disconnected),
            Some(until) => self
                .commands
                .recv_timeout(until.saturating_duration_since(Instant::now())),
        };
        match command {
            Ok(command) => self.handle(command),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                unreachable!("the worker holds a sender of its own")
            }
        }
    }

    fn end_expired(&mut self, now: Instant) {
        for (id, expiry) in self.scheduler.expired(now) {
            let error = match expiry {
                Expiry::Deadline => EngineError::DeadlineExceeded,
                Expiry::SlowReader => EngineError::SlowClient {
                    waited: self.config.slow_client_timeout,
                },
            };
            self.end(id, Err(error));
        }
    }

    /// Ends a sequence: its blocks are free (or will be when the step that writes to them is over), and the last word goes out with the next snapshot.
    fn end(&mut self, id: SequenceId, how: Result<FinishReason, EngineError>) {
        let Some(sequence) = self.sequences.remove(&id) else {
            return;
        };
        self.scheduler.remove(id);
        self.changed = true;
        self.finished += 1;
        self.failed += u64::from(how.is_err());
        if let Err(error) = &how {
            tracing::debug!(parent: &sequence.span, error = error as &dyn std::error::Error, "the sequence ended");
        }
        let key = sequence.model;
        self.endings.push(sequence.end(how, Instant::now()));
        // A step whose last sequence has gone would work for nobody.
        let stepping = self
            .models
            .get(&key)
            .is_some_and(|attached| attached.step.is_some());
        if stepping && self.scheduler.in_step(key) == 0 {
            self.abandon(key);
        }
    }

    /// Ends all of a model's sequences.
    fn end_all(&mut self, key: ModelKey, error: &EngineError) {
        for id in self.scheduler.sequences_of(key) {
            self.end(id, Err(error.clone()));
        }
    }

    /// A sequence whose events do not get through stands still until they do.
    fn park_if_full(&mut self, id: SequenceId, flow: Flow) {
        if flow == Flow::Full {
            self.changed = true;
            self.scheduler
                .park(id, Instant::now() + self.config.slow_client_timeout);
        }
    }

    fn end_everything(mut self) {
        for id in self.sequences.keys().copied().collect::<Vec<_>>() {
            self.end(id, Ok(FinishReason::Cancelled));
        }
        for key in self.models.keys().copied().collect::<Vec<_>>() {
            self.detach(key, &EngineError::ShuttingDown);
        }
        self.publish();
    }
}
