use super::sequences::State;
use super::{Decision, Run, Scheduler, SequenceId};
use crate::kv_cache::blocks_for;
use crate::residency::ModelKey;

/// How a wish for blocks ended.
enum Grown {
    Yes,
    /// Not now.
    No,
    /// Another model's step is in the way.
    Abandon(ModelKey),
}

impl Scheduler {
    /// Lets waiting sequences in, the oldest first, while there is room for all of their tokens.
    pub(super) fn admit(&mut self, model: ModelKey) -> Option<Decision> {
        loop {
            let running = self.count(model, State::Running);
            let waiting = self
                .sequences
                .iter()
                .find(|(_, entry)| entry.model == model && entry.can_be_admitted());
            let (&id, _) = waiting.filter(|_| running < self.limits.max_running)?;
            if let Some(decision) = self.too_large(id) {
                return Some(decision);
            }
            match self.let_in(id) {
                Grown::Yes => {}
                Grown::No => return None,
                Grown::Abandon(other) => return Some(Decision::Abandon(other)),
            }
        }
    }

    /// Gives a waiting sequence blocks for all of its tokens: those that hold its first ones already, as far as there are any, and empty ones for the others.
    fn let_in(&mut self, id: SequenceId) -> Grown {
        let entry = self.entry_mut(id);
        entry.find_blocks();
        let n_found = entry.table.ids().len();
        let n_tokens = entry.n_tokens;
        let grown = self.grow(id, n_tokens);
        let entry = self.entry_mut(id);
        if matches!(grown, Grown::Yes) {
            entry.admit(n_found);
            let model = entry.model;
            self.caches[&model].count_found(n_found);
        } else {
            entry.table.clear();
        }
        grown
    }

    /// Gives each sequence that decodes a block for its newest token. One that finds none takes it from the youngest.
    pub(super) fn make_room_to_decode(&mut self, model: ModelKey) -> Option<Decision> {
        for id in self.sequences_of(model) {
            // The entry may have been preempted by an older one a moment ago.
            while self.decoding(id) {
                if let Some(decision) = self.too_large(id) {
                    return Some(decision);
                }
                let n_tokens = self.entry(id).n_tokens;
                match self.grow(id, n_tokens) {
                    Grown::Yes => break,
                    Grown::No => self.preempt_youngest(model),
                    Grown::Abandon(other) => return Some(Decision::Abandon(other)),
                }
            }
        }
        None
    }

    /// One row for each sequence that decodes.
    pub(super) fn decode_runs(&self, model: ModelKey) -> Vec<Run> {
        let ids = self
            .sequences_of(model)
            .into_iter()
            .filter(|&id| self.decoding(id));
        let runs = ids.map(|sequence| {
            let entry = self.entry(sequence);
            Run {
                sequence,
                start: entry.n_computed,
                len: 1,
                logits_from: entry.logits_from(1),
            }
        });
        runs.collect()
    }

    fn decoding(&self, id: SequenceId) -> bool {
        let entry = self.entry(id);
        entry.can_run() && entry.decodes()
    }

    fn too_large(&self, id: SequenceId) -> Option<Decision> {
        let entry = self.entry(id);
        let need_blocks = blocks_for(entry.n_tokens);
        let total_blocks = self.caches[&entry.model].total_blocks();
        (need_blocks > total_blocks).then_some(Decision::TooLarge {
            sequence: id,
            need_blocks,
            total_blocks,
        })
    }

    /// Gives a sequence blocks for `n_positions`, out of what is free or of what other models hold beyond their part.
    fn grow(&mut self, id: SequenceId, n_positions: usize) -> Grown {
        loop {
            let entry = self.entry_mut(id);
            let model = entry.model;
            if entry.table.grow_to(n_positions).is_ok() {
                return Grown::Yes;
            }
            let held = entry.table.ids().len();
            let cache = &self.caches[&model];
            let wanted_bytes = (blocks_for(n_positions) - held) as u64 * cache.block_bytes();
            if self.budget.free_bytes() + cache.kept_bytes() >= wanted_bytes {
                // It is ids that are short; no other model's blocks would help.
                return Grown::No;
            }
            // Nothing is let go that would not be enough even so.
            let could_be_free = self.budget.free_bytes() + self.budget.kept_bytes();
            if could_be_free >= wanted_bytes && self.evict_elsewhere(model) {
                continue;
            }
            let part_bytes = self.part_bytes();
            let would_use_bytes = cache.used_bytes() + wanted_bytes;
            let Some(greedy) = self
                .greedy_model(part_bytes)
                .filter(|_| would_use_bytes <= part_bytes)
            else {
                return Grown::No;
            };
            if self.in_step(greedy) > 0 || self.limbo.iter().any(|(key, _)| *key == greedy) {
                return Grown::Abandon(greedy);
            }
            self.preempt_youngest(greedy);
        }
    }

    /// Lets the block go that was held longest ago of those that other models only keep for reuse; answers whether there was one.
    fn evict_elsewhere(&self, model: ModelKey) -> bool {
        let others = self.caches.iter().filter(|(key, _)| **key != model);
        let kept = others.filter_map(|(_, cache)| Some((cache.oldest_kept()?, cache)));
        let oldest = kept.min_by_key(|&(since, _)| since);
        oldest.inspect(|(_, cache)| cache.evict()).is_some()
    }

    /// Each model's part of the budget, if those that have sequences share it equally.
    fn part_bytes(&self) -> u64 {
        let active = self
            .caches
            .keys()
            .filter(|&&model| self.sequences.values().any(|entry| entry.model == model));
        self.budget.total_bytes() / active.count().max(1) as u64
    }

    /// The model that holds most, if that is more than its part.
    fn greedy_model(&self, part_bytes: u64) -> Option<ModelKey> {
        let used = self
            .caches
            .iter()
            .map(|(&model, cache)| (cache.used_bytes(), model));
        let (used_bytes, model) = used.max()?;
        (used_bytes > part_bytes).then_some(model)
    }

    fn preempt_youngest(&mut self, model: ModelKey) {
        let mut running = self.sequences.values_mut().rev();
        let youngest = running.find(|entry| entry.model == model && entry.state == State::Running);
        youngest
            .expect("blocks are held by running sequences")
            .preempt();
        self.preemptions += 1;
    }

    fn count(&self, model: ModelKey, state: State) -> usize {
        let entries = self.sequences.values();
        entries
            .filter(|entry| entry.model == model && entry.state == state)
            .count()
    }
}
