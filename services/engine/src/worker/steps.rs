use std::ops::Range;
use std::time::{Duration, Instant};

use super::Worker;
use super::attached::Running;
use crate::model::{Outcome, Progress, Rows, Step};
use crate::residency::{ModelKey, Wanted};
use crate::sampler::{Needs, Seen};
use crate::scheduler::{Batch, Decision, Run, SequenceId};
use crate::sequence::Sampled;
use crate::stats::WIDE_STEP_ROWS;
use crate::stream::Flow;
use crate::{Cause, EngineError, FinishReason};

impl Worker {
    /// Begins a step of every model that can have one.
    pub(super) fn start_steps(&mut self) {
        for key in self.models.keys().copied().collect::<Vec<_>>() {
            while self.models[&key].step.is_none() && self.start_step(key) {}
        }
    }

    /// Asks the scheduler once; answers whether it is worth asking again.
    fn start_step(&mut self, key: ModelKey) -> bool {
        let attached = self.models.get_mut(&key).expect("an attached model");
        if attached.model.source().poisoned() && !attached.degraded {
            self.degrade(key, None);
            return true;
        }
        match self.scheduler.next_step(key) {
            Decision::Idle => {
                let cache = self.scheduler.cache(key);
                if cache.used_blocks() + cache.kept_blocks() == 0 {
                    attached.workspace = None;
                }
                return false;
            }
            Decision::Run(batch) => self.begin(key, batch),
            Decision::Abandon(other) => self.abandon(other),
            Decision::TooLarge {
                sequence,
                need_blocks,
                total_blocks,
            } => {
                let error = EngineError::KvFull {
                    need_blocks,
                    total_blocks,
                };
                self.end(sequence, Err(error));
            }
        }
        true
    }

    fn begin(&mut self, key: ModelKey, batch: Batch) {
        self.changed = true;
        let now = Instant::now();
        if let Err(error) = self.ensure_workspace(key) {
            return self.fail(key, &batch, &error);
        }
        for run in &batch.runs {
            self.enter_step(key, run.sequence, now);
        }
        let (sequences, scheduler) = (&self.sequences, &self.scheduler);
        let rows = Rows::new(&batch, |id| {
            (sequences[&id].tokens.as_slice(), scheduler.blocks(id))
        });
        let attached = self.models.get_mut(&key).expect("an attached model");
        attached.step = Some(Running {
            step: Step::new(batch, rows),
            stalled_since: None,
            worked: Duration::ZERO,
        });
        if self.residency.want(key, 0) == Wanted::Waiting {
            self.stall(key);
        }
    }

    /// The sequence is in a batch, perhaps for the first time.
    fn enter_step(&mut self, key: ModelKey, id: SequenceId, now: Instant) {
        let sequences = &mut self.sequences;
        let sequence = sequences
            .get_mut(&id)
            .expect("scheduled sequences are here");
        if sequence.is_started() {
            return;
        }
        let n_cached = self.scheduler.cached_tokens(id);
        let attached = self.models.get_mut(&key).expect("an attached model");
        attached.counts.asked_tokens += sequence.n_prompt() as u64;
        attached.counts.cached_tokens += n_cached as u64;
        let flow = sequence.start(n_cached, now);
        self.park_if_full(id, flow);
    }

    /// Runs the next layer of the model's step, or all that are left where the device runs what it has recorded.
    pub(super) fn advance(&mut self, key: ModelKey) {
        self.end_stall(key);
        let attached = self.models.get_mut(&key).expect("an attached model");
        let (Some(running), Some(workspace)) = (&mut attached.step, &mut attached.workspace) else {
            unreachable!("a step has its workspace");
        };
        let from = running.step.layer();
        let begun = Instant::now();
        let progress =
            running
                .step
                .advance(key, &mut attached.model, workspace, &mut self.residency);
        let worked = begun.elapsed();
        running.worked += worked;
        self.turns.used(key, worked);
        match progress {
            Err(error) => {
                let batch = running.step.batch().clone();
                self.fail(key, &batch, &self.device_error(key, error));
            }
            Ok(progress) => {
                self.tally(key, from);
                self.changed |= progress != Progress::Advanced;
                match progress {
                    Progress::Advanced => {}
                    Progress::NotResident(_) => self.stall(key),
                    Progress::Done => self.finish(key),
                }
            }
        }
    }

    /// Notes for every prompt in the step where the weights of the layers `from ..` came from, which have just been run.
    fn tally(&mut self, key: ModelKey, from: usize) {
        let attached = &self.models[&key];
        let Some(running) = &attached.step else {
            return;
        };
        let directory = attached.model.source().directory();
        for run in &running.step.batch().runs {
            let Some(sequence) = self
                .sequences
                .get_mut(&run.sequence)
                .filter(|sequence| sequence.is_prefilling())
            else {
                continue;
            };
            let layers = from..running.step.layer();
            let used = layers.flat_map(|layer| running.step.used(attached.model.plan(), layer));
            for &extent in used {
                let moved = self
                    .residency
                    .moved_since(key, extent, sequence.tally.stamp());
                sequence
                    .tally
                    .used(extent, directory.extent(extent).len_bytes, moved);
            }
        }
    }

    /// The step cannot go on before a fetch ends.
    fn stall(&mut self, key: ModelKey) {
        let counters = self.residency.counters(key);
        let attached = self.models.get_mut(&key).expect("an attached model");
        attached.counts.stalls += 1;
        let load = attached.load_span(counters).span.clone();
        let running = attached.step.as_mut().expect("a step stands still");
        running.stalled_since = Some(Instant::now());
        for run in &running.step.batch().runs {
            if let Some(sequence) = self.sequences.get_mut(&run.sequence) {
                sequence.wait_for(&load);
            }
        }
    }

    fn end_stall(&mut self, key: ModelKey) {
        let attached = self.models.get_mut(&key).expect("an attached model");
        let running = attached.step.as_mut().expect("a step goes on");
        let Some(since) = running.stalled_since.take() else {
            return;
        };
        let time: Duration = since.elapsed();
        for run in &running.step.batch().runs {
            if let Some(sequence) = self.sequences.get_mut(&run.sequence) {
                sequence.clock.stalled(time);
            }
        }
        if let Some(load) = &mut attached.load {
            load.stalled += time;
        }
    }

    /// The step has been through all layers: its tokens are chosen and said.
    fn finish(&mut self, key: ModelKey) {
        let attached = self.models.get_mut(&key).expect("an attached model");
        // Bytes that were lost under the step made its numbers worthless: nothing of it may leave.
        if attached.model.source().poisoned() {
            return self.degrade(key, None);
        }
        let running = attached.step.take().expect("a step that ended");
        let mut workspace = attached.workspace.take().expect("a step has its workspace");
        self.residency.release(key);
        self.scheduler.finish_step(key, running.worked);
        self.count_step(key, running.step.batch());
        let batch = running.step.batch();
        let logit_rows = running.step.rows().logit_rows.len();
        match workspace.outcome(logit_rows, self.rows_to_see(batch)) {
            Ok(outcome) => self.finish_runs(batch, &outcome),
            Err(error) => self.fail(key, batch, &self.device_error(key, error)),
        }
        if let Some(attached) = self.models.get_mut(&key) {
            attached.workspace = Some(workspace);
        }
    }

    /// The rows of logits of which more than the most likely token has to be seen: from the first of them to the last.
    fn rows_to_see(&self, batch: &Batch) -> Range<usize> {
        let (mut first_row, mut seen) = (0, 0..0);
        for run in &batch.runs {
            let rows = first_row..first_row + (run.end() - run.logits_from);
            first_row = rows.end;
            let Some(sequence) = self.sequences.get(&run.sequence) else {
                continue;
            };
            if rows.is_empty() || !sequence.sees_rows() {
                continue;
            }
            seen = if seen.is_empty() {
                rows
            } else {
                seen.start..rows.end
            };
        }
        seen
    }

    fn finish_runs(&mut self, batch: &Batch, outcome: &Outcome<'_>) {
        let mut first_row = 0;
        for run in &batch.runs {
            self.finish_run(run, outcome, first_row);
            first_row += run.end() - run.logits_from;
        }
    }

    /// What a run of rows means for its sequence. `first_row` is its first row of logits.
    fn finish_run(&mut self, run: &Run, outcome: &Outcome<'_>, first_row: usize) {
        let now = Instant::now();
        // It may have ended while the step went on.
        let Some(sequence) = self.sequences.get_mut(&run.sequence) else {
            return;
        };
        let row = |position: usize| outcome.row(first_row + position - run.logits_from);
        sequence.score_prompt(run, row);
        if run.end() < sequence.tokens.len() {
            return;
        }
        let mut flow = Flow::Open;
        if sequence.is_prefilling() {
            flow = sequence.finish_prefill(now);
            if let Some(reason) = sequence.finished_before_output() {
                return self.end(run.sequence, Ok(reason));
            }
        }
        let last = first_row + run.end() - 1 - run.logits_from;
        let seen = match sequence.needs() {
            Needs::MostLikely => Seen::MostLikely(outcome.most_likely(last)),
            Needs::Row => Seen::Row(outcome.row(last)),
        };
        let Sampled {
            token,
            flow: after,
            finish,
        } = sequence.sample(seen, &mut self.scratch, now);
        if after == Flow::Full {
            flow = after;
        }
        let key = sequence.model;
        self.scheduler.push_token(run.sequence, token);
        if let Some(attached) = self.models.get_mut(&key) {
            attached.counts.output_tokens += 1;
        }
        self.conclude(run.sequence, flow, finish);
    }

    fn conclude(&mut self, id: SequenceId, flow: Flow, finish: Option<FinishReason>) {
        match finish {
            Some(reason) => self.end(id, Ok(reason)),
            None => self.park_if_full(id, flow),
        }
    }

    fn count_step(&mut self, key: ModelKey, batch: &Batch) {
        let (mut rows, mut prompt_rows) = (0, 0);
        for run in &batch.runs {
            let sequence = self.sequences.get(&run.sequence);
            let decodes =
                run.len == 1 && sequence.is_some_and(|sequence| !sequence.is_prefilling());
            rows += run.len;
            prompt_rows += if decodes { 0 } else { run.len };
        }
        let attached = self.models.get_mut(&key).expect("an attached model");
        let counts = &mut attached.counts;
        counts.steps += 1;
        counts.wide_steps += u64::from(rows >= WIDE_STEP_ROWS);
        counts.mixed_steps += u64::from(prompt_rows > 0 && prompt_rows < rows);
        counts.rows += rows as u64;
        counts.prompt_tokens += prompt_rows as u64;
    }

    /// Gives up the model's step, if it has one. Its sequences go on from where they were before it.
    pub(super) fn abandon(&mut self, key: ModelKey) {
        self.changed = true;
        let attached = self.models.get_mut(&key).expect("an attached model");
        if attached.step.is_some() {
            self.end_stall(key);
            self.models.get_mut(&key).expect("an attached model").step = None;
            self.residency.release(key);
        }
        self.scheduler.abandon_step(key);
    }

    /// Gives up the step and ends every sequence that was in it.
    pub(super) fn fail(&mut self, key: ModelKey, batch: &Batch, error: &EngineError) {
        self.abandon(key);
        for run in &batch.runs {
            self.end(run.sequence, Err(error.clone()));
        }
    }

    /// The model's file is not what it was: nothing that it computes counts any more.
    pub(super) fn degrade(&mut self, key: ModelKey, cause: Option<Cause>) {
        let attached = self.models.get_mut(&key).expect("an attached model");
        attached.degraded = true;
        self.changed = true;
        let error = EngineError::DataLoss {
            model: attached.id.clone(),
            cause,
        };
        tracing::error!(model = %attached.id, error = &error as &dyn std::error::Error, "the model is degraded");
        for waiter in attached.waiters.drain(..) {
            let _ = waiter.reply.send(Err(error.clone()));
        }
        self.residency.stop_load_all(key);
        self.abandon(key);
        self.end_all(key, &error);
        self.scheduler.cache(key).forget();
    }
}
