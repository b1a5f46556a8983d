use gguf::ExtentId;

use super::Worker;
use super::attached::LoadWaiter;
use crate::engine::LoadProgress;
use crate::fetch_pool::FetchDone;
use crate::residency::{Action, Completion, ModelKey};
use crate::source::SourceError;
use crate::upload::is_no_room;
use crate::{EngineError, LoadStats};

impl Worker {
    /// Does what the residency wants done.
    pub(super) fn act(&mut self) {
        while let Some(action) = self.residency.next_action() {
            self.changed = true;
            match action {
                Action::Fetch(key, extent) => {
                    let counters = self.residency.counters(key);
                    let attached = self.models.get_mut(&key).expect("an attached model");
                    attached.load_span(counters);
                    attached.pool.fetch(extent);
                }
                Action::Evict(key, extent) => {
                    let attached = self.models.get_mut(&key).expect("an attached model");
                    attached.evict(extent);
                }
            }
        }
    }

    /// A fetch ended.
    pub(super) fn fetched(&mut self, key: ModelKey, done: FetchDone) {
        let no_room = done.result.as_ref().err().is_some_and(is_no_room);
        if no_room && self.make_room(key, done.extent) {
            return;
        }
        let moved = done.result.as_ref().ok().copied();
        let completion = self.residency.completed(key, done.extent, moved);
        let Some(attached) = self.models.get_mut(&key) else {
            return;
        };
        if let Some(load) = &mut attached.load {
            load.fetching += done.took;
        }
        if let Some(view) = done.view {
            attached.model.place(done.extent, view);
        }
        let Err(error) = done.result else {
            return self.report_progress(key);
        };
        tracing::warn!(model = %attached.id, extent = done.extent.0, error = &error as &dyn std::error::Error, "a fetch failed");
        let cause = match error {
            SourceError::DataLoss(cause) => return self.degrade(key, Some(cause)),
            SourceError::Failed(cause) => cause,
        };
        let error = EngineError::Fetch {
            model: attached.id.clone(),
            extent: done.extent,
            cause,
        };
        let Completion::Failed { step, eager } = completion else {
            return;
        };
        if eager {
            for waiter in attached.waiters.drain(..) {
                let _ = waiter.reply.send(Err(error.clone()));
            }
            self.residency.stop_load_all(key);
        }
        if step {
            let running = self.models[&key]
                .step
                .as_ref()
                .expect("a step stands at this extent's layer");
            let batch = running.step.batch().clone();
            self.fail(key, &batch, &error);
        }
    }

    /// Lets go of all that no step holds and nobody pinned, and fetches an extent again that found no room between it. `false` if there was nothing to let go.
    fn make_room(&mut self, key: ModelKey, extent: ExtentId) -> bool {
        let mut let_go = false;
        for (&other, attached) in &mut self.models {
            if self.residency.is_pinned(other) {
                continue;
            }
            for extent in self.residency.clear(other) {
                attached.evict(extent);
                let_go = true;
            }
        }
        let waiting = self.models.get(&key).filter(|_| let_go);
        if let Some(attached) = waiting {
            tracing::debug!(model = %attached.id, extent = extent.0, "device memory lies in pieces: it is emptied");
            attached.pool.fetch(extent);
        }
        waiting.is_some()
    }

    /// Tells those who wait for the whole model how far it is.
    pub(super) fn report_progress(&mut self, key: ModelKey) {
        let (done_bytes, total_bytes) = (
            self.residency.resident_bytes(key),
            self.residency.total_bytes(key),
        );
        let attached = self.models.get_mut(&key).expect("an attached model");
        for waiter in &attached.waiters {
            waiter.progress.send_replace(LoadProgress {
                done_bytes,
                total_bytes,
            });
        }
        if done_bytes < total_bytes || attached.waiters.is_empty() {
            return;
        }
        self.residency.stop_load_all(key);
        let attached = self.models.get_mut(&key).expect("an attached model");
        let waiters = std::mem::take(&mut attached.waiters);
        let done: Vec<_> = waiters
            .into_iter()
            .map(|waiter| (self.load_stats(key, &waiter), waiter.reply))
            .collect();
        // Whoever hears that the model is resident finds it so in the counters.
        self.publish();
        for (stats, reply) in done {
            let _ = reply.send(Ok(stats));
        }
    }

    /// Where the whole model came from, seen from when the waiter asked.
    fn load_stats(&self, key: ModelKey, waiter: &LoadWaiter) -> LoadStats {
        let model = &self.models[&key].model;
        let directory = model.source().directory();
        let mut tally = crate::sequence::LoadTally::new(directory.extents().len(), waiter.stamp);
        for &extent in model.plan().extents.iter().flatten() {
            let moved = self.residency.moved_since(key, extent, waiter.stamp);
            tally.used(extent, directory.extent(extent).len_bytes, moved);
        }
        tally.stats()
    }

    /// Drops eager loads that nobody waits for, and ends the spans of loads that are over: all is there, or nobody wants anything.
    pub(super) fn settle_loads(&mut self) {
        for (&key, attached) in &mut self.models {
            if !attached.waiters.is_empty() {
                attached.waiters.retain(|waiter| !waiter.reply.is_closed());
                if attached.waiters.is_empty() {
                    self.residency.stop_load_all(key);
                }
            }
            if attached.load.is_none() || self.residency.in_flight(key) > 0 {
                continue;
            }
            let complete = self.residency.resident_bytes(key) == self.residency.total_bytes(key);
            let wanted = attached.step.is_some() || !attached.waiters.is_empty();
            if complete || !wanted {
                attached.end_load(self.residency.counters(key));
            }
        }
    }
}
