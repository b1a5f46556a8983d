use super::exp;
use super::row;
use super::select::best;

/// The log-probabilities of one row of the model's own logits.
#[derive(Clone, Copy, Debug)]
pub struct Logprobs<'a> {
    row: &'a [f32],
    peak: f32,
    /// Natural log of the sum of all probabilities, as parts of the most likely token's.
    log_sum: f64,
}

impl<'a> Logprobs<'a> {
    /// Looks at a row of logits `[n_vocab]`.
    pub fn new(row: &'a [f32]) -> Logprobs<'a> {
        let peak = row::max(row);
        let sum = if peak.is_finite() {
            exp::sum(row, peak)
        } else {
            row.iter().filter(|&&logit| logit == peak).count() as f64
        };
        Logprobs {
            row,
            peak,
            log_sum: sum.ln(),
        }
    }

    /// Natural log of the probability of token `id`; -∞ for one that is impossible or not in the vocabulary.
    pub fn of(&self, id: u32) -> f32 {
        let logit = self.row.get(id as usize).copied().unwrap_or(f32::NAN);
        if logit.is_nan() || self.peak == f32::NEG_INFINITY {
            return f32::NEG_INFINITY;
        }
        let below = if logit == self.peak {
            0.0
        } else {
            f64::from(logit) - f64::from(self.peak)
        };
        #[expect(
            clippy::cast_possible_truncation,
            reason = "log-probabilities are reported in f32"
        )]
        let logprob = (below - self.log_sum) as f32;
        logprob
    }

    /// The `n` most likely tokens and their log-probabilities, best first.
    pub fn top(&self, n: u32) -> Vec<(u32, f32)> {
        if n == 0 {
            return Vec::new();
        }
        let mut candidates = Vec::with_capacity(n as usize);
        best(self.row, n as usize, &mut candidates);
        candidates
            .iter()
            .map(|candidate| (candidate.id, self.of(candidate.id)))
            .collect()
    }
}
