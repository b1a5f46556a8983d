use super::Worker;
use super::attached::Attached;
use crate::residency::ModelKey;
use crate::stats::{ModelStats, Stats};

impl Worker {
    /// Publishes a snapshot if anything happened that it shows: commands, fetches, steps that began, stood still or ended. Between two layers of a step nothing does.
    pub(super) fn publish_changes(&mut self) {
        if self.changed {
            self.publish();
        }
    }

    /// Publishes a snapshot, then says the last words of the sequences that ended: whoever hears one finds it counted.
    pub(super) fn publish(&mut self) {
        self.changed = false;
        self.stats.send_modify(|stats| self.show(stats));
        for ending in self.endings.drain(..) {
            ending.deliver();
        }
    }

    /// Brings a snapshot up to date, in place: while the models stay the same nothing is allocated.
    fn show(&self, stats: &mut Stats) {
        stats
            .models
            .resize_with(self.models.len(), ModelStats::default);
        for (shown, (&key, attached)) in stats.models.iter_mut().zip(&self.models) {
            self.show_model(shown, key, attached);
        }
        let budget = self.scheduler.kv_budget();
        stats.queued = self.scheduler.queued();
        stats.running = self.scheduler.running();
        stats.parked = self.scheduler.parked();
        stats.kv_used_bytes = budget.used_bytes();
        stats.kv_kept_bytes = budget.kept_bytes();
        stats.kv_budget_bytes = budget.total_bytes();
        stats.weights_used_bytes = self.residency.used_bytes();
        stats.weights_budget_bytes = self.config.weights_budget_bytes;
        stats.finished = self.finished;
        stats.failed = self.failed;
        stats.preemptions = self.scheduler.preemptions();
    }

    fn show_model(&self, shown: &mut ModelStats, key: ModelKey, attached: &Attached) {
        let cache = self.scheduler.cache(key);
        let mut id = std::mem::take(&mut shown.id);
        if id != attached.id {
            id.clone_from(&attached.id);
        }
        *shown = ModelStats {
            id,
            degraded: attached.degraded,
            pinned: self.residency.is_pinned(key),
            resident_bytes: self.residency.resident_bytes(key),
            extents: self.residency.counters(key),
            kv_blocks: cache.used_blocks(),
            kv_kept_blocks: cache.kept_blocks(),
            kv_reuse: cache.reuse(),
            // Its id is empty, so this allocates nothing.
            ..attached.counts.clone()
        };
    }
}
