/// One stop of the forward pass. `T` is a [`LazyTensor`](super::LazyTensor) in a plan and a tensor on a device in a step.
#[derive(Clone, Debug, PartialEq)]
pub enum Layer<T> {
    /// Token ids to hidden states.
    Embedding(Embedding<T>),
    /// Attention and feed-forward network.
    Block(Box<Block<T>>),
    /// Hidden states to logits.
    Output(Output<T>),
}

/// Token ids to hidden states.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding<T> {
    /// `[n_vocab, n_embd]`.
    pub table: T,
    /// `[head_dim / 2]`, what the rope frequencies are divided by. It stands here because it is needed from the first block on.
    pub rope_factors: Option<T>,
}

/// One transformer block.
#[derive(Clone, Debug, PartialEq)]
pub struct Block<T> {
    /// `[n_embd]`.
    pub attn_norm: T,
    /// Out: `n_heads * head_dim_k`.
    pub q: Linear<T>,
    /// Out: `n_kv_heads * head_dim_k`.
    pub k: Linear<T>,
    /// Out: `n_kv_heads * head_dim_v`.
    pub v: Linear<T>,
    /// In: `n_heads * head_dim_v`, out: `n_embd`.
    pub attn_output: Linear<T>,
    /// `[n_embd]`.
    pub ffn_norm: T,
    /// Out: `n_ff`.
    pub gate: Linear<T>,
    /// Out: `n_ff`.
    pub up: Linear<T>,
    /// In: `n_ff`, out: `n_embd`.
    pub down: Linear<T>,
}

/// Hidden states to logits.
#[derive(Clone, Debug, PartialEq)]
pub struct Output<T> {
    /// `[n_embd]`.
    pub norm: T,
    /// Out: `n_vocab`. The embedding's table where the file has none of its own.
    pub projection: Linear<T>,
}

/// A matrix and perhaps a bias.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear<T> {
    /// `[n_out, n_in]`.
    pub weight: T,
    /// `[n_out]`.
    pub bias: Option<T>,
}

impl<T> Layer<T> {
    /// Makes the same layer of something else, tensor by tensor.
    /// # Errors
    /// The first that `f` gives.
    pub fn try_map<U, E>(&self, mut f: impl FnMut(&T) -> Result<U, E>) -> Result<Layer<U>, E> {
        let f = &mut f;
        Ok(match self {
            Layer::Embedding(layer) => Layer::Embedding(Embedding {
                table: f(&layer.table)?,
                rope_factors: layer.rope_factors.as_ref().map(f).transpose()?,
            }),
            Layer::Block(layer) => Layer::Block(Box::new(Block {
                attn_norm: f(&layer.attn_norm)?,
                q: layer.q.try_map(f)?,
                k: layer.k.try_map(f)?,
                v: layer.v.try_map(f)?,
                attn_output: layer.attn_output.try_map(f)?,
                ffn_norm: f(&layer.ffn_norm)?,
                gate: layer.gate.try_map(f)?,
                up: layer.up.try_map(f)?,
                down: layer.down.try_map(f)?,
            })),
            Layer::Output(layer) => Layer::Output(Output {
                norm: f(&layer.norm)?,
                projection: layer.projection.try_map(f)?,
            }),
        })
    }

    /// Sees every tensor once.
    pub fn for_each(&self, mut f: impl FnMut(&T)) {
        let seen: Result<Layer<()>, std::convert::Infallible> = self.try_map(|tensor| {
            f(tensor);
            Ok(())
        });
        match seen {
            Ok(_) => {}
        }
    }
}

impl<T> Linear<T> {
    fn try_map<U, E>(&self, f: &mut impl FnMut(&T) -> Result<U, E>) -> Result<Linear<U>, E> {
        Ok(Linear {
            weight: f(&self.weight)?,
            bias: self.bias.as_ref().map(f).transpose()?,
        })
    }
}
