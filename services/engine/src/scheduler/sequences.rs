use std::time::Instant;

use super::Arrival;
use crate::kv_cache::BlockTable;
use crate::residency::ModelKey;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Holds no blocks.
    Waiting,
    /// Holds blocks for all of its tokens, or is about to grow by one.
    Running,
}

/// What the scheduler keeps of a sequence.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) model: ModelKey,
    pub(super) state: State,
    pub(super) table: BlockTable,
    n_prompt: usize,
    /// Prompt and output so far.
    pub(super) n_tokens: usize,
    /// Positions whose keys and values stand in the blocks.
    pub(super) n_computed: usize,
    score_prompt: bool,
    /// Prompt rows whose logits have been seen; they are not asked for again after a preemption.
    n_scored: usize,
    /// Rows in the step that is under way.
    pub(super) step_rows: usize,
    pub(super) deadline: Option<Instant>,
    pub(super) parked_until: Option<Instant>,
}

impl Entry {
    pub(super) fn new(arrival: Arrival, table: BlockTable) -> Entry {
        Entry {
            model: arrival.model,
            state: State::Waiting,
            table,
            n_prompt: arrival.n_prompt,
            n_tokens: arrival.n_prompt,
            n_computed: 0,
            score_prompt: arrival.score_prompt,
            n_scored: 0,
            step_rows: 0,
            deadline: arrival.deadline,
            parked_until: None,
        }
    }

    /// Tokens that have not been computed.
    pub(super) fn left(&self) -> usize {
        self.n_tokens - self.n_computed
    }

    /// Whether it waits for blocks that it would use.
    pub(super) fn can_be_admitted(&self) -> bool {
        self.state == State::Waiting && self.parked_until.is_none()
    }

    /// Whether it can take part in a step.
    pub(super) fn can_run(&self) -> bool {
        self.state == State::Running && self.parked_until.is_none() && self.left() > 0
    }

    /// Whether all it needs is the row of its newest token. A prompt of one token is a prompt.
    pub(super) fn decodes(&self) -> bool {
        self.n_computed >= self.n_prompt && self.left() == 1
    }

    /// Whether rows that have not been scored are still to come.
    pub(super) fn scores(&self) -> bool {
        self.score_prompt && self.n_scored + 1 < self.n_prompt
    }

    /// The first position among the next `len` from which on rows need logits.
    pub(super) fn logits_from(&self, len: usize) -> usize {
        let end = self.n_computed + len;
        let last = if end == self.n_tokens { end - 1 } else { end };
        if self.scores() {
            last.min(self.n_computed.max(self.n_scored))
        } else {
            last
        }
    }

    pub(super) fn finish_step(&mut self) {
        self.n_computed += self.step_rows;
        self.n_scored = self.n_scored.max(self.n_computed.min(self.n_prompt));
        self.step_rows = 0;
    }

    /// Takes the blocks away; everything has to be computed again.
    pub(super) fn preempt(&mut self) {
        self.state = State::Waiting;
        self.table.clear();
        self.n_computed = 0;
        self.step_rows = 0;
    }
}
