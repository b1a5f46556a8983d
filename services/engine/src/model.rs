//! The forward pass, one for the whole family: what a step does at each layer, and the step that stands at one.

mod step;
mod workspace;

use std::collections::HashMap;
use std::sync::Arc;

use gguf::ExtentId;
use kernels::hip::View;
use kernels::{AttentionParams, Device, KvShape, KvType, OpError, RopeTable, Tensor, ops};

use crate::config::ModelConfig;
use crate::kv_cache::BLOCK_LEN;
use crate::plan::{Block, Embedding, Layer, LazyTensor, Linear, Output, Plan};
use crate::source::WeightSource;

pub use step::{Progress, Rows, Step};
pub use workspace::{Outcome, Workspace};

/// Why a layer that runs on a GPU has all of its extents there.
const RESIDENT: &str =
    "a layer runs when its extents are resident, and a resident extent has its place";

/// A model that steps can run on.
#[derive(Debug)]
pub struct Model {
    config: ModelConfig,
    plan: Plan,
    source: Arc<dyn WeightSource>,
    device: Device,
    kv_type: KvType,
    /// Where resident extents lie that are not used where the source has them, by [`ExtentId`].
    places: HashMap<ExtentId, View>,
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
        kv_type: KvType,
    ) -> Model {
        Model {
            config,
            plan,
            source,
            device,
            kv_type,
            places: HashMap::new(),
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
            kv_type: self.kv_type,
        }
    }

    /// The device that runs it.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// An extent lies in a GPU's memory now.
    pub(crate) fn place(&mut self, extent: ExtentId, view: View) {
        self.places.insert(extent, view);
    }

    /// Lets go of an extent where the device has it. What a GPU has is a copy: the source's own bytes stay, for when it is wanted again.
    pub(crate) fn evict(&mut self, extent: ExtentId) {
        if self.places.remove(&extent).is_none() {
            self.source.evict(extent);
        }
    }

    /// Whether a step may be run as a whole, with nothing to decide between its layers.
    fn runs_as_a_whole(&self) -> bool {
        self.device.records()
    }

    /// Runs one layer, whose extents are resident, on the rows of the step that the workspace is set to.
    fn run_layer(&mut self, index: usize, workspace: &mut Workspace) -> Result<(), OpError> {
        let layer = self.plan.layers[index].try_map(|lazy| self.tensor(lazy))?;
        match layer {
            Layer::Embedding(layer) => self.embed(&layer, workspace),
            // The embedding comes before the blocks.
            Layer::Block(layer) => self.block(index - 1, &layer, workspace),
            Layer::Output(layer) => self.output(&layer, workspace),
        }
    }

    /// The tensor itself: a view of the source's bytes, or of their place in a GPU's memory.
    fn tensor(&self, lazy: &LazyTensor) -> Result<Tensor, OpError> {
        if let Device::Hip(hip) = &self.device {
            let view = self.places.get(&lazy.extent).expect(RESIDENT);
            return Tensor::from_view(hip, lazy.tensor_type, &lazy.shape, view.clone());
        }
        let bytes = Arc::clone(&self.source).view(lazy.extent);
        let len = (*bytes).as_ref().len();
        Tensor::from_owner(&self.device, lazy.tensor_type, &lazy.shape, bytes, 0..len)
    }

    /// `x[row] = table[id of row]`
    fn embed(
        &mut self,
        layer: &Embedding<Tensor>,
        workspace: &mut Workspace,
    ) -> Result<(), OpError> {
        if self.rope.is_none() {
            let factors = layer
                .rope_factors
                .as_ref()
                .map(Tensor::to_f32)
                .transpose()?;
            self.rope = Some(RopeTable::new(self.config.rope, factors.as_deref())?);
        }
        ops::embed(&workspace.index, &layer.table, &mut workspace.x)
    }

    /// `x += attention(norm(x)); x += feed_forward(norm(x))`
    fn block(
        &self,
        kv_layer: usize,
        layer: &Block<Tensor>,
        workspace: &mut Workspace,
    ) -> Result<(), OpError> {
        let w = workspace;
        let eps = self.config.rms_eps;
        ops::rms_norm(&w.x, &layer.attn_norm, eps, &mut w.normed)?;
        let (q, k, v) = (layer.q.operand(), layer.k.operand(), layer.v.operand());
        ops::matmul_each(&w.normed, [(q, &mut w.q), (k, &mut w.k), (v, &mut w.v)])?;
        let rope = self
            .rope
            .as_ref()
            .expect("the embedding came before the blocks");
        let qkv = [&mut w.q, &mut w.k, &mut w.v];
        ops::rope_and_write(&w.index, rope, qkv, &mut w.kv, kv_layer)?;
        let params = AttentionParams::scaled(self.config.attention_scale);
        ops::attention(&w.index, &w.q, &w.kv, kv_layer, params, &mut w.attended)?;
        ops::matmul_add(layer.attn_output.operand(), &w.attended, &mut w.x)?;

        ops::rms_norm(&w.x, &layer.ffn_norm, eps, &mut w.normed)?;
        let (gate, up) = (layer.gate.operand(), layer.up.operand());
        ops::gated(
            gate,
            up,
            self.config.activation,
            &w.normed,
            &mut w.activated,
        )?;
        ops::matmul_add(layer.down.operand(), &w.activated, &mut w.x)
    }

    /// `logits = projection(norm(x))`, for the rows that need logits.
    fn output(&self, layer: &Output<Tensor>, workspace: &mut Workspace) -> Result<(), OpError> {
        let w = workspace;
        ops::gather_rows(&w.index, &w.x, &mut w.gathered)?;
        let eps = self.config.rms_eps;
        ops::rms_norm(&w.gathered, &layer.norm, eps, &mut w.gathered_normed)?;
        ops::matmul(
            layer.projection.operand(),
            &w.gathered_normed,
            &mut w.logits,
        )
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
