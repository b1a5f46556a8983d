//! A snapshot of what the engine is doing, published by the worker whenever something happened that it shows.

use crate::kv_cache::Reuse;
use crate::residency::Counters;

/// Everything that can be counted from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// One item for each attached model, in the order in which they were attached.
    pub models: Vec<ModelStats>,
    /// Sequences that wait for their first batch, or for another one after they were preempted.
    pub queued: usize,
    /// Sequences that hold KV blocks.
    pub running: usize,
    /// Of the running ones: those that stand still because their events are not read.
    pub parked: usize,
    /// Bytes of KV blocks in use.
    pub kv_used_bytes: u64,
    /// Bytes of KV blocks that are only kept for reuse; they make room when it is needed.
    pub kv_kept_bytes: u64,
    /// Bytes of KV blocks that there may be.
    pub kv_budget_bytes: u64,
    /// Bytes of weights loading or resident.
    pub weights_used_bytes: u64,
    /// Bytes of weights that there may be; `None` without a bound.
    pub weights_budget_bytes: Option<u64>,
    /// Sequences that ended, for whatever reason.
    pub finished: u64,
    /// Of these: with an error.
    pub failed: u64,
    /// Times that a running sequence gave its KV blocks to an older one.
    pub preemptions: u64,
}

/// What can be counted about one model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelStats {
    /// Its id.
    pub id: String,
    /// Which attach this is.
    pub generation: u64,
    /// Its file changed while in use; it serves nothing until it is attached anew.
    pub degraded: bool,
    /// Its extents are kept on the device once they are there.
    pub pinned: bool,
    /// Bytes of its weights.
    pub tensor_bytes: u64,
    /// Of these: resident.
    pub resident_bytes: u64,
    /// What its extents have been through.
    pub extents: Counters,
    /// Forward passes completed.
    pub steps: u64,
    /// Of these: with at least [`WIDE_STEP_ROWS`] rows.
    pub wide_steps: u64,
    /// Of these: with both prompt rows and decode rows.
    pub mixed_steps: u64,
    /// Rows of all forward passes.
    pub rows: u64,
    /// Prompt tokens worked through.
    pub prompt_tokens: u64,
    /// Tokens sampled.
    pub output_tokens: u64,
    /// Times that a step stood still for a weight.
    pub stalls: u64,
    /// KV blocks in use.
    pub kv_blocks: usize,
    /// KV blocks that are only kept for reuse.
    pub kv_kept_blocks: usize,
    /// How KV blocks were found again, or not.
    pub kv_reuse: Reuse,
    /// Prompt tokens that were asked for, whether computed or found.
    pub asked_tokens: u64,
    /// Of these: found computed.
    pub cached_tokens: u64,
}

/// From this many rows on a step counts as wide.
pub const WIDE_STEP_ROWS: usize = 8;

impl Stats {
    /// The attached model called `id`.
    pub fn model(&self, id: &str) -> Option<&ModelStats> {
        self.models.iter().find(|model| model.id == id)
    }
}
