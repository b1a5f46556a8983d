//! Which experts each row of a step goes to, and what they count.

use std::ops::Range;

use crate::hip::RoutingMemory;
use crate::hip::launch::experts::{CHOSEN_MAX, EXPERTS_MAX};
use crate::{Device, OpError, Tensor};

/// What refusals call it.
const OP: &str = "routing";

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
    device: Device,
    size: RoutingSize,
    params: RoutingParams,
    /// By layer.
    layers: Vec<Choice>,
    pub(crate) memory: Memory,
}

/// What was chosen at one layer, the best of each row first: `[rows * n_used]`.
#[derive(Debug, Clone, Default)]
struct Choice {
    /// Slots: experts of rows. There may be some of which the host knows nothing yet.
    n_slots: usize,
    experts: Vec<u32>,
    weights: Vec<f32>,
}

/// Memory for what happens between a choice and what comes of it.
#[derive(Debug)]
pub(crate) enum Memory {
    /// On the processor.
    Host(Box<HostMemory>),
    /// On a GPU.
    Gpu(Box<RoutingMemory>),
}

#[derive(Debug)]
pub(crate) struct HostMemory {
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
    /// Layers that have experts: each has a choice of its own.
    pub n_layers: usize,
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
    /// [`OpError::Memory`] or [`OpError::Hip`] if the machine has no such memory, [`OpError::OutOfRange`] if no expert or more than there are would be used, or more than the device
    /// [chooses from](Device::max_experts).
    pub fn new(
        device: &Device,
        size: RoutingSize,
        params: RoutingParams,
    ) -> Result<Routing, OpError> {
        let [n_experts_max, n_used_max] = device.max_experts();
        in_range("number of experts", size.n_experts, n_experts_max)?;
        let n_used_max = n_used_max.min(size.n_experts);
        in_range("number of experts used", params.n_used, n_used_max)?;
        let memory = match device {
            Device::Reference | Device::Cpu(_) => {
                let memory = HostMemory::new(device, size, params.n_used)?;
                Memory::Host(Box::new(memory))
            }
            Device::Hip(hip) => {
                let memory = RoutingMemory::new(hip, size, params.n_used)?;
                Memory::Gpu(Box::new(memory))
            }
        };
        Ok(Routing {
            device: device.clone(),
            size,
            params,
            layers: vec![Choice::default(); size.n_layers],
            memory,
        })
    }

    /// The device of the operations that use it.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// What there is room for.
    #[must_use]
    pub fn size(&self) -> &RoutingSize {
        &self.size
    }

    /// How experts are chosen.
    #[must_use]
    pub fn params(&self) -> &RoutingParams {
        &self.params
    }

    /// The experts that at least one row goes to at a layer, ascending. Waits for a device that has chosen them and has not been asked yet.
    ///
    /// # Errors
    /// [`OpError::OutOfRange`] for a layer that there is not, [`OpError::Hip`] if the device failed.
    pub fn chosen(&mut self, layer: usize) -> Result<Vec<u32>, OpError> {
        self.in_layers(layer)?;
        self.bring(layer..layer + 1)?;
        let mut chosen = self.layers[layer].experts.clone();
        chosen.sort_unstable();
        chosen.dedup();
        Ok(chosen)
    }

    /// Brings the choices of all layers to the host at once, where [`Routing::chosen`] finds them: for a step of which no layer was asked for its own.
    ///
    /// # Errors
    /// [`OpError::Hip`] if the device failed.
    pub fn bring_all(&mut self) -> Result<(), OpError> {
        self.bring(0..self.size.n_layers)
    }

    /// Brings choices to the host that are not there yet. Layers have the rows of one step.
    fn bring(&mut self, layers: Range<usize>) -> Result<(), OpError> {
        let Memory::Gpu(memory) = &mut self.memory else {
            return Ok(());
        };
        let unknown = |choice: &Choice| choice.experts.len() < choice.n_slots;
        let Some(n_slots) = self.layers[layers.clone()]
            .iter()
            .find(|choice| unknown(choice))
            .map(|choice| choice.n_slots)
        else {
            return Ok(());
        };
        let mut experts = vec![0; layers.len() * n_slots];
        memory.read_ids(layers.clone(), n_slots, &mut experts)?;
        let of_layers = experts.chunks_exact(n_slots);
        for (choice, experts) in self.layers[layers].iter_mut().zip(of_layers) {
            if unknown(choice) && choice.n_slots == n_slots {
                choice.experts.extend_from_slice(experts);
            }
        }
        Ok(())
    }

    /// The experts of one row at a layer with their weights, the best first. Waits for the device.
    ///
    /// # Errors
    /// [`OpError::OutOfRange`] for a layer that there is not or a row that was not routed there, [`OpError::Hip`] if the device failed.
    pub fn choices(&mut self, layer: usize, row: usize) -> Result<Vec<(u32, f32)>, OpError> {
        self.in_layers(layer)?;
        self.bring(layer..layer + 1)?;
        let choice = &mut self.layers[layer];
        if let Memory::Gpu(memory) = &mut self.memory {
            choice.weights.resize(choice.n_slots, 0.0);
            memory.read_weights(layer..layer + 1, choice.n_slots, &mut choice.weights)?;
        }
        let n_used = self.params.n_used;
        let slots = row * n_used..(row + 1) * n_used;
        match (choice.experts.get(slots.clone()), choice.weights.get(slots)) {
            (Some(experts), Some(weights)) => {
                let experts = experts.iter().copied();
                Ok(experts.zip(weights.iter().copied()).collect())
            }
            _ => Err(OpError::OutOfRange {
                op: OP,
                what: "row",
                entry: 0,
                index: row as u64,
                limit: (choice.n_slots / n_used) as u64,
            }),
        }
    }

    pub(crate) fn in_layers(&self, layer: usize) -> Result<(), OpError> {
        if layer < self.size.n_layers {
            return Ok(());
        }
        Err(OpError::OutOfRange {
            op: OP,
            what: "layer",
            entry: 0,
            index: layer as u64,
            limit: self.size.n_layers as u64,
        })
    }

    /// Rows that were routed at a layer.
    pub(crate) fn n_rows(&self, layer: usize) -> usize {
        self.layers[layer].n_slots / self.params.n_used
    }

    /// The slots of one expert at a layer whose choice the host knows, ascending: slot `i` belongs to row `i / n_used`.
    pub(crate) fn slots_of(&self, layer: usize, expert: u32) -> Vec<usize> {
        let slots = self.layers[layer].experts.iter().enumerate();
        slots
            .filter(|&(_, &chosen)| chosen == expert)
            .map(|(slot, _)| slot)
            .collect()
    }

    /// The weights of a row's slots: `[n_used]`, where the processor chose them.
    pub(crate) fn weights(&self, layer: usize, row: usize) -> &[f32] {
        let n_used = self.params.n_used;
        &self.layers[layer].weights[row * n_used..][..n_used]
    }

    /// The device will have chosen for so many rows; the host does not know what.
    pub(crate) fn set_unknown(&mut self, layer: usize, n_rows: usize) {
        let choice = &mut self.layers[layer];
        choice.n_slots = n_rows * self.params.n_used;
        choice.experts.clear();
        choice.weights.clear();
    }

    /// Chooses for all rows. `logits`: `[rows, n_experts]`; `bias`: `[n_experts]`, added to the scores for the choice alone.
    pub(crate) fn choose(&mut self, layer: usize, logits: &[f32], bias: Option<&[f32]>) {
        let n_experts = self.size.n_experts;
        let n_rows = logits.len() / n_experts;
        self.set_unknown(layer, n_rows);
        let choice = &mut self.layers[layer];
        let mut scores = Vec::with_capacity(n_experts);
        let mut order: Vec<u32> = Vec::with_capacity(n_experts);
        for logits in logits.chunks_exact(n_experts) {
            score(logits, self.params.scoring, &mut scores);
            let rank = |expert: u32| {
                let expert = expert as usize;
                scores[expert] + bias.map_or(0.0, |bias| bias[expert])
            };
            order.clear();
            order.extend((0_u32..).take(n_experts));
            // A stable sort: of two equal scores the lower number comes first.
            order.sort_by(|&a, &b| rank(b).total_cmp(&rank(a)));
            let chosen = &order[..self.params.n_used];
            let first = choice.weights.len();
            choice.experts.extend_from_slice(chosen);
            let weights = chosen.iter().map(|&expert| scores[expert as usize]);
            choice.weights.extend(weights);
            weigh(&mut choice.weights[first..], &self.params);
        }
    }
}

impl HostMemory {
    fn new(device: &Device, size: RoutingSize, n_used: usize) -> Result<HostMemory, OpError> {
        let RoutingSize {
            max_rows,
            n_embd,
            n_ff,
            ..
        } = size;
        let slots = max_rows.saturating_mul(n_used);
        Ok(HostMemory {
            gathered: Tensor::zeros(device, &[max_rows, n_embd])?,
            hidden: Tensor::zeros(device, &[max_rows, n_ff])?,
            made: Tensor::zeros(device, &[max_rows, n_embd])?,
            outputs: Tensor::zeros(device, &[slots, n_embd])?,
        })
    }
}

impl Device {
    /// Experts that [`ops::route`](crate::ops::route) chooses from, and that it chooses, at most.
    #[must_use]
    pub fn max_experts(&self) -> [usize; 2] {
        match self {
            Device::Reference | Device::Cpu(_) => [usize::MAX, usize::MAX],
            Device::Hip(_) => [EXPERTS_MAX, CHOSEN_MAX],
        }
    }
}

/// That there is at least one, and no more than `max`.
fn in_range(what: &'static str, number: usize, max: usize) -> Result<(), OpError> {
    if (1..=max).contains(&number) {
        return Ok(());
    }
    Err(OpError::OutOfRange {
        op: OP,
        what,
        entry: 0,
        index: number as u64,
        limit: (max as u64).saturating_add(1),
    })
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
