use gguf::ExtentId;
use weights::Fetched;

use crate::LoadStats;

/// Where the weights came from that a sequence's prefill used: each extent counts once, when it is first used.
#[derive(Clone, Debug)]
pub(crate) struct LoadTally {
    seen: Vec<bool>,
    stats: LoadStats,
    /// Fetches that ended after this stamp moved their bytes for this load.
    stamp: u64,
}

impl LoadTally {
    pub(crate) fn new(n_extents: usize, stamp: u64) -> LoadTally {
        LoadTally {
            seen: vec![false; n_extents],
            stats: LoadStats::default(),
            stamp,
        }
    }

    pub(crate) fn stamp(&self) -> u64 {
        self.stamp
    }

    pub(crate) fn stats(&self) -> LoadStats {
        self.stats
    }

    /// A step used the extent. `moved` is what a fetch since the stamp moved, if there was one.
    pub(crate) fn used(&mut self, id: ExtentId, len_bytes: u64, moved: Option<Fetched>) {
        let seen = &mut self.seen[id.0 as usize];
        if std::mem::replace(seen, true) {
            return;
        }
        let Some(moved) = moved else {
            self.stats.hot_bytes += len_bytes;
            return;
        };
        self.stats.cold_bytes += moved.cold_bytes;
        self.stats.warm_bytes += moved.warm_bytes;
        self.stats.unknown_bytes += moved.unknown_bytes;
        if moved.self_read {
            self.stats.self_read_bytes += moved.cold_bytes + moved.warm_bytes + moved.unknown_bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_extent_counts_once() {
        let mut tally = LoadTally::new(3, 0);
        let moved = |cold_bytes, warm_bytes, self_read| {
            Some(Fetched {
                cold_bytes,
                warm_bytes,
                unknown_bytes: 0,
                self_read,
            })
        };
        tally.used(ExtentId(0), 100, moved(60, 40, false));
        tally.used(ExtentId(1), 50, None);
        tally.used(ExtentId(0), 100, None);
        tally.used(ExtentId(1), 50, moved(50, 0, false));
        tally.used(ExtentId(2), 7, moved(0, 7, true));
        let expected = LoadStats {
            cold_bytes: 60,
            warm_bytes: 47,
            hot_bytes: 50,
            unknown_bytes: 0,
            self_read_bytes: 7,
        };
        assert_eq!(tally.stats(), expected);
    }
}
