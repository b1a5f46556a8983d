use super::{Run, Scheduler, SequenceId};
use crate::residency::ModelKey;

impl Scheduler {
    /// Chunks of the prompts that are being worked through, within `max_rows`.
    pub(super) fn prefill_runs(&self, model: ModelKey, max_rows: usize) -> Vec<Run> {
        let sequences = self.sequences.iter();
        let prefilling = sequences
            .filter(|(_, entry)| entry.model == model && entry.can_run() && !entry.decodes());
        let wants: Vec<(SequenceId, usize)> =
            prefilling.map(|(&id, entry)| (id, entry.left())).collect();
        let left: Vec<usize> = wants.iter().map(|&(_, left)| left).collect();
        let lens = share(&left, max_rows.min(self.limits.prefill_chunk_tokens));
        let mut scored_left = self.limits.max_scored_rows;
        let mut runs = Vec::new();
        for ((sequence, _), len) in wants.into_iter().zip(lens) {
            runs.extend(self.chunk(sequence, len, &mut scored_left));
        }
        runs
    }

    /// The next `len` positions of a sequence; fewer if more than `scored_left` of them would be scored.
    fn chunk(&self, sequence: SequenceId, len: usize, scored_left: &mut usize) -> Option<Run> {
        let entry = self.entry(sequence);
        let start = entry.n_computed;
        let mut len = len;
        if entry.scores() {
            let scored_from = entry.logits_from(len);
            len = len.min(scored_from - start + *scored_left);
            *scored_left -= (start + len).saturating_sub(scored_from);
        }
        (len > 0).then(|| Run {
            sequence,
            start,
            len,
            logits_from: entry.logits_from(len),
        })
    }
}

/// Shares `budget` rows between prompts with so many tokens left, the oldest first: half to the oldest, the rest to those with the least left, what remains to the oldest again.
fn share(left: &[usize], budget: usize) -> Vec<usize> {
    let mut lens = vec![0; left.len()];
    let Some(&oldest_left) = left.first() else {
        return lens;
    };
    lens[0] = oldest_left.min(budget.div_ceil(2));
    let mut rest = budget - lens[0];
    let mut by_left: Vec<usize> = (1..left.len()).collect();
    by_left.sort_by_key(|&index| left[index]);
    for index in by_left {
        lens[index] = left[index].min(rest);
        rest -= lens[index];
    }
    lens[0] += rest.min(oldest_left - lens[0]);
    lens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares() {
        let check = |left: &[usize], budget, expected: &[usize]| {
            assert_eq!(share(left, budget), expected, "{left:?} {budget}")
        };
        check(&[], 8, &[]);
        check(&[5], 8, &[5]);
        check(&[50], 8, &[8]);
        check(&[50, 50], 8, &[4, 4]);
        check(&[50, 2], 8, &[6, 2]);
        check(&[50, 9, 1], 8, &[4, 3, 1]);
        check(&[1, 50, 2], 8, &[1, 5, 2]);
        check(&[50, 50, 50], 1, &[1, 0, 0]);
        check(&[2, 2, 2], 100, &[2, 2, 2]);
        check(&[3, 3], 0, &[0, 0]);
    }
}
