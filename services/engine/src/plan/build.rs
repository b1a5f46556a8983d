use std::collections::HashSet;

use gguf::{Directory, ExtentId, TensorInfo, TensorType};

use super::{Block, Embedding, Layer, LazyTensor, Linear, Output, Plan, PlanError};
use crate::config::ModelConfig;

/// Takes tensors out of the directory, checks them and remembers which were taken.
struct Builder<'a> {
    config: &'a ModelConfig,
    directory: &'a Directory,
    supports: &'a dyn Fn(TensorType) -> bool,
    used: HashSet<&'a str>,
}

pub(super) fn build(
    config: &ModelConfig,
    directory: &Directory,
    supports: &dyn Fn(TensorType) -> bool,
) -> Result<Plan, PlanError> {
    let mut builder = Builder {
        config,
        directory,
        supports,
        used: HashSet::new(),
    };
    let mut layers = vec![Layer::Embedding(builder.embedding()?)];
    for index in 0..config.n_layers {
        layers.push(Layer::Block(Box::new(builder.block(index)?)));
    }
    layers.push(Layer::Output(builder.output()?));
    builder.refuse_unused()?;
    let extents = layers
        .iter()
        .map(|layer| extents_of(layer, directory))
        .collect();
    Ok(Plan { layers, extents })
}

/// The extents of a layer, each once, in the order of the file.
fn extents_of(layer: &Layer<LazyTensor>, directory: &Directory) -> Vec<ExtentId> {
    let mut extents = Vec::new();
    layer.for_each(|tensor| extents.push(tensor.extent));
    extents.sort_by_key(|&id| {
        let extent = directory.extent(id);
        (extent.split_index, extent.offset_bytes)
    });
    extents.dedup();
    extents
}

impl<'a> Builder<'a> {
    fn embedding(&mut self) -> Result<Embedding<LazyTensor>, PlanError> {
        let rope_factors = match self.directory.tensor("rope_freqs.weight") {
            Some(info) => Some(self.vector(info, self.config.rope.dims / 2)?),
            None => None,
        };
        Ok(Embedding {
            table: self.table()?,
            rope_factors,
        })
    }

    fn table(&mut self) -> Result<LazyTensor, PlanError> {
        self.matrix(
            "token_embd.weight",
            self.config.n_vocab as usize,
            self.config.n_embd,
        )
    }

    fn block(&mut self, index: usize) -> Result<Block<LazyTensor>, PlanError> {
        let &ModelConfig {
            n_embd,
            n_heads,
            n_kv_heads,
            head_dim_k,
            head_dim_v,
            n_ff,
            ..
        } = self.config;
        let name = |part: &str| format!("blk.{index}.{part}");
        Ok(Block {
            attn_norm: self.norm(&name("attn_norm"))?,
            q: self.linear(&name("attn_q"), n_heads * head_dim_k, n_embd)?,
            k: self.linear(&name("attn_k"), n_kv_heads * head_dim_k, n_embd)?,
            v: self.linear(&name("attn_v"), n_kv_heads * head_dim_v, n_embd)?,
            attn_output: self.linear(&name("attn_output"), n_embd, n_heads * head_dim_v)?,
            ffn_norm: self.norm(&name("ffn_norm"))?,
            gate: self.linear(&name("ffn_gate"), n_ff, n_embd)?,
            up: self.linear(&name("ffn_up"), n_ff, n_embd)?,
            down: self.linear(&name("ffn_down"), n_embd, n_ff)?,
        })
    }

    fn output(&mut self) -> Result<Output<LazyTensor>, PlanError> {
        let tied = self.directory.tensor("output.weight").is_none();
        let projection = if tied {
            Linear {
                weight: self.table()?,
                bias: None,
            }
        } else {
            self.linear("output", self.config.n_vocab as usize, self.config.n_embd)?
        };
        Ok(Output {
            norm: self.norm("output_norm")?,
            projection,
        })
    }

    fn norm(&mut self, name: &str) -> Result<LazyTensor, PlanError> {
        let info = self.directory.require(&format!("{name}.weight"))?;
        self.vector(info, self.config.n_embd)
    }

    fn linear(
        &mut self,
        name: &str,
        n_out: usize,
        n_in: usize,
    ) -> Result<Linear<LazyTensor>, PlanError> {
        let bias = match self.directory.tensor(&format!("{name}.bias")) {
            Some(info) => Some(self.vector(info, n_out)?),
            None => None,
        };
        Ok(Linear {
            weight: self.matrix(&format!("{name}.weight"), n_out, n_in)?,
            bias,
        })
    }

    fn matrix(&mut self, name: &str, n_out: usize, n_in: usize) -> Result<LazyTensor, PlanError> {
        let info = self.directory.require(name)?;
        self.take(info, &[n_out, n_in], (self.supports)(info.tensor_type))
    }

    /// Norms, biases and rope factors are few bytes, and files keep them in f32.
    fn vector(&mut self, info: &'a TensorInfo, len: usize) -> Result<LazyTensor, PlanError> {
        self.take(info, &[len], info.tensor_type == TensorType::F32)
    }

    fn take(
        &mut self,
        info: &'a TensorInfo,
        shape: &[usize],
        supported: bool,
    ) -> Result<LazyTensor, PlanError> {
        let expected: Vec<u64> = shape.iter().rev().map(|&dim| dim as u64).collect();
        if !same_dims(info.shape.dims(), &expected) {
            return Err(PlanError::Shape {
                name: info.name.clone(),
                found: info.shape.dims().to_vec(),
                expected,
            });
        }
        if !supported {
            return Err(PlanError::TensorType {
                name: info.name.clone(),
                tensor_type: info.tensor_type,
            });
        }
        self.used.insert(&info.name);
        Ok(LazyTensor {
            name: info.name.clone(),
            tensor_type: info.tensor_type,
            shape: shape.to_vec(),
            extent: ExtentId(info.extents.start),
        })
    }

    /// A tensor that no layer uses changes the model in a way that the forward pass does not know: better no answer than a wrong one.
    fn refuse_unused(&self) -> Result<(), PlanError> {
        let mut tensors = self.directory.tensors().iter();
        match tensors.find(|info| !self.used.contains(info.name.as_str())) {
            None => Ok(()),
            Some(info) => Err(PlanError::Unused {
                name: info.name.clone(),
                architecture: self.config.architecture.clone(),
            }),
        }
    }
}

/// Whether the dimensions are the expected ones, trailing ones aside.
fn same_dims(found: &[u64], expected: &[u64]) -> bool {
    let (head, tail) = found.split_at(found.len().min(expected.len()));
    head == expected && tail.iter().all(|&dim| dim == 1)
}
