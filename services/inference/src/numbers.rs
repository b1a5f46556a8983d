//! The engine's snapshot as the plain numbers that instruments are made of.

use engine::{ModelStats, Stats};
use telemetry::metrics::{EngineNumbers, ModelNumbers};

/// The numbers of `stats`.
pub(crate) fn numbers(stats: &Stats) -> EngineNumbers {
    EngineNumbers {
        queued_requests: count(stats.queued),
        running_requests: count(stats.running),
        parked_requests: count(stats.parked),
        preemptions: stats.preemptions,
        kv_used_bytes: stats.kv_used_bytes,
        kv_kept_bytes: stats.kv_kept_bytes,
        kv_budget_bytes: stats.kv_budget_bytes,
        weights_resident_bytes: stats.models.iter().map(|model| model.resident_bytes).sum(),
        weights_budget_bytes: stats.weights_budget_bytes.unwrap_or_default(),
        models: stats.models.iter().map(model).collect(),
    }
}

fn model(stats: &ModelStats) -> ModelNumbers {
    let extents = &stats.extents;
    ModelNumbers {
        model: stats.id.clone(),
        resident_bytes: stats.resident_bytes,
        hits: extents.hits,
        misses: extents.misses,
        loads: extents.loads,
        evictions: extents.evictions,
        failures: extents.failures,
        cold_bytes: extents.cold_bytes,
        warm_bytes: extents.warm_bytes,
        unknown_bytes: extents.unknown_bytes,
        self_read_bytes: extents.self_read_bytes,
        steps: stats.steps,
        prefix_queries: stats.asked_tokens,
        prefix_hits: stats.cached_tokens,
        kv_evictions: stats.kv_reuse.evicted,
    }
}

fn count(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_meaning() {
        let model = ModelStats {
            id: "m".to_owned(),
            resident_bytes: 10,
            steps: 4,
            ..ModelStats::default()
        };
        let stats = Stats {
            queued: 1,
            running: 2,
            weights_budget_bytes: None,
            models: vec![model.clone(), model],
            ..Stats::default()
        };
        let numbers = numbers(&stats);
        assert_eq!((numbers.queued_requests, numbers.running_requests), (1, 2));
        assert_eq!(
            (numbers.weights_resident_bytes, numbers.weights_budget_bytes),
            (20, 0)
        );
        assert_eq!(
            (numbers.models[1].model.as_str(), numbers.models[1].steps),
            ("m", 4)
        );
    }
}
