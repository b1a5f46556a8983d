//! Which experts each row of a step goes to, and what they count.

use crate::{Device, OpError, Tensor};

/// How a router's scores become weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scoring {
    /// Softmax over all experts.
    Softmax,
    /// Sigmoid of each.
    Sigmoid,
    /// Softmax over the chosen alone; they are chosen by their logits.
    SoftmaxOfChosen,
}

/// How experts are chosen for a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RoutingParams {
    /// Experts of a row.
    pub n_used: usize,
    /// What weighs them.
    pub scoring: Scoring,
    /// Whether the weights of the chosen are divided by their sum.
    pub normalised: bool,
    /// Factor on the weights after that.
    pub scale: f32,
}

/// The experts of the rows of the step that is under way, from [`ops::route`](crate::ops::route) to [`ops::experts`](crate::ops::experts), and memory for what happens between.
#[derive(Debug)]
pub struct Routing {
    n_experts: usize,
    params: RoutingParams,
    /// The chosen of each row, the best first: `[rows * n_used]`.
    slots: Vec<u32>,
    /// Their weights.
    weights: Vec<f32>,
    /// Rows that go to one expert: `[max_rows, n_embd]`.
    pub(crate) gathered: Tensor,
    /// `[max_rows, n_ff]`
    pub(crate) hidden: Tensor,
    /// What the expert makes of them: `[max_rows, n_embd]`.
    pub(crate) made: Tensor,
    /// What each slot's expert makes of its row: `[max_rows * n_used, n_embd]`.
    pub(crate) outputs: Tensor,
}

/// Sizes of a [`Routing`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoutingSize {
    /// Rows of a step.
    pub max_rows: usize,
    /// Experts to choose from.
    pub n_experts: usize,
    /// Width of the hidden state.
    pub n_embd: usize,
    /// Inner width of an expert.
    pub n_ff: usize,
}

impl Routing {
    /// Memory for steps of at most `size.max_rows` rows.
    ///
    /// # Errors
    /// [`OpError::Memory`] if the machine has no such memory, [`OpError::OutOfRange`] if no expert or more than there are would be used.
    pub fn new(
        device: &Device,
        size: RoutingSize,
        params: RoutingParams,
    ) -> Result<Routing, OpError> {
        let RoutingSize {
            max_rows,
            n_experts,
            n_embd,
            n_ff,
        } = size;
        if params.n_used == 0 || params.n_used > n_experts {
            return Err(OpError::OutOfRange {
                op: "routing",
                what: "number of experts used",
                entry: 0,
                index: params.n_used as u64,
                limit: n_experts as u64 + 1,
            });
        }
        let slots = max_rows.saturating_mul(params.n_used);
        Ok(Routing {
            n_experts,
            params,
            slots: Vec::new(),
            weights: Vec::new(),
            gathered: Tensor::zeros(device, &[max_rows, n_embd])?,
            hidden: Tensor::zeros(device, &[max_rows, n_ff])?,
            made: Tensor::zeros(device, &[max_rows, n_embd])?,
            outputs: Tensor::zeros(device, &[slots, n_embd])?,
        })
    }

    /// Experts to choose from.
    #[must_use]
    pub fn n_experts(&self) -> usize {
        self.n_experts
    }

    /// How they are chosen.
    #[must_use]
    pub fn params(&self) -> &RoutingParams {
        &self.params
    }

    /// The experts that at least one row goes to, ascending.
    #[must_use]
    pub fn chosen(&self) -> Vec<u32> {
        let mut chosen = self.slots.clone();
        chosen.sort_unstable();
        chosen.dedup();
        chosen
    }

    /// The experts of one row with their weights, the best first.
    ///
    /// # Panics
    /// If no such row was routed.
    pub fn choices(&self, row: usize) -> impl Iterator<Item = (u32, f32)> + '_ {
        let slots = &self.slots[row * self.params.n_used..][..self.params.n_used];
        slots.iter().copied().zip(self.weights(row).iter().copied())
    }

    /// Rows that were routed.
    pub(crate) fn n_rows(&self) -> usize {
        self.slots.len() / self.params.n_used
    }

    /// The slots of one expert, ascending: slot `i` belongs to row `i / n_used`.
    pub(crate) fn slots_of(&self, expert: u32) -> Vec<usize> {
        let slots = self.slots.iter().enumerate();
        slots
            .filter(|&(_, &chosen)| chosen == expert)
            .map(|(slot, _)| slot)
            .collect()
    }

    /// The weights of a row's slots: `[n_used]`.
    pub(crate) fn weights(&self, row: usize) -> &[f32] {
        let n_used = self.params.n_used;
        &self.weights[row * n_used..][..n_used]
    }

    /// Chooses for all rows. `logits`: `[rows, n_experts]`; `bias`: `[n_experts]`, added to the scores for the choice alone.
    pub(crate) fn choose(&mut self, logits: &[f32], bias: Option<&[f32]>) {
        self.slots.clear();
        self.weights.clear();
        let mut scores = Vec::with_capacity(self.n_experts);
        let mut order: Vec<u32> = Vec::with_capacity(self.n_experts);
        for logits in logits.chunks_exact(self.n_experts) {
            score(logits, self.params.scoring, &mut scores);
            let rank = |expert: u32| {
                let expert = expert as usize;
                scores[expert] + bias.map_or(0.0, |bias| bias[expert])
            };
            order.clear();
            order.extend((0_u32..).take(self.n_experts));
            // A stable sort: of two equal scores the lower number comes first.
            order.sort_by(|&a, &b| rank(b).total_cmp(&rank(a)));
            let chosen = &order[..self.params.n_used];
            let first = self.weights.len();
            self.slots.extend_from_slice(chosen);
            self.weights
                .extend(chosen.iter().map(|&expert| scores[expert as usize]));
            weigh(&mut self.weights[first..], &self.params);
        }
    }
}

/// What the router thinks of each expert.
#[expect(
    clippy::cast_possible_truncation,
    reason = "each quotient is rounded to f32 once"
)]
fn score(logits: &[f32], scoring: Scoring, scores: &mut Vec<f32>) {
    scores.clear();
    match scoring {
        Scoring::Softmax => {
            scores.extend_from_slice(logits);
            softmax(scores);
        }
        Scoring::Sigmoid => scores.extend(
            logits
                .iter()
                .map(|&logit| (1.0 / (1.0 + (-f64::from(logit)).exp())) as f32),
        ),
        Scoring::SoftmaxOfChosen => scores.extend_from_slice(logits),
    }
}

/// What the scores of the chosen make them count.
fn weigh(weights: &mut [f32], params: &RoutingParams) {
    if params.scoring == Scoring::SoftmaxOfChosen {
        softmax(weights);
    } else if params.normalised {
        let sum: f32 = weights.iter().sum();
        // Sigmoids may all be zero.
        let sum = sum.max(f32::MIN_POSITIVE);
        for weight in &mut *weights {
            *weight /= sum;
        }
    }
    for weight in weights {
        *weight *= params.scale;
    }
}

/// `scores[i] = exp(scores[i]) / Σ_i exp(scores[i])`, the largest taken off first.
#[expect(
    clippy::cast_possible_truncation,
    reason = "each quotient is rounded to f32 once"
)]
fn softmax(scores: &mut [f32]) {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponentials = scores.iter().map(|&score| f64::from(score - largest).exp());
    let sum: f64 = exponentials.sum();
    for score in scores {
        *score = (f64::from(*score - largest).exp() / sum) as f32;
    }
}
