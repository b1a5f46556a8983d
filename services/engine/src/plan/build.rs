use gguf::{Directory, ExtentId, TensorType};

use super::take::Shelf;
use super::{
    Attention, Block, Embedding, Experts, FeedForward, Layer, LazyTensor, Linear, Network, Norm,
    Output, Plan, PlanError, Router, Shared,
};
use crate::config::{ExpertConfig, ModelConfig, NormKind, QkNorm, RopeFactors, SharedConfig};

/// Makes layers out of tensors.
struct Builder<'a> {
    config: &'a ModelConfig,
    shelf: Shelf<'a>,
}

pub(super) fn build(
    config: &ModelConfig,
    directory: &Directory,
    supports: &dyn Fn(TensorType) -> bool,
) -> Result<Plan, PlanError> {
    let mut builder = Builder {
        config,
        shelf: Shelf::new(directory, supports),
    };
    let mut layers = vec![Layer::Embedding(builder.embedding()?)];
    for (index, layer) in config.layers.iter().enumerate() {
        layers.push(Layer::Block(Box::new(builder.block(index)?)));
        if let Some(experts) = config.experts.as_ref().filter(|_| layer.routed) {
            layers.push(Layer::Experts(builder.experts(index, experts)?));
        }
    }
    layers.push(Layer::Output(builder.output()?));
    builder.shelf.refuse_the_rest(&config.architecture)?;
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

fn name(index: usize, part: &str) -> String {
    format!("blk.{index}.{part}")
}

impl Builder<'_> {
    fn embedding(&mut self) -> Result<Embedding<LazyTensor>, PlanError> {
        let n_embd = self.config.n_embd;
        let positions = match self.config.n_positions {
            Some(n) => Some(self.shelf.matrix("position_embd.weight", n, n_embd)?),
            None => None,
        };
        Ok(Embedding {
            table: self.table()?,
            positions,
            rope_factors: self.rope_factors()?,
        })
    }

    fn table(&mut self) -> Result<LazyTensor, PlanError> {
        let n_vocab = self.config.n_vocab as usize;
        self.shelf
            .matrix("token_embd.weight", n_vocab, self.config.n_embd)
    }

    fn rope_factors(&mut self) -> Result<Option<LazyTensor>, PlanError> {
        let n_pairs = self.config.ropes[0].dims / 2;
        let (long, short) = ("rope_factors_long.weight", "rope_factors_short.weight");
        let (used, other) = match self.config.rope_factors {
            RopeFactors::IfThere => {
                let name = "rope_freqs.weight";
                return if self.shelf.has(name) {
                    self.shelf.vector(name, n_pairs).map(Some)
                } else {
                    Ok(None)
                };
            }
            RopeFactors::Long => (long, short),
            RopeFactors::Short => (short, long),
        };
        if self.shelf.has(other) {
            self.shelf.pass_over(other, &[n_pairs])?;
        }
        self.shelf.vector(used, n_pairs).map(Some)
    }

    fn block(&mut self, index: usize) -> Result<Block<LazyTensor>, PlanError> {
        let norms = self.config.norms;
        Ok(Block {
            index,
            attention: self.attention(index)?,
            ffn_norm: self.norm(index, norms.before_feed_forward)?,
            feed_forward: match &self.config.experts {
                Some(experts) if self.config.layers[index].routed => {
                    FeedForward::Routed(self.router(index, experts)?)
                }
                _ => FeedForward::Dense {
                    network: self.network(index, "", self.config.feed_forward.n_ff)?,
                    post_norm: self.norm(index, norms.after_feed_forward)?,
                },
            },
        })
    }

    fn attention(&mut self, index: usize) -> Result<Attention<LazyTensor>, PlanError> {
        let &ModelConfig {
            n_embd,
            n_heads,
            n_kv_heads,
            head_dim_k,
            head_dim_v,
            norms,
            ..
        } = self.config;
        let n_outs = [
            n_heads * head_dim_k,
            n_kv_heads * head_dim_k,
            n_kv_heads * head_dim_v,
        ];
        let [q, k, v] = self.qkv(index, n_outs)?;
        let [q_len, k_len] = match self.config.attention.qk_norm {
            QkNorm::Row => [n_outs[0], n_outs[1]],
            QkNorm::None | QkNorm::Heads | QkNorm::HeadsIfThere => [head_dim_k; 2],
        };
        Ok(Attention {
            norm: self.norm(index, norms.before_attention)?,
            q,
            k,
            v,
            q_norm: self.qk_norm(&name(index, "attn_q_norm.weight"), q_len)?,
            k_norm: self.qk_norm(&name(index, "attn_k_norm.weight"), k_len)?,
            sinks: if self.config.attention.sinks {
                let sinks = name(index, "attn_sinks.weight");
                Some(self.shelf.vector(&sinks, n_heads)?)
            } else {
                None
            },
            output: self
                .shelf
                .linear(&name(index, "attn_output"), n_embd, n_heads * head_dim_v)?,
            post_norm: self.norm(index, norms.after_attention)?,
        })
    }

    /// Three tensors, or one with the rows of all.
    fn qkv(
        &mut self,
        index: usize,
        n_outs: [usize; 3],
    ) -> Result<[Linear<LazyTensor>; 3], PlanError> {
        let n_embd = self.config.n_embd;
        if self.shelf.has(&name(index, "attn_qkv.weight")) {
            return self.shelf.linears(&name(index, "attn_qkv"), n_outs, n_embd);
        }
        let [q, k, v] = n_outs;
        Ok([
            self.shelf.linear(&name(index, "attn_q"), q, n_embd)?,
            self.shelf.linear(&name(index, "attn_k"), k, n_embd)?,
            self.shelf.linear(&name(index, "attn_v"), v, n_embd)?,
        ])
    }

    fn qk_norm(&mut self, name: &str, len: usize) -> Result<Option<LazyTensor>, PlanError> {
        match self.config.attention.qk_norm {
            QkNorm::None => Ok(None),
            QkNorm::HeadsIfThere if !self.shelf.has(name) => Ok(None),
            QkNorm::Heads | QkNorm::HeadsIfThere | QkNorm::Row => {
                self.shelf.vector(name, len).map(Some)
            }
        }
    }

    /// The network `ffn_*SUFFIX`. A gate whose rows come first in the tensor of the other half needs none of its own.
    fn network(
        &mut self,
        index: usize,
        suffix: &str,
        n_ff: usize,
    ) -> Result<Network<LazyTensor>, PlanError> {
        let n_embd = self.config.n_embd;
        let part = |part: &str| name(index, &format!("ffn_{part}{suffix}"));
        let (gate, up) = if !self.config.feed_forward.gated {
            (None, self.shelf.linear(&part("up"), n_ff, n_embd)?)
        } else if self.shelf.n_rows(&format!("{}.weight", part("up"))) == 2 * n_ff {
            let [gate, up] = self.shelf.linears(&part("up"), [n_ff, n_ff], n_embd)?;
            (Some(gate), up)
        } else {
            let gate = self.shelf.linear(&part("gate"), n_ff, n_embd)?;
            (Some(gate), self.shelf.linear(&part("up"), n_ff, n_embd)?)
        };
        Ok(Network {
            gate,
            up,
            down: self.shelf.linear(&part("down"), n_embd, n_ff)?,
        })
    }

    fn router(
        &mut self,
        index: usize,
        experts: &ExpertConfig,
    ) -> Result<Router<LazyTensor>, PlanError> {
        let n_embd = self.config.n_embd;
        let bias = name(index, "exp_probs_b.bias");
        Ok(Router {
            linear: self
                .shelf
                .linear(&name(index, "ffn_gate_inp"), experts.n_experts, n_embd)?,
            selection_bias: if self.shelf.has(&bias) {
                Some(self.shelf.vector(&bias, experts.n_experts)?)
            } else {
                None
            },
            shared: match experts.shared {
                Some(shared) => Some(self.shared(index, shared)?),
                None => None,
            },
        })
    }

    fn shared(
        &mut self,
        index: usize,
        shared: SharedConfig,
    ) -> Result<Shared<LazyTensor>, PlanError> {
        let gate = if shared.gated {
            let gate = name(index, "ffn_gate_inp_shexp");
            Some(self.shelf.linear(&gate, 1, self.config.n_embd)?)
        } else {
            None
        };
        Ok(Shared {
            network: self.network(index, "_shexp", shared.n_ff)?,
            gate,
        })
    }

    fn experts(
        &mut self,
        index: usize,
        experts: &ExpertConfig,
    ) -> Result<Experts<LazyTensor>, PlanError> {
        let (n_embd, n_ff, n) = (self.config.n_embd, experts.n_ff, experts.n_experts);
        let part = |part: &str| name(index, &format!("ffn_{part}_exps"));
        let inner: Vec<[Linear<LazyTensor>; 2]> =
            if self.shelf.has(&format!("{}.weight", part("gate_up"))) {
                self.shelf
                    .expert_linears(&part("gate_up"), n, [n_ff, n_ff], n_embd)?
            } else {
                let gates = self
                    .shelf
                    .expert_linears(&part("gate"), n, [n_ff], n_embd)?;
                let ups = self.shelf.expert_linears(&part("up"), n, [n_ff], n_embd)?;
                let pairs = gates.into_iter().zip(ups);
                pairs.map(|([gate], [up])| [gate, up]).collect()
            };
        let downs = self
            .shelf
            .expert_linears(&part("down"), n, [n_embd], n_ff)?;
        let networks = inner.into_iter().zip(downs);
        Ok(Experts {
            index,
            networks: networks
                .map(|([gate, up], [down])| Network {
                    gate: Some(gate),
                    up,
                    down,
                })
                .collect(),
            post_norm: self.norm(index, self.config.norms.after_feed_forward)?,
        })
    }

    fn norm(
        &mut self,
        index: usize,
        part: Option<&str>,
    ) -> Result<Option<Norm<LazyTensor>>, PlanError> {
        part.map(|part| self.norm_named(&name(index, part)))
            .transpose()
    }

    fn norm_named(&mut self, name: &str) -> Result<Norm<LazyTensor>, PlanError> {
        let biased = self.config.norm.kind == NormKind::Layer;
        self.shelf.norm(name, self.config.n_embd, biased)
    }

    fn output(&mut self) -> Result<Output<LazyTensor>, PlanError> {
        let projection = if self.shelf.has("output.weight") {
            let n_vocab = self.config.n_vocab as usize;
            self.shelf.linear("output", n_vocab, self.config.n_embd)?
        } else {
            Linear {
                weight: self.table()?,
                bias: None,
            }
        };
        Ok(Output {
            norm: self.norm_named("output_norm")?,
            projection,
        })
    }
}
