//! The best tokens of a row: partial selections, never a sort of the whole.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::exp::{self, exp};
use super::row::{self, BLOCK};

/// A token that can be chosen. Ordered by rank: the higher logit first, the lower id among equals. Its logit is no NaN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    pub(super) logit: f32,
    pub(super) id: u32,
}

/// How many are tried as the shortest run before everything is looked at: as a rule far more than it has.
const FIRST_TRY: usize = 256;
/// A selection of more than this part of the row is better made by partition than by insertion.
const HEAP_PART: usize = 16;
/// So few are sorted.
const FEW: usize = 32;

impl Eq for Candidate {}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Candidate) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Candidate {
    fn cmp(&self, other: &Candidate) -> Ordering {
        let by_logit = other.logit.partial_cmp(&self.logit);
        by_logit
            .unwrap_or(Ordering::Equal)
            .then(self.id.cmp(&other.id))
    }
}

/// Every token that is no NaN, by id.
pub(super) fn all(row: &[f32], candidates: &mut Vec<Candidate>) {
    candidates.clear();
    candidates.extend(possible(row));
}

fn possible(row: &[f32]) -> impl Iterator<Item = Candidate> {
    let all = (0..).zip(row).map(|(id, &logit)| Candidate { logit, id });
    all.filter(|candidate| !candidate.logit.is_nan())
}

/// The `k` best tokens of a row, in order; `k` is above 0.
pub(super) fn best(row: &[f32], k: usize, candidates: &mut Vec<Candidate>) {
    if k > row.len() / HEAP_PART {
        all(row, candidates);
        if k < candidates.len() {
            candidates.select_nth_unstable(k);
            candidates.truncate(k);
        }
        candidates.sort_unstable();
        return;
    }
    candidates.clear();
    // The worst of those kept is on top.
    let mut kept = BinaryHeap::from(std::mem::take(candidates));
    for (block, logits) in row.chunks(BLOCK).enumerate() {
        if kept.len() == k && worst(&kept) >= row::max(logits) {
            continue;
        }
        let first = row::id(block * BLOCK);
        for Candidate { logit, id } in possible(logits) {
            let candidate = Candidate {
                logit,
                id: first + id,
            };
            if kept.len() < k {
                kept.push(candidate);
            } else if candidate.logit > worst(&kept) {
                // Later ids rank behind equals, so an equal one changes nothing.
                *kept.peek_mut().expect("k is above 0") = candidate;
            }
        }
    }
    *candidates = kept.into_sorted_vec();
}

fn worst(kept: &BinaryHeap<Candidate>) -> f32 {
    kept.peek().map_or(f32::INFINITY, |worst| worst.logit)
}

/// The shortest run of a row's best tokens whose probabilities add up to at least `top_p`, in no particular order.
pub(super) fn keep_top_p(row: &[f32], peak: f32, top_p: f32, candidates: &mut Vec<Candidate>) {
    let target = f64::from(top_p) * exp::sum(row, peak);
    best(row, FIRST_TRY, candidates);
    if let Some(len) = run_to(candidates, peak, 0.0, target) {
        return candidates.truncate(len);
    }
    all(row, candidates);
    let len = partition(candidates, peak, target);
    candidates.truncate(len);
}

/// The length of the shortest run of candidates, which are in order, that has the part `top_p` of their probability.
pub(super) fn shortest_run(candidates: &[Candidate], peak: f32, top_p: f32) -> usize {
    let total: f64 = mass(candidates, peak);
    let run = run_to(candidates, peak, 0.0, f64::from(top_p) * total);
    run.unwrap_or(candidates.len())
}

/// How many of the candidates, in their order, it takes to get from `mass` to `target`.
fn run_to(candidates: &[Candidate], peak: f32, mut mass: f64, target: f64) -> Option<usize> {
    let last = candidates.iter().position(|candidate| {
        mass += share(candidate, peak);
        mass >= target
    });
    last.map(|last| last + 1)
}

/// Moves the shortest run that reaches `target` to the front and answers its length: halves what is undecided until little is left.
fn partition(candidates: &mut [Candidate], peak: f32, target: f64) -> usize {
    let (mut low, mut high) = (0, candidates.len());
    let mut mass_below = 0.0;
    while high - low > FEW {
        let middle = low + (high - low) / 2;
        candidates[low..high].select_nth_unstable(middle - low);
        let mass = mass_below + mass(&candidates[low..middle], peak);
        if mass >= target {
            high = middle;
        } else {
            (low, mass_below) = (middle, mass);
        }
    }
    candidates[low..high].sort_unstable();
    let run = run_to(&candidates[low..high], peak, mass_below, target);
    run.map_or(high, |run| low + run)
}

/// Drops candidates that are less likely than the part `min_p` of the most likely one.
pub(super) fn keep_min_p(candidates: &mut Vec<Candidate>, peak: f32, min_p: f32) {
    let least = peak + min_p.ln();
    candidates.retain(|candidate| candidate.logit >= least || candidate.logit == peak);
}

fn mass(candidates: &[Candidate], peak: f32) -> f64 {
    candidates
        .iter()
        .map(|candidate| share(candidate, peak))
        .sum()
}

/// Of the most likely token's probability.
fn share(candidate: &Candidate, peak: f32) -> f64 {
    f64::from(exp(candidate.logit - peak))
}
