use super::Worker;
use crate::stats::{ModelStats, Stats};

impl Worker {
    /// Publishes a snapshot, then says the last words of the sequences that ended: whoever hears one finds it counted.
    pub(super) fn publish(&mut self) {
        let stats = self.snapshot();
        self.stats.send_if_modified(|published| {
            let changed = *published != stats;
            if changed {
                *published = stats;
            }
            changed
        });
        for ending in self.endings.drain(..) {
            ending.deliver();
        }
    }

    fn snapshot(&self) -> Stats {
        let budget = self.scheduler.kv_budget();
        let models = self.models.iter().map(|(&key, attached)| ModelStats {
            degraded: attached.degraded,
            resident_bytes: self.residency.resident_bytes(key),
            extents: self.residency.counters(key),
            kv_blocks: self.scheduler.cache(key).used_blocks(),
            kv_kept_blocks: self.scheduler.cache(key).kept_blocks(),
            kv_reuse: self.scheduler.cache(key).reuse(),
            ..attached.counts.clone()
        });
        Stats {
            models: models.collect(),
            queued: self.scheduler.queued(),
            running: self.scheduler.running(),
            parked: self.scheduler.parked(),
            kv_used_bytes: budget.used_bytes(),
            kv_kept_bytes: budget.kept_bytes(),
            kv_budget_bytes: budget.total_bytes(),
            weights_used_bytes: self.residency.used_bytes(),
            weights_budget_bytes: self.config.weights_budget_bytes,
            finished: self.finished,
            failed: self.failed,
            preemptions: self.scheduler.preemptions(),
        }
    }
}
