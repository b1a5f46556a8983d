//! Which sequences run, and which of their tokens go into the next step: a pure state machine that the worker owns.
//!
//! Continuous batching: every step of a model holds one row for each sequence that decodes and, beside them, chunks of the prompts that are still being worked through. Sequences join and leave between steps.
//!
//! # Who goes first
//! - Decode rows always go; a long prompt is cut into chunks. Beside decode rows a chunk is only as long as keeps the step near a target time, judged by how long steps took before, or as long as costs what the decode rows
//!   cost, if those alone take more than half of the target: so streams go on at a bearable pace, or at half of theirs, and a prompt always comes on.
//! - Of a step's prompt tokens half go to the oldest prompt, so that it comes to an end, and the rest to the prompts with the least left, so that a short one is not stuck behind a long one.
//! - Sequences are admitted strictly by age, with KV blocks for all of their tokens at once. Blocks that hold what they begin with are found and shared; at least the newest token is computed, for its logits.
//! - A sequence that decodes and finds no block takes it from the youngest that runs, itself if need be: that one waits again and is recomputed. So the oldest always finishes.
//! - The KV budget is shared between models in equal parts as soon as more than one has sequences. A model below its part takes blocks back from one above it, even from a step that stands still: a model
//!   whose weights are slow to come must not hold the memory that others could use.

mod admit;
mod chunk;
mod pace;
mod sequences;
mod turns;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::kv_cache::{BlockTable, Chain, KvBudget, KvCache};
use crate::residency::ModelKey;

use pace::Pace;
use sequences::{Entry, State};
pub use turns::Turns;

/// A sequence. Ids grow with time, so the smaller one is older.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(pub u64);

/// What bounds a step.
#[derive(Clone, Copy, Debug)]
pub struct SchedulerLimits {
    /// Sequences of one model that may hold KV blocks.
    pub max_running: usize,
    /// Prompt tokens in one step.
    pub prefill_chunk_tokens: usize,
    /// How long a step with decode rows may take, if prompts can help it.
    pub step_target: Duration,
    /// Rows of one step; at least `max_running`.
    pub max_batch_rows: usize,
    /// Prompt rows of one step that are scored: each takes memory for a row of logits.
    pub max_scored_rows: usize,
}

/// What the scheduler needs to know about a sequence that arrives.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Its model.
    pub model: ModelKey,
    /// The tokens of its prompt, at least one, as names of blocks.
    pub chain: Chain,
    /// Whether every prompt token's row needs logits.
    pub score_prompt: bool,
    /// When it has to be over.
    pub deadline: Option<Instant>,
}

/// The rows of one step, grouped by sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The model that they belong to.
    pub model: ModelKey,
    /// Decode rows first, each group by age.
    pub runs: Vec<Run>,
}

/// Consecutive positions of one sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The sequence.
    pub sequence: SequenceId,
    /// The first position.
    pub start: usize,
    /// How many positions, at least one.
    pub len: usize,
    /// From this position on rows need logits; `start + len` if none does.
    pub logits_from: usize,
}

impl Run {
    /// One past the last position.
    pub fn end(&self) -> usize {
        self.start + self.len
    }
}

/// What to do for a model whose last step is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing can run now.
    Idle,
    /// Run this step, then report [`Scheduler::finish_step`] or [`Scheduler::abandon_step`].
    Run(Batch),
    /// Give up the step of this other model (which then reports [`Scheduler::abandon_step`]) and ask again: its blocks are needed.
    Abandon(ModelKey),
    /// This sequence can never go on: it alone needs more blocks than there are.
    TooLarge {
        /// The sequence; it is still there.
        sequence: SequenceId,
        /// What it needs.
        need_blocks: usize,
        /// What there is.
        total_blocks: usize,
    },
}

/// Why a sequence's time is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Its deadline passed.
    Deadline,
    /// It stood still for its reader for too long.
    SlowReader,
}

/// The state machine.
#[derive(Debug)]
pub struct Scheduler {
    limits: SchedulerLimits,
    budget: KvBudget,
    caches: BTreeMap<ModelKey, KvCache>,
    paces: BTreeMap<ModelKey, Pace>,
    sequences: BTreeMap<SequenceId, Entry>,
    /// Blocks of sequences that left while a step was still writing to them.
    limbo: Vec<(ModelKey, BlockTable)>,
    preemptions: u64,
}

impl Scheduler {
    /// A scheduler without models.
    pub fn new(limits: SchedulerLimits, budget: KvBudget) -> Scheduler {
        assert!(
            limits.max_running > 0 && limits.max_running <= limits.max_batch_rows,
            "every running sequence has a row"
        );
        assert!(
            limits.prefill_chunk_tokens > 0 && limits.max_scored_rows > 0,
            "prompts advance"
        );
        Scheduler {
            limits,
            budget,
            caches: BTreeMap::new(),
            paces: BTreeMap::new(),
            sequences: BTreeMap::new(),
            limbo: Vec::new(),
            preemptions: 0,
        }
    }

    /// Takes a model in.
    pub fn add_model(&mut self, model: ModelKey, cache: KvCache) {
        self.caches.insert(model, cache);
        self.paces.insert(model, Pace::default());
    }

    /// Forgets a model and its sequences, which are returned.
    pub fn remove_model(&mut self, model: ModelKey) -> Vec<SequenceId> {
        self.abandon_step(model);
        let ids = self.sequences_of(model);
        for id in &ids {
            self.sequences.remove(id);
        }
        self.caches.remove(&model);
        self.paces.remove(&model);
        ids
    }

    /// Queues a sequence.
    pub fn add(&mut self, id: SequenceId, arrival: Arrival) {
        assert!(
            arrival.chain.n_tokens() > 0,
            "an empty prompt has no row that could give logits"
        );
        let table = self.caches[&arrival.model].table();
        let before = self.sequences.insert(id, Entry::new(arrival, table));
        assert!(before.is_none(), "ids are used once");
    }

    /// Ends a sequence. Its blocks are free now, or, if a step is writing to them, when that step is over.
    pub fn remove(&mut self, id: SequenceId) {
        if let Some(entry) = self.sequences.remove(&id)
            && entry.step_rows > 0
        {
            self.limbo.push((entry.model, entry.table));
        }
    }

    /// A token was appended to the sequence.
    pub fn push_token(&mut self, id: SequenceId, token: u32) {
        self.entry_mut(id).push_token(token);
    }

    /// Leaves a sequence out of further steps until it is unparked; its time is up at `until`.
    pub fn park(&mut self, id: SequenceId, until: Instant) {
        self.entry_mut(id).parked_until = Some(until);
    }

    /// Lets a sequence take part again.
    pub fn unpark(&mut self, id: SequenceId) {
        if let Some(entry) = self.sequences.get_mut(&id) {
            entry.parked_until = None;
        }
    }

    /// The model's step is over, after so much time of the device: what it computed counts, and blocks that are full can be found from now on.
    pub fn finish_step(&mut self, model: ModelKey, took: Duration) {
        let mut prompt_rows = 0;
        for entry in self
            .sequences
            .values_mut()
            .filter(|entry| entry.model == model)
        {
            prompt_rows += if entry.decodes() { 0 } else { entry.step_rows };
            entry.finish_step();
        }
        if let Some(pace) = self.paces.get_mut(&model) {
            pace.learn(prompt_rows, took);
        }
        self.limbo.retain(|(key, _)| *key != model);
    }

    /// The model's step was given up: nothing of it counts.
    pub fn abandon_step(&mut self, model: ModelKey) {
        for entry in self
            .sequences
            .values_mut()
            .filter(|entry| entry.model == model)
        {
            entry.step_rows = 0;
        }
        self.limbo.retain(|(key, _)| *key != model);
    }

    /// Composes the next step of a model that has none under way.
    pub fn next_step(&mut self, model: ModelKey) -> Decision {
        debug_assert_eq!(self.in_step(model), 0, "a model runs one step at a time");
        if let Some(decision) = self.make_room_to_decode(model) {
            return decision;
        }
        // After the running ones, so that nobody is let in only to be sent away again.
        if let Some(decision) = self.admit(model) {
            return decision;
        }
        // Whoever found all but the newest token decodes at once.
        let mut runs = self.decode_runs(model);
        let mut prompt_rows = self.limits.max_batch_rows - runs.len();
        if !runs.is_empty() {
            let bearable = self.paces[&model].prompt_rows(self.limits.step_target);
            prompt_rows = prompt_rows.min(bearable);
        }
        runs.extend(self.prefill_runs(model, prompt_rows));
        if runs.is_empty() {
            return Decision::Idle;
        }
        for run in &runs {
            self.entry_mut(run.sequence).step_rows = run.len;
        }
        Decision::Run(Batch { model, runs })
    }

    /// Sequences whose time is up at `now`; they are still there.
    pub fn expired(&self, now: Instant) -> Vec<(SequenceId, Expiry)> {
        let sequences = self.sequences.iter();
        let expired = sequences.filter_map(|(&id, entry)| {
            if entry.deadline.is_some_and(|deadline| deadline <= now) {
                return Some((id, Expiry::Deadline));
            }
            let slow = entry.parked_until.is_some_and(|until| until <= now);
            slow.then_some((id, Expiry::SlowReader))
        });
        expired.collect()
    }

    /// When the next sequence's time will be up.
    pub fn next_expiry(&self) -> Option<Instant> {
        let entries = self.sequences.values();
        entries
            .flat_map(|entry| [entry.deadline, entry.parked_until])
            .flatten()
            .min()
    }
}

/// What can be asked.
impl Scheduler {
    /// The blocks of a sequence, in the order of its positions.
    pub fn blocks(&self, id: SequenceId) -> &[u32] {
        self.entry(id).table.ids()
    }

    /// Tokens of a sequence that were found computed when it was admitted first.
    pub fn cached_tokens(&self, id: SequenceId) -> usize {
        self.entry(id).n_cached.unwrap_or(0)
    }

    /// The sequences of a model, by age.
    pub fn sequences_of(&self, model: ModelKey) -> Vec<SequenceId> {
        let sequences = self
            .sequences
            .iter()
            .filter(|(_, entry)| entry.model == model);
        sequences.map(|(&id, _)| id).collect()
    }

    /// How many of a model's sequences have rows in the step that is under way.
    pub fn in_step(&self, model: ModelKey) -> usize {
        let entries = self.sequences.values();
        entries
            .filter(|entry| entry.model == model && entry.step_rows > 0)
            .count()
    }

    /// Sequences that wait.
    pub fn queued(&self) -> usize {
        self.sequences
            .values()
            .filter(|entry| entry.state == State::Waiting)
            .count()
    }

    /// Sequences that hold blocks.
    pub fn running(&self) -> usize {
        self.sequences.len() - self.queued()
    }

    /// Sequences that stand still for their readers.
    pub fn parked(&self) -> usize {
        self.sequences
            .values()
            .filter(|entry| entry.parked_until.is_some())
            .count()
    }

    /// Times that a running sequence lost its blocks to another one.
    pub fn preemptions(&self) -> u64 {
        self.preemptions
    }

    /// The bytes that all models share.
    pub fn kv_budget(&self) -> &KvBudget {
        &self.budget
    }

    /// The cache of a model.
    pub fn cache(&self, model: ModelKey) -> &KvCache {
        &self.caches[&model]
    }

    fn entry(&self, id: SequenceId) -> &Entry {
        self.sequences.get(&id).expect("a sequence that is here")
    }

    fn entry_mut(&mut self, id: SequenceId) -> &mut Entry {
        self.sequences
            .get_mut(&id)
            .expect("a sequence that is here")
    }
}

#[cfg(test)]
mod tests;
