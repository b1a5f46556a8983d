//! From a row of logits to a token id, and to log-probabilities.
//!
//! # The order of things
//! 1. Penalties, on the model's own logits: repetition first, then frequency and presence.
//! 2. Biases, added as they were sent: no penalty scales them.
//! 3. What may not come yet (the tokens that would end the output before `min_tokens`) becomes impossible.
//! 4. `top_k`, `top_p`, `min_p`, each on what the one before left, with the probabilities of temperature 1.
//! 5. `temperature`, and the draw.
//!
//! Log-probabilities look at the model's own logits, before all of this.
//!
//! # Odd logits
//! Logits may hold anything. NaN counts as impossible; if one or more are +∞, those share all probability; if nothing is possible, token 0 is taken.
//!
//! # What it costs
//! A vocabulary has a hundred thousand tokens and more, and a row is looked at for every token of every sequence. Greedy choice is one pass; a draw takes one pass more for the sum of the probabilities; truncation never sorts more
//! than what it keeps, or what it must look at to find out. Nothing is allocated once the [`Scratch`] has seen a row, but for what a completion says for the first time.

mod adjust;
mod exp;
mod logprobs;
mod row;
mod select;

use rand_chacha::ChaCha12Rng;
use rand_core::{RngCore, SeedableRng};

use crate::SamplingParams;

use adjust::Adjustment;
use exp::exp;
use select::{Candidate, best, keep_min_p, keep_top_p, shortest_run};

pub use logprobs::Logprobs;
pub use row::most_likely;

/// How much of a row of logits has to be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// What [`most_likely`] answers; a device can find that out by itself.
    MostLikely,
    /// Every logit.
    Row,
}

/// What is seen of a row of logits.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'a> {
    /// The token that [`most_likely`] answers.
    MostLikely(u32),
    /// Every logit, `[n_vocab]`.
    Row(&'a [f32]),
}

/// Memory that samplers work in, one after the other.
#[derive(Debug, Default)]
pub struct Scratch {
    /// A row that had to be changed, `[n_vocab]`.
    row: Vec<f32>,
    candidates: Vec<Candidate>,
    /// What the shares of each block of the row add up to.
    sums: Vec<f64>,
}

/// Chooses the tokens of one sequence. What it draws depends on the seed and on the token's index in the output, not on what was drawn before or beside it.
#[derive(Clone, Debug)]
pub struct Sampler {
    params: SamplingParams,
    seed: u64,
    /// The token that comes next, as number of the output.
    index: u64,
    adjustment: Adjustment,
}

/// Tokens that may not come before there are so many others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotYet {
    /// The tokens.
    pub ids: Vec<u32>,
    /// The least number of others.
    pub min_tokens: u32,
}

impl Sampler {
    /// A sampler for valid `params` and a sequence that begins with `prompt`.
    pub fn new(params: SamplingParams, prompt: &[u32], not_yet: NotYet, seed: u64) -> Sampler {
        Sampler {
            adjustment: Adjustment::new(&params, prompt, not_yet),
            params,
            seed,
            index: 0,
        }
    }

    /// What it has to see of the next row.
    pub fn needs(&self) -> Needs {
        if self.is_greedy() && !self.adjustment.changes(self.index) {
            Needs::MostLikely
        } else {
            Needs::Row
        }
    }

    /// Chooses the next token of the output, which then counts as said.
    ///
    /// # Panics
    /// If less is seen than it [`needs`](Sampler::needs).
    pub fn sample(&mut self, seen: Seen<'_>, scratch: &mut Scratch) -> u32 {
        let token = match seen {
            Seen::MostLikely(token) => {
                assert_eq!(self.needs(), Needs::MostLikely, "the row has to be seen");
                token
            }
            Seen::Row(row) => self.choose(row, scratch),
        };
        self.adjustment.said(token);
        self.index += 1;
        token
    }

    fn is_greedy(&self) -> bool {
        self.params.temperature == 0.0 || self.params.top_k == 1
    }

    fn choose(&self, row: &[f32], scratch: &mut Scratch) -> u32 {
        let Scratch {
            row: changed,
            candidates,
            sums,
        } = scratch;
        let row = if self.adjustment.changes(self.index) {
            changed.clear();
            changed.extend_from_slice(row);
            self.adjustment.apply(changed, self.index);
            &changed[..]
        } else {
            row
        };
        if self.is_greedy() {
            return most_likely(row);
        }
        let peak = row::max(row);
        if peak == f32::NEG_INFINITY {
            return 0;
        }
        if peak < f32::INFINITY {
            return self.draw(row, peak, candidates, sums);
        }
        // Those at the top share everything: the others become impossible.
        let share = |logit: &f32| {
            if *logit == peak {
                0.0
            } else {
                f32::NEG_INFINITY
            }
        };
        let shares: Vec<f32> = row.iter().map(share).collect();
        self.draw(&shares, 0.0, candidates, sums)
    }

    /// Truncates and draws. `peak` is the row's highest logit, a finite one.
    fn draw(
        &self,
        row: &[f32],
        peak: f32,
        candidates: &mut Vec<Candidate>,
        sums: &mut Vec<f64>,
    ) -> u32 {
        let SamplingParams {
            temperature,
            top_k,
            top_p,
            min_p,
            ..
        } = self.params;
        let uniform = uniform(self.seed, self.index);
        let top_k = top_k as usize;
        let cuts = (1..row.len()).contains(&top_k);
        match (cuts, top_p < 1.0, min_p > 0.0) {
            (false, false, false) => return draw_of_row(row, peak, temperature, uniform, sums),
            (true, _, _) => {
                best(row, top_k, candidates);
                if top_p < 1.0 {
                    let kept = shortest_run(candidates, peak, top_p);
                    candidates.truncate(kept);
                }
            }
            (false, true, _) => keep_top_p(row, peak, top_p, candidates),
            (false, false, true) => select::all(row, candidates),
        }
        if min_p > 0.0 {
            keep_min_p(candidates, peak, min_p);
        }
        draw_of(candidates, peak, temperature, uniform)
    }
}

/// Draws from a whole row in proportion to the probabilities at `temperature`: first a block, then a token of it.
fn draw_of_row(row: &[f32], peak: f32, temperature: f32, uniform: f64, sums: &mut Vec<f64>) -> u32 {
    sums.clear();
    sums.extend(exp::block_sums(row, peak, temperature));
    let mut target = uniform * sums.iter().sum::<f64>();
    let mut last = 0;
    for (block, &sum) in sums.iter().enumerate().filter(|(_, sum)| **sum > 0.0) {
        last = block;
        if target < sum {
            break;
        }
        target -= sum;
    }
    let first = last * row::BLOCK;
    let logits = &row[first..row.len().min(first + row::BLOCK)];
    let shares = logits
        .iter()
        .map(|&logit| exp((logit - peak) / temperature));
    pick((row::id(first)..).zip(shares), target)
}

/// Draws from candidates in proportion to the probabilities at `temperature`.
fn draw_of(candidates: &[Candidate], peak: f32, temperature: f32, uniform: f64) -> u32 {
    let shares = || {
        candidates
            .iter()
            .map(|candidate| (candidate.id, exp((candidate.logit - peak) / temperature)))
    };
    let total: f64 = shares().map(|(_, share)| f64::from(share)).sum();
    pick(shares(), uniform * total)
}

/// The token at which the shares add up to more than `target`; the last possible one if rounding leaves less than that.
fn pick(shares: impl Iterator<Item = (u32, f32)>, mut target: f64) -> u32 {
    let mut picked = 0;
    for (id, share) in shares.filter(|&(_, share)| share > 0.0) {
        picked = id;
        target -= f64::from(share);
        if target < 0.0 {
            break;
        }
    }
    picked
}

/// A number in `[0, 1)` that belongs to this seed and index: ChaCha keyed by the seed, on the stream of the index.
fn uniform(seed: u64, index: u64) -> f64 {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let mut rng = ChaCha12Rng::from_seed(key);
    rng.set_stream(index);
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests;
