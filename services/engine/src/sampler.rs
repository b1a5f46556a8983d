//! From a row of logits to a token id, and to log-probabilities.
//!
//! Logits may hold anything. NaN counts as impossible; if one or more are +∞, those share all probability; if nothing is possible, token 0 is taken.

use std::cmp::Ordering;

use rand_chacha::ChaCha12Rng;
use rand_core::{RngCore, SeedableRng};

use crate::SamplingParams;

/// Chooses tokens for one sequence. What it draws depends on the seed and on the token's index in the output, not on what was drawn before or beside it.
#[derive(Clone, Debug)]
pub struct Sampler {
    params: SamplingParams,
    seed: u64,
    /// Used again for each token.
    candidates: Vec<Candidate>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Candidate {
    id: u32,
    logit: f32,
}

impl Sampler {
    /// A sampler for valid `params`.
    pub fn new(params: SamplingParams, seed: u64) -> Sampler {
        Sampler {
            params,
            seed,
            candidates: Vec::new(),
        }
    }

    /// The token for a row of logits `[n_vocab]`, as number `index` of the output.
    pub fn sample(&mut self, logits: &[f32], index: u64) -> u32 {
        if self.params.temperature == 0.0 {
            return most_likely(logits);
        }
        let mut candidates = std::mem::take(&mut self.candidates);
        candidates.clear();
        candidates.extend(possible(logits));
        self.truncate(&mut candidates);
        let token = self.draw(&candidates, index);
        self.candidates = candidates;
        token
    }

    /// Applies top-k, top-p and min-p in this order, each to what the one before left.
    fn truncate(&self, candidates: &mut Vec<Candidate>) {
        let SamplingParams {
            top_k,
            top_p,
            min_p,
            ..
        } = self.params;
        if top_k > 0 && (top_k as usize) < candidates.len() {
            keep_best(candidates, top_k as usize);
        }
        if top_p < 1.0 {
            keep_top_p(candidates, f64::from(top_p));
        }
        if min_p > 0.0 {
            let max = max_logit(candidates);
            let least = max + min_p.ln();
            candidates.retain(|candidate| candidate.logit >= least || candidate.logit == max);
        }
    }

    /// Draws in proportion to the probabilities at this temperature.
    fn draw(&self, candidates: &[Candidate], index: u64) -> u32 {
        let temperature = f64::from(self.params.temperature);
        let max = max_logit(candidates);
        let weights = || {
            candidates
                .iter()
                .map(|candidate| weight(candidate.logit, max, temperature))
        };
        let target = uniform(self.seed, index) * weights().sum::<f64>();
        let mut sum = 0.0;
        for (candidate, weight) in candidates.iter().zip(weights()) {
            sum += weight;
            if sum > target {
                return candidate.id;
            }
        }
        // Nothing is possible at all: weights are all 0.
        candidates.first().map_or(0, |candidate| candidate.id)
    }
}

/// The token with the highest logit; the lowest id on a tie.
fn most_likely(logits: &[f32]) -> u32 {
    let mut best = Candidate {
        id: 0,
        logit: f32::NEG_INFINITY,
    };
    for candidate in possible(logits) {
        if candidate.logit > best.logit {
            best = candidate;
        }
    }
    best.id
}

/// Every token that is no NaN, by id.
fn possible(logits: &[f32]) -> impl Iterator<Item = Candidate> {
    let all = (0..)
        .zip(logits)
        .map(|(id, &logit)| Candidate { id, logit });
    all.filter(|candidate| !candidate.logit.is_nan())
}

/// Best first; the lower id first among equals. NaN never gets here.
fn by_rank(a: &Candidate, b: &Candidate) -> Ordering {
    let by_logit = b.logit.partial_cmp(&a.logit).unwrap_or(Ordering::Equal);
    by_logit.then(a.id.cmp(&b.id))
}

fn max_logit(candidates: &[Candidate]) -> f32 {
    let logits = candidates.iter().map(|candidate| candidate.logit);
    logits.fold(f32::NEG_INFINITY, f32::max)
}

/// The share of a token, not normalised: 1 for the most likely one.
fn weight(logit: f32, max: f32, temperature: f64) -> f64 {
    if logit == max {
        return f64::from(u8::from(max > f32::NEG_INFINITY));
    }
    let below = f64::from(logit) - f64::from(max);
    (below / temperature).exp()
}

/// Keeps the `k` best, sorted.
fn keep_best(candidates: &mut Vec<Candidate>, k: usize) {
    if k < candidates.len() {
        candidates.select_nth_unstable_by(k, by_rank);
        candidates.truncate(k);
    }
    candidates.sort_unstable_by(by_rank);
}

/// Keeps the shortest run of best tokens whose probabilities add up to at least `top_p`, sorted.
fn keep_top_p(candidates: &mut Vec<Candidate>, top_p: f64) {
    let max = max_logit(candidates);
    let total: f64 = candidates
        .iter()
        .map(|candidate| weight(candidate.logit, max, 1.0))
        .sum();
    let target = top_p * total;
    // The run is short as a rule, so the whole vocabulary is sorted only if a shorter prefix does not reach.
    let mut sorted = 256;
    loop {
        let prefix = sorted.min(candidates.len());
        if prefix < candidates.len() {
            candidates.select_nth_unstable_by(prefix, by_rank);
        }
        candidates[..prefix].sort_unstable_by(by_rank);
        let mut sum = 0.0;
        let reached = candidates[..prefix].iter().position(|candidate| {
            sum += weight(candidate.logit, max, 1.0);
            sum >= target
        });
        if reached.is_some() || prefix == candidates.len() {
            candidates.truncate(reached.map_or(prefix, |last| last + 1));
            return;
        }
        sorted *= 8;
    }
}

/// A number in `[0, 1)` that belongs to this seed and index: ChaCha keyed by the seed, on the stream of the index.
fn uniform(seed: u64, index: u64) -> f64 {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let mut rng = ChaCha12Rng::from_seed(key);
    rng.set_stream(index);
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// The log-probabilities of one row of raw logits.
#[derive(Clone, Copy, Debug)]
pub struct Logprobs<'a> {
    logits: &'a [f32],
    max: f32,
    /// Natural log of the sum of the shares, relative to `max`.
    log_sum: f64,
}

impl<'a> Logprobs<'a> {
    /// Looks at a row of logits `[n_vocab]`.
    pub fn new(logits: &'a [f32]) -> Logprobs<'a> {
        let max =
            possible(logits).fold(f32::NEG_INFINITY, |max, candidate| max.max(candidate.logit));
        let sum: f64 = possible(logits)
            .map(|candidate| weight(candidate.logit, max, 1.0))
            .sum();
        Logprobs {
            logits,
            max,
            log_sum: sum.ln(),
        }
    }

    /// Natural log of the probability of token `id`; -∞ for one that is impossible or not in the vocabulary.
    pub fn of(&self, id: u32) -> f32 {
        let logit = self.logits.get(id as usize).copied().unwrap_or(f32::NAN);
        if logit.is_nan() || self.max == f32::NEG_INFINITY {
            return f32::NEG_INFINITY;
        }
        let below = if logit == self.max {
            0.0
        } else {
            f64::from(logit) - f64::from(self.max)
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
        let mut candidates: Vec<Candidate> = possible(self.logits).collect();
        keep_best(&mut candidates, n as usize);
        candidates
            .iter()
            .map(|candidate| (candidate.id, self.of(candidate.id)))
            .collect()
    }
}

#[cfg(test)]
mod tests;
