//! The layers of a plan. `T` is a [`LazyTensor`](super::LazyTensor) in a plan and a tensor on a device in a step.

/// One stop of the forward pass.
#[derive(Clone, Debug, PartialEq)]
pub enum Layer<T> {
    /// Token ids to hidden states.
    Embedding(Embedding<T>),
    /// Attention, and the feed-forward network or the router that chooses experts.
    Block(Box<Block<T>>),
    /// The experts that the router of the block before chose. A stop of its own, as which of them are needed is known only when the block is done.
    Experts(Experts<T>),
    /// Hidden states to logits.
    Output(Output<T>),
}

/// Token ids to hidden states.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding<T> {
    /// `[n_vocab, n_embd]`.
    pub table: T,
    /// `[n_positions, n_embd]`, added to it.
    pub positions: Option<T>,
    /// `[rope dims / 2]`, what the rope frequencies are divided by. It stands here because it is needed from the first block on.
    pub rope_factors: Option<T>,
}

/// One transformer block.
#[derive(Clone, Debug, PartialEq)]
pub struct Block<T> {
    /// Which one: its place in the configuration and in the KV store.
    pub index: usize,
    /// Its first half.
    pub attention: Attention<T>,
    /// Of what the second half reads.
    pub ffn_norm: Option<Norm<T>>,
    /// Its second half, or what decides about it.
    pub feed_forward: FeedForward<T>,
}

/// The first half of a block.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention<T> {
    /// Of what attention reads.
    pub norm: Option<Norm<T>>,
    /// Out: `n_heads * head_dim_k`.
    pub q: Linear<T>,
    /// Out: `n_kv_heads * head_dim_k`.
    pub k: Linear<T>,
    /// Out: `n_kv_heads * head_dim_v`.
    pub v: Linear<T>,
    /// `[head_dim_k]`, or as long as all queries.
    pub q_norm: Option<T>,
    /// `[head_dim_k]`, or as long as all keys.
    pub k_norm: Option<T>,
    /// `[n_heads]`.
    pub sinks: Option<T>,
    /// In: `n_heads * head_dim_v`, out: `n_embd`.
    pub output: Linear<T>,
    /// Of what attention gives.
    pub post_norm: Option<Norm<T>>,
}

/// The second half of a block.
#[derive(Clone, Debug, PartialEq)]
pub enum FeedForward<T> {
    /// One network for all rows.
    Dense {
        /// The network.
        network: Network<T>,
        /// Of what it gives.
        post_norm: Option<Norm<T>>,
    },
    /// Chooses experts for each row.
    Routed(Router<T>),
}

/// `down(activation(gate(x)) · up(x))`, or `down(activation(up(x)))` without a gate.
#[derive(Clone, Debug, PartialEq)]
pub struct Network<T> {
    /// Out: the inner width.
    pub gate: Option<Linear<T>>,
    /// Out: the inner width.
    pub up: Linear<T>,
    /// In: the inner width, out: `n_embd`.
    pub down: Linear<T>,
}

/// What chooses experts, and what runs beside them.
#[derive(Clone, Debug, PartialEq)]
pub struct Router<T> {
    /// Out: `n_experts`.
    pub linear: Linear<T>,
    /// `[n_experts]`, added to the scores for the choice alone.
    pub selection_bias: Option<T>,
    /// A network for every row.
    pub shared: Option<Shared<T>>,
}

/// A network that runs beside the experts.
#[derive(Clone, Debug, PartialEq)]
pub struct Shared<T> {
    /// The network.
    pub network: Network<T>,
    /// Out: 1. The sigmoid of its result is the factor on the network's.
    pub gate: Option<Linear<T>>,
}

/// The experts of a block.
#[derive(Clone, Debug, PartialEq)]
pub struct Experts<T> {
    /// The block that they belong to.
    pub index: usize,
    /// By number.
    pub networks: Vec<Network<T>>,
    /// Of what they and the network beside them give together.
    pub post_norm: Option<Norm<T>>,
}

/// Hidden states to logits.
#[derive(Clone, Debug, PartialEq)]
pub struct Output<T> {
    /// Of the last hidden state.
    pub norm: Norm<T>,
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

/// What a norm multiplies with and adds.
#[derive(Clone, Debug, PartialEq)]
pub struct Norm<T> {
    /// `[n_embd]`.
    pub weight: T,
    /// `[n_embd]`.
    pub bias: Option<T>,
}
