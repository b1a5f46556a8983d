//! The forward pass, one for the whole family: what a step does at each layer, and the step that stands at one.

mod layers;
mod step;
mod workspace;

use std::collections::HashMap;
use std::sync::Arc;

use gguf::ExtentId;
use kernels::hip::View;
use kernels::{Device, KvShape, KvType, OpError, RopeTable, Tensor};

use crate::config::ModelConfig;
use crate::kv_cache::BLOCK_LEN;
use crate::plan::{Experts, Layer, LazyTensor, Network, Plan};
use crate::source::WeightSource;
use crate::upload::Layouts;

pub use step::{Progress, Rows, Step};
pub use workspace::{Outcome, Workspace};

/// Why a layer that runs on a GPU has all of its extents there.
const RESIDENT: &str =
    "a layer runs when its extents are resident, and a resident extent has its place";

/// The experts that a layer of them runs with.
#[derive(Clone, Copy, Debug)]
enum With<'a> {
    /// All, of which nobody need know to which ones the rows go.
    All,
    /// Those that some row goes to, ascending.
    Chosen(&'a [u32]),
}

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
    /// How they lie there.
    layouts: Arc<Layouts>,
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
        let layouts = match device {
            Device::Hip(_) => Layouts::new(&plan, source.directory()),
            Device::Reference | Device::Cpu(_) => Layouts::default(),
        };
        Model {
            layouts: Arc::new(layouts),
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

    /// How extents lie in a GPU's memory.
    pub(crate) fn layouts(&self) -> &Arc<Layouts> {
        &self.layouts
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

    /// Runs one layer, whose extents are resident, on the rows of the step that the workspace is set to. Of a layer of experts only those need be that `with` names.
    fn run_layer(
        &mut self,
        index: usize,
        with: With<'_>,
        workspace: &mut Workspace,
    ) -> Result<(), OpError> {
        let layer = match &self.plan.layers[index] {
            Layer::Experts(experts) => return self.run_experts(experts, with, workspace),
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
        with: With<'_>,
        workspace: &mut Workspace,
    ) -> Result<(), OpError> {
        let tensor = &mut |lazy: &LazyTensor| self.tensor(lazy);
        let mut networks: Vec<Option<Network<Tensor>>> = Vec::new();
        networks.resize_with(layer.networks.len(), || None);
        for (expert, network) in (0..).zip(&mut networks) {
            let lazy = &layer.networks[expert as usize];
            let used = match with {
                With::All => true,
                With::Chosen(chosen) => chosen.binary_search(&expert).is_ok(),
            };
            *network = used.then(|| lazy.try_map(tensor)).transpose()?;
        }
        let post_norm = layer.post_norm.as_ref().map(|norm| norm.try_map(tensor));
        let post_norm = post_norm.transpose()?;
        self.experts(layer.index, &networks, post_norm.as_ref(), workspace)
    }

    /// The tensor itself: a view of the source's bytes, or of their place in a GPU's memory.
    fn tensor(&self, lazy: &LazyTensor) -> Result<Tensor, OpError> {
        if let Device::Hip(hip) = &self.device {
            let view = self.places.get(&lazy.extent).expect(RESIDENT);
            let view = view.slice(self.layouts.place(lazy.extent, &lazy.bytes))?;
            return Tensor::from_view(hip, lazy.tensor_type, &lazy.shape, view);
        }
        let bytes = Arc::clone(&self.source).view(lazy.extent);
        let range = lazy.bytes.clone();
        Tensor::from_owner(&self.device, lazy.tensor_type, &lazy.shape, bytes, range)
    }
}
