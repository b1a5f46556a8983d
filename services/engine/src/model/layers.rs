//! What a step does at each kind of layer.

use kernels::{Activation, AttentionParams, ExpertNetwork, OpError, RopeTable, Tensor, ops};

use super::workspace::{Chooser, Residual};
use super::{Model, Workspace};
use crate::config::{LayerConfig, NormConfig, NormKind};
use crate::plan::{
    Attention, Block, Embedding, FeedForward, Linear, Network, Norm, Output, Router, Shared,
};

/// Why a workspace has what experts need.
const HAS_EXPERTS: &str = "the workspace was made for a model with experts";

impl Model {
    /// `x[row] = scale · table[id of row] + positions[position of row]`
    pub(super) fn embed(
        &mut self,
        layer: &Embedding<Tensor>,
        workspace: &mut Workspace,
    ) -> Result<(), OpError> {
        if self.ropes.is_empty() {
            self.ropes = self.make_ropes(layer.rope_factors.as_ref())?;
        }
        let w = workspace;
        let x = &mut w.residual.x;
        ops::embed(&w.index, &layer.table, x)?;
        scale(x, self.config.embedding_scale)?;
        match &layer.positions {
            Some(positions) => ops::add_positions(&w.index, positions, x),
            None => Ok(()),
        }
    }

    fn make_ropes(&self, factors: Option<&Tensor>) -> Result<Vec<RopeTable>, OpError> {
        let factors = factors.map(Tensor::to_f32).transpose()?;
        let ropes = self.config.ropes.iter().map(|&params| {
            let factors = factors.as_deref().filter(|_| params.dims > 0);
            RopeTable::new(params, factors)
        });
        ropes.collect()
    }

    /// `x += attention(norm(x))`, then `x += feed_forward(norm(x))` or the choice of experts for it. What a half gives may be normalised before it is added, and both may start from the same `x`.
    pub(super) fn block(
        &self,
        layer: &Block<Tensor>,
        workspace: &mut Workspace,
    ) -> Result<(), OpError> {
        let w = workspace;
        let Attention {
            output, post_norm, ..
        } = &layer.attention;
        self.attend(layer.index, &layer.attention, w)?;
        if self.config.parallel_halves {
            self.normalise(layer.ffn_norm.as_ref(), w)?;
        }
        self.add(output, post_norm.as_ref(), &w.attended, &mut w.residual)?;
        if !self.config.parallel_halves {
            self.normalise(layer.ffn_norm.as_ref(), w)?;
        }
        match &layer.feed_forward {
            FeedForward::Dense { network, post_norm } => {
                let input = self.feed_forward_input(&w.residual.x, &w.normed);
                let activation = self.config.feed_forward.activation;
                run_inner(network, activation, input, &mut w.activated)?;
                let post_norm = post_norm.as_ref();
                self.add(&network.down, post_norm, &w.activated, &mut w.residual)
            }
            FeedForward::Routed(router) => self.route(layer.index, router, w),
        }
    }

    /// Leaves in `attended` what each head of each row takes from the positions that it sees.
    fn attend(
        &self,
        index: usize,
        layer: &Attention<Tensor>,
        workspace: &mut Workspace,
    ) -> Result<(), OpError> {
        let w = workspace;
        self.normalise(layer.norm.as_ref(), w)?;
        let input = match layer.norm {
            Some(_) => &w.normed,
            None => &w.residual.x,
        };
        let (q, k, v) = (layer.q.operand(), layer.k.operand(), layer.v.operand());
        ops::matmul_each(input, [(q, &mut w.q), (k, &mut w.k), (v, &mut w.v)])?;
        let eps = self.config.norm.eps;
        if let Some(weight) = &layer.q_norm {
            ops::head_norm(&mut w.q, weight, eps)?;
        }
        if let Some(weight) = &layer.k_norm {
            ops::head_norm(&mut w.k, weight, eps)?;
        }
        let LayerConfig { window, rope, .. } = self.config.layers[index];
        let qkv = [&mut w.q, &mut w.k, &mut w.v];
        ops::rope_and_write(&w.index, &self.ropes[rope], qkv, &mut w.kv, index)?;
        let params = AttentionParams {
            scale: self.config.attention.scale,
            window,
            soft_cap: self.config.attention.soft_cap,
            sinks: layer.sinks.as_ref(),
        };
        ops::attention(&w.index, &w.q, &w.kv, index, params, &mut w.attended)
    }

    /// Chooses experts for every row, and begins the sum that they add to with the network that runs for all of them, if there is one.
    fn route(
        &self,
        index: usize,
        router: &Router<Tensor>,
        workspace: &mut Workspace,
    ) -> Result<(), OpError> {
        let w = workspace;
        let input = self.feed_forward_input(&w.residual.x, &w.normed);
        let Chooser {
            logits,
            routing,
            shared,
        } = w.chooser.as_mut().expect(HAS_EXPERTS);
        ops::matmul(router.linear.operand(), input, logits)?;
        ops::route(index, logits, router.selection_bias.as_ref(), routing)?;
        let sum = &mut w.residual.delta;
        let (Some(Shared { network, gate }), Some(inner)) = (&router.shared, shared) else {
            return ops::clear(sum);
        };
        let activation = self.config.feed_forward.activation;
        run_inner(network, activation, input, &mut inner.activated)?;
        ops::matmul(network.down.operand(), &inner.activated, sum)?;
        if let Some(gate) = gate {
            ops::matmul(gate.operand(), input, &mut inner.gate)?;
            ops::gate_rows(sum, &inner.gate)?;
        }
        Ok(())
    }

    /// `x += norm(what runs beside the experts + the experts that each row was routed to)`. `networks`: one for each expert, those left out that no row was routed to.
    pub(super) fn experts(
        &self,
        index: usize,
        networks: &[Option<Network<Tensor>>],
        post_norm: Option<&Norm<Tensor>>,
        workspace: &mut Workspace,
    ) -> Result<(), OpError> {
        let w = workspace;
        let config = self.config.experts.as_ref().expect(HAS_EXPERTS);
        let input = self.feed_forward_input(&w.residual.x, &w.normed);
        let routing = &mut w.chooser.as_mut().expect(HAS_EXPERTS).routing;
        let operands: Vec<Option<ExpertNetwork<'_>>> = networks
            .iter()
            .map(|network| network.as_ref().map(expert_operand))
            .collect();
        let sum = &mut w.residual.delta;
        let activation = config.activation;
        ops::experts(index, routing, &operands, activation, input, sum)?;
        self.add_delta(post_norm, &mut w.residual)
    }

    /// `logits = projection(norm(x))`, for the rows that need logits.
    pub(super) fn output(
        &self,
        layer: &Output<Tensor>,
        workspace: &mut Workspace,
    ) -> Result<(), OpError> {
        let w = workspace;
        ops::gather_rows(&w.index, &w.residual.x, &mut w.gathered)?;
        let norm = self.config.norm;
        normalise(norm, &layer.norm, &w.gathered, &mut w.gathered_normed)?;
        let projection = layer.projection.operand();
        ops::matmul(projection, &w.gathered_normed, &mut w.logits)?;
        scale(&mut w.logits, self.config.logit_scale)?;
        match self.config.logit_soft_cap {
            Some(cap) => ops::soft_cap(&mut w.logits, cap),
            None => Ok(()),
        }
    }
}

/// The pieces that halves of blocks share.
impl Model {
    /// Leaves the hidden state's norm in `normed`, if there is such a norm.
    fn normalise(
        &self,
        weights: Option<&Norm<Tensor>>,
        workspace: &mut Workspace,
    ) -> Result<(), OpError> {
        let w = workspace;
        match weights {
            Some(weights) => normalise(self.config.norm, weights, &w.residual.x, &mut w.normed),
            None => Ok(()),
        }
    }

    /// What the second half of a block reads: a norm of its own, what attention read, or the hidden state itself.
    fn feed_forward_input<'a>(&self, x: &'a Tensor, normed: &'a Tensor) -> &'a Tensor {
        match self.config.norms.before_feed_forward {
            None if !self.config.parallel_halves => x,
            _ => normed,
        }
    }

    /// `x += scale · norm(linear · input)`
    fn add(
        &self,
        linear: &Linear<Tensor>,
        post_norm: Option<&Norm<Tensor>>,
        input: &Tensor,
        residual: &mut Residual,
    ) -> Result<(), OpError> {
        if post_norm.is_none() && self.config.residual_scale == 1.0 {
            return ops::matmul_add(linear.operand(), input, &mut residual.x);
        }
        ops::matmul(linear.operand(), input, &mut residual.delta)?;
        self.add_delta(post_norm, residual)
    }

    /// `x += scale · norm(delta)`
    fn add_delta(
        &self,
        post_norm: Option<&Norm<Tensor>>,
        residual: &mut Residual,
    ) -> Result<(), OpError> {
        let Residual { x, delta, normed } = residual;
        let added = match post_norm {
            None => delta,
            Some(weights) => {
                normalise(self.config.norm, weights, delta, normed)?;
                normed
            }
        };
        scale(added, self.config.residual_scale)?;
        ops::add(x, added)
    }
}

fn normalise(
    config: NormConfig,
    weights: &Norm<Tensor>,
    x: &Tensor,
    out: &mut Tensor,
) -> Result<(), OpError> {
    let NormConfig { kind, eps } = config;
    match kind {
        NormKind::Rms => ops::rms_norm(x, &weights.weight, eps, out),
        NormKind::Layer => ops::layer_norm(x, &weights.weight, weights.bias.as_ref(), eps, out),
    }
}

/// `out = activation(gate · x) · (up · x)`, or `activation(up · x)` without a gate.
fn run_inner(
    network: &Network<Tensor>,
    activation: Activation,
    x: &Tensor,
    out: &mut Tensor,
) -> Result<(), OpError> {
    let up = network.up.operand();
    match &network.gate {
        Some(gate) => ops::gated(gate.operand(), up, activation, x, out),
        None => {
            ops::matmul(up, x, out)?;
            ops::activate_alone(out, activation)
        }
    }
}

fn scale(x: &mut Tensor, factor: f32) -> Result<(), OpError> {
    if factor == 1.0 {
        return Ok(());
    }
    ops::scale(x, factor)
}

fn expert_operand(network: &Network<Tensor>) -> ExpertNetwork<'_> {
    let gate = network.gate.as_ref().unwrap_or(&network.up);
    ExpertNetwork {
        gate: gate.operand(),
        up: network.up.operand(),
        down: network.down.operand(),
    }
}

impl Linear<Tensor> {
    /// As products take it.
    fn operand(&self) -> kernels::Linear<'_> {
        kernels::Linear {
            weight: &self.weight,
            bias: self.bias.as_ref(),
        }
    }
}
