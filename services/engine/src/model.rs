//! The forward pass, one for the whole family: what a step does at each layer, and the step that stands at one.

mod step;
mod workspace;

use std::sync::Arc;

use kernels::{Device, KvShape, OpError, RopeTable, Tensor, ops};

use crate::config::ModelConfig;
use crate::kv_cache::BLOCK_LEN;
use crate::plan::{Block, Embedding, Layer, LazyTensor, Linear, Output, Plan};
use crate::source::WeightSource;

pub use step::{Progress, Rows, Step};
pub use workspace::{Logits, Workspace};

/// A model that steps can run on.
#[derive(Debug)]
pub struct Model {
    config: ModelConfig,
    plan: Plan,
    source: Arc<dyn WeightSource>,
    device: Device,
    /// Made when the first step has the frequency factors, if there are any.
    rope: Option<RopeTable>,
}

impl Model {
    /// Puts the parts together; reads nothing.
    pub fn new(
        config: ModelConfig,
        plan: Plan,
        source: Arc<dyn WeightSource>,
        device: Device,
    ) -> Model {
        Model {
            config,
            plan,
            source,
            device,
            rope: None,
        }
    }

    /// The hyper-parameters.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The layers.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The weights.
    pub fn source(&self) -> &Arc<dyn WeightSource> {
        &self.source
    }

    /// The shape of a KV store of `n_blocks` blocks.
    pub fn kv_shape(&self, n_blocks: usize) -> KvShape {
        KvShape {
            n_layers: self.config.n_layers,
            n_blocks,
            block_len: BLOCK_LEN,
            n_kv_heads: self.config.n_kv_heads,
            head_dim_k: self.config.head_dim_k,
            head_dim_v: self.config.head_dim_v,
        }
    }

    /// Runs one layer, whose extents are resident, on the rows.
    fn run_layer(
        &mut self,
        index: usize,
        rows: &Rows,
        workspace: &mut Workspace,
    ) -> Result<(), OpError> {
        let layer = self.plan.layers[index].try_map(|lazy| self.tensor(lazy))?;
        match layer {
            Layer::Embedding(layer) => self.embed(&layer, rows, workspace),
            // The embedding comes before the blocks.
            Layer::Block(layer) => self.block(index - 1, &layer, rows, workspace),
            Layer::Output(layer) => self.output(&layer, rows, workspace),
        }
    }

    /// The tensor itself: a view of the source's bytes.
    fn tensor(&self, lazy: &LazyTensor) -> Result<Tensor, OpError> {
        let bytes = Arc::clone(&self.source).view(lazy.extent);
        let len = (*bytes).as_ref().len();
        Tensor::from_owner(&self.device, lazy.tensor_type, &lazy.shape, bytes, 0..len)
    }

    /// `x[row] = table[id of row]`
    fn embed(
        &mut self,
        layer: &Embedding<Tensor>,
        rows: &Rows,
        workspace: &mut Workspace,
    ) -> Result<(), OpError> {
        if self.rope.is_none() {
            let factors = layer.rope_factors.as_ref().map(Tensor::to_f32);
            self.rope = Some(RopeTable::new(self.config.rope, factors.as_deref())?);
        }
        workspace.set_rows(rows.len())?;
        ops::embed(&layer.table, &rows.ids, &mut workspace.x)
    }

    /// `x += attention(norm(x)); x += feed_forward(norm(x))`
    fn block(
        &self,
        kv_layer: usize,
        layer: &Block<Tensor>,
        rows: &Rows,
        workspace: &mut Workspace,
    ) -> Result<(), OpError> {
        let w = workspace;
        let eps = self.config.rms_eps;
        ops::rms_norm(&w.x, &layer.attn_norm, eps, &mut w.normed)?;
        linear(&layer.q, &w.normed, &mut w.q)?;
        linear(&layer.k, &w.normed, &mut w.k)?;
        linear(&layer.v, &w.normed, &mut w.v)?;
        let rope = self
            .rope
            .as_ref()
            .expect("the embedding came before the blocks");
        ops::rope(&mut w.q, &rows.positions, rope, self.config.n_heads)?;
        ops::rope(&mut w.k, &rows.positions, rope, self.config.n_kv_heads)?;
        ops::kv_write(&mut w.kv, kv_layer, &w.k, &w.v, &rows.slots)?;
        let attended = rows.attention(|rows| {
            let scale = self.config.attention_scale;
            ops::attention(&w.q, &w.kv, kv_layer, rows, scale, &mut w.attended)
        });
        attended?;
        linear(&layer.attn_output, &w.attended, &mut w.delta)?;
        ops::add(&mut w.x, &w.delta)?;

        ops::rms_norm(&w.x, &layer.ffn_norm, eps, &mut w.normed)?;
        linear(&layer.gate, &w.normed, &mut w.gate)?;
        linear(&layer.up, &w.normed, &mut w.up)?;
        ops::activate(&w.gate, &w.up, &mut w.activated, self.config.activation)?;
        linear(&layer.down, &w.activated, &mut w.delta)?;
        ops::add(&mut w.x, &w.delta)
    }

    /// `logits = projection(norm(x))`, for the rows that need logits.
    fn output(
        &self,
        layer: &Output<Tensor>,
        rows: &Rows,
        workspace: &mut Workspace,
    ) -> Result<(), OpError> {
        let w = workspace;
        w.set_logit_rows(rows.logit_rows.len())?;
        ops::gather_rows(&w.x, &rows.logit_rows, &mut w.gathered)?;
        ops::rms_norm(
            &w.gathered,
            &layer.norm,
            self.config.rms_eps,
            &mut w.gathered_normed,
        )?;
        linear(&layer.projection, &w.gathered_normed, &mut w.logits)
    }
}

fn linear(linear: &Linear<Tensor>, x: &Tensor, out: &mut Tensor) -> Result<(), OpError> {
    ops::matmul(&linear.weight, x, out)?;
    match &linear.bias {
        Some(bias) => ops::add_bias(out, bias),
        None => Ok(()),
    }
}
