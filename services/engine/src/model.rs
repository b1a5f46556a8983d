//! The forward pass, one for the whole family: what a step does at each layer, and the step that stands at one.

mod layers;
mod step;
mod workspace;

use std::collections::HashMap;
use std::sync::Arc;

use gguf::ExtentId;
use kernels::hip::View;
use kernels::hip::launch::repack::is_part;
use kernels::{Device, KvShape, KvType, OpError, RopeTable, Tensor};

use crate::config::ModelConfig;
use crate::kv_cache::BLOCK_LEN;
use crate::plan::{Experts, Layer, LazyTensor, Network, Plan};
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
    /// Those of the configuration. Made when the first step has the frequency factors, if there are any; empty before.
    ropes: Vec<RopeTable>,
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
            ropes: Vec::new(),
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
            n_layers: self.config.layers.len(),
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

    /// Whether a step may be run as a whole, with nothing to decide between its layers. What experts it needs would have to be asked.
    fn runs_as_a_whole(&self) -> bool {
        self.device.records() && self.config.experts.is_none()
    }

    /// Runs one layer, whose extents are resident, on the rows of the step that the workspace is set to. Of a layer of experts only those need be that the rows were routed to.
    fn run_layer(&mut self, index: usize, workspace: &mut Workspace) -> Result<(), OpError> {
        let layer = match &self.plan.layers[index] {
            Layer::Experts(experts) => return self.run_experts(experts, workspace),
            layer => layer.try_map(|lazy| self.tensor(lazy))?,
        };
        match layer {
            Layer::Embedding(layer) => self.embed(&layer, workspace),
            Layer::Block(layer) => self.block(&layer, workspace),
            Layer::Output(layer) => self.output(&layer, workspace),
            Layer::Experts(_) => unreachable!("experts were run above"),
        }
    }

    fn run_experts(
        &self,
        layer: &Experts<LazyTensor>,
        workspace: &mut Workspace,
    ) -> Result<(), OpError> {
        let tensor = &mut |lazy: &LazyTensor| self.tensor(lazy);
        let mut networks: Vec<Option<Network<Tensor>>> = Vec::new();
        networks.resize_with(layer.networks.len(), || None);
        for expert in workspace.chosen_experts() {
            let expert = expert as usize;
            networks[expert] = Some(layer.networks[expert].try_map(tensor)?);
        }
        let post_norm = layer.post_norm.as_ref().map(|norm| norm.try_map(tensor));
        self.experts(&networks, post_norm.transpose()?.as_ref(), workspace)
    }

    /// The tensor itself: a view of the source's bytes, or of their place in a GPU's memory.
    fn tensor(&self, lazy: &LazyTensor) -> Result<Tensor, OpError> {
        if let Device::Hip(hip) = &self.device {
            let view = self.places.get(&lazy.extent).expect(RESIDENT);
            if !is_part(lazy.tensor_type, &lazy.bytes, view.len()) {
                return Err(OpError::NotOnDevice {
                    op: "part of a tensor",
                    device: self.device.kind(),
                });
            }
            let view = view.slice(lazy.bytes.clone())?;
            return Tensor::from_view(hip, lazy.tensor_type, &lazy.shape, view);
        }
        let bytes = Arc::clone(&self.source).view(lazy.extent);
        let range = lazy.bytes.clone();
        Tensor::from_owner(&self.device, lazy.tensor_type, &lazy.shape, bytes, range)
    }
}
