use weights::Fetched;

/// What a model's extents have been through since it was attached. Only ever grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Extents that were resident when a step came to their layer.
    pub hits: u64,
    /// Extents that were not.
    pub misses: u64,
    /// Fetches that succeeded.
    pub loads: u64,
    /// Fetches that failed.
    pub failures: u64,
    /// Extents whose memory was let go, to make room or because somebody asked for it.
    pub evictions: u64,
    /// Bytes of the extents counted in `hits`.
    pub hot_bytes: u64,
    /// Fetched from the storage device.
    pub cold_bytes: u64,
    /// Fetched out of the page cache.
    pub warm_bytes: u64,
    /// Fetched from a file system that does not account for its reads.
    pub unknown_bytes: u64,
    /// Of all fetched bytes: read by this process because the daemon did not answer.
    pub self_read_bytes: u64,
}

impl Counters {
    pub(super) fn add_load(&mut self, moved: &Fetched) {
        self.loads += 1;
        self.cold_bytes += moved.cold_bytes;
        self.warm_bytes += moved.warm_bytes;
        self.unknown_bytes += moved.unknown_bytes;
        if moved.self_read {
            self.self_read_bytes += moved.cold_bytes + moved.warm_bytes + moved.unknown_bytes;
        }
    }
}
