use std::time::Instant;

use super::Arrival;
use crate::kv_cache::{BLOCK_LEN, BlockTable, Chain};
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
    chain: Chain,
    n_prompt: usize,
    /// Prompt and output so far.
    pub(super) n_tokens: usize,
    /// Positions whose keys and values stand in the blocks.
    pub(super) n_computed: usize,
    /// Positions that were found when it was admitted first.
    pub(super) n_cached: Option<usize>,
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
        let n_prompt = arrival.chain.n_tokens();
        Entry {
            model: arrival.model,
            state: State::Waiting,
            table,
            chain: arrival.chain,
            n_prompt,
            n_tokens: n_prompt,
            n_computed: 0,
            n_cached: None,
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

    pub(super) fn push_token(&mut self, token: u32) {
        self.n_tokens += 1;
        self.chain.push(token);
    }

    /// Shares the blocks that hold its first tokens already. The newest token is left out, and so are prompt tokens whose rows have to be scored.
    pub(super) fn find_blocks(&mut self) {
        let mut n_useful = self.n_tokens - 1;
        if self.scores() {
            n_useful = n_useful.min(self.n_scored);
        }
        self.table.find(&self.chain.names()[..n_useful / BLOCK_LEN]);
    }

    /// It has blocks for all of its tokens, the first `n_found` of which hold something.
    pub(super) fn admit(&mut self, n_found: usize) {
        self.state = State::Running;
        self.n_computed = n_found * BLOCK_LEN;
        self.n_cached.get_or_insert(self.n_computed);
    }

    /// What the step computed counts, and blocks that it filled can be found.
    pub(super) fn finish_step(&mut self) {
        let before = self.n_computed / BLOCK_LEN;
        self.n_computed += self.step_rows;
        for index in before..self.n_computed / BLOCK_LEN {
            self.table.publish(index, self.chain.names()[index]);
        }
        self.n_scored = self.n_scored.max(self.n_computed.min(self.n_prompt));
        self.step_rows = 0;
    }

    /// Takes the blocks away; whatever of them is not found again has to be computed again.
    pub(super) fn preempt(&mut self) {
        self.state = State::Waiting;
        self.table.clear();
        self.n_computed = 0;
        self.step_rows = 0;
    }
}
