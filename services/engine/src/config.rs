//! The architecture of a model as data, read once from the metadata.
//!
//! The forward pass never looks at metadata or at the name of an architecture: whatever distinguishes two models is a field here. What the forward pass would compute wrongly is refused by name: an
//! architecture that the table of [`family`] does not have, a value that it does not serve, and any key of the architecture that nothing here reads.

mod experts;
mod family;
mod hyper;
mod layers;
mod rope;
mod sizes;

use std::num::NonZeroUsize;

use gguf::{Directory, MetadataError};
use kernels::{Activation, Device, RopeParams};

pub use experts::{ExpertConfig, SharedConfig};
pub use family::{Norms, QkNorm};
pub use rope::RopeFactors;

use family::Family;
use hyper::Hyper;

/// Everything that the forward pass needs to know about a model besides its tensors.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// `general.architecture`, for messages.
    pub architecture: String,
    /// Width of the hidden state.
    pub n_embd: usize,
    /// Heads of queries.
    pub n_heads: usize,
    /// Heads of keys and values; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Elements of a head of queries and keys.
    pub head_dim_k: usize,
    /// Elements of a head of values.
    pub head_dim_v: usize,
    /// Size of the vocabulary.
    pub n_vocab: u32,
    /// Tokens that a sequence may have.
    pub context_length: u32,
    /// What every norm does.
    pub norm: NormConfig,
    /// Where blocks normalise.
    pub norms: Norms,
    /// Both halves of a block start from the same hidden state, and what they give is added together.
    pub parallel_halves: bool,
    /// One for each transformer block.
    pub layers: Vec<LayerConfig>,
    /// Rotary positions that layers choose from, without the frequency factors: those are a tensor.
    pub ropes: Vec<RopeParams>,
    /// The tensor with the frequency factors, if there is one.
    pub rope_factors: RopeFactors,
    /// Rows of the table of positions that are added to the embedding, if there is one.
    pub n_positions: Option<usize>,
    /// How blocks attend.
    pub attention: AttentionConfig,
    /// Their feed-forward networks.
    pub feed_forward: FeedForwardConfig,
    /// The experts of the blocks that have some.
    pub experts: Option<ExpertConfig>,
    /// Factor on the embedding.
    pub embedding_scale: f32,
    /// Factor on what each half of a block adds.
    pub residual_scale: f32,
    /// Factor on the logits.
    pub logit_scale: f32,
    /// Turns each logit `s` into `cap · tanh(s / cap)`.
    pub logit_soft_cap: Option<f32>,
}

/// One transformer block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerConfig {
    /// Positions that a row sees, its own included; all before it without a window.
    pub window: Option<NonZeroUsize>,
    /// Index into [`ModelConfig::ropes`].
    pub rope: usize,
    /// Whether its feed-forward network is made of experts.
    pub routed: bool,
}

/// How hidden states are normalised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormConfig {
    /// By what.
    pub kind: NormKind,
    /// Added to the mean square, or to the variance.
    pub eps: f32,
}

/// By what a norm divides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// The root of the mean square.
    Rms,
    /// The standard deviation, after the mean has been taken off.
    Layer,
}

/// How blocks attend.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionConfig {
    /// Factor on the products of queries and keys.
    pub scale: f32,
    /// Turns each score `s` into `cap · tanh(s / cap)`.
    pub soft_cap: Option<f32>,
    /// Whether queries and keys are normalised before they are rotated.
    pub qk_norm: QkNorm,
    /// Whether each head has a score that takes its share of the softmax and gives nothing.
    pub sinks: bool,
}

/// The feed-forward network of a block without experts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FeedForwardConfig {
    /// Its inner width.
    pub n_ff: usize,
    /// Its activation.
    pub activation: Activation,
    /// Whether the activated half gates another one: `down(act(gate(x)) · up(x))`, else `down(act(up(x)))`.
    pub gated: bool,
}

/// Why the metadata does not describe a model that can run here.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// A key is missing, or its value has the wrong type or does not fit.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// Another family of models.
    #[error("architecture '{found}' is not supported; supported are {known}")]
    Architecture {
        /// `general.architecture`.
        found: String,
        /// The architectures that are, separated by commas.
        known: String,
    },
    /// The model has a feature that the forward pass does not have.
    #[error("{key} = {value} is not supported")]
    Unsupported {
        /// The metadata key that announces it.
        key: String,
        /// Its value.
        value: String,
    },
    /// The model needs more of something than the device has.
    #[error("architecture '{architecture}' needs {feature}; device {device} has at most {limit}")]
    Device {
        /// `general.architecture`.
        architecture: String,
        /// What it needs.
        feature: String,
        /// Kind of the device.
        device: &'static str,
        /// What the device has.
        limit: String,
    },
    /// A value that no model can have.
    #[error("{key} = {value}: {reason}")]
    Invalid {
        /// The metadata key.
        key: String,
        /// Its value.
        value: String,
        /// What it must be.
        reason: String,
    },
}

impl ModelConfig {
    /// Reads and validates the hyper-parameters. Takes time and memory for the keys that it reads, whatever numbers they hold.
    /// # Errors
    /// [`ConfigError`].
    pub fn from_directory(directory: &Directory) -> Result<ModelConfig, ConfigError> {
        let metadata = directory.metadata();
        let architecture = metadata.require_str("general.architecture")?;
        let family = Family::find(architecture)?;
        let hyper = Hyper::new(metadata, architecture);
        let sizes = sizes::read(&hyper, directory)?;
        let experts = experts::read(&hyper, family)?;
        let layers = layers::read(&hyper, family, &sizes, experts.as_ref())?;
        let (ropes, rope_factors) = rope::read(&hyper, family, &sizes)?;
        let dense = layers.iter().any(|layer| !layer.routed);
        let config = ModelConfig {
            architecture: architecture.to_owned(),
            n_embd: sizes.n_embd as usize,
            n_heads: sizes.n_heads as usize,
            n_kv_heads: sizes.n_kv_heads as usize,
            head_dim_k: sizes.head_dim_k as usize,
            head_dim_v: sizes.head_dim_v as usize,
            n_vocab: sizes.n_vocab,
            context_length: sizes.context_length,
            norm: norm(&hyper, family.norm)?,
            norms: family.norms,
            parallel_halves: parallel_halves(&hyper, family)?,
            ropes,
            rope_factors,
            n_positions: family
                .learned_positions
                .then_some(sizes.context_length as usize),
            attention: AttentionConfig {
                scale: family.attention_scale(&hyper, &sizes)?,
                soft_cap: cap(&hyper, "attn_logit_softcapping", family.soft_caps)?,
                qk_norm: family.qk_norm,
                sinks: family.sinks,
            },
            feed_forward: FeedForwardConfig {
                n_ff: sizes::n_ff(&hyper, sizes.n_layers, dense)? as usize,
                activation: family.activation,
                gated: family.gated,
            },
            experts,
            layers,
            embedding_scale: family.embedding_scale.read(
                &hyper,
                "embedding_scale",
                sizes.n_embd,
            )?,
            residual_scale: family
                .residual_scale
                .read(&hyper, "residual_scale", sizes.n_embd)?,
            logit_scale: family
                .logit_scale
                .read(&hyper, "logit_scale", sizes.n_embd)?,
            logit_soft_cap: cap(&hyper, "final_logit_softcapping", family.soft_caps)?,
        };
        hyper.refuse_unread()?;
        Ok(config)
    }
}

impl ModelConfig {
    /// That the device chooses among as many experts as the model has.
    /// # Errors
    /// [`ConfigError::Device`].
    pub fn check_device(&self, device: &Device) -> Result<(), ConfigError> {
        let Some(experts) = &self.experts else {
            return Ok(());
        };
        let [n_experts_max, n_used_max] = device.max_experts();
        let (n_experts, n_used) = (experts.n_experts, experts.routing.n_used);
        if n_experts <= n_experts_max && n_used <= n_used_max {
            return Ok(());
        }
        Err(ConfigError::Device {
            architecture: self.architecture.clone(),
            feature: format!("{n_used} of {n_experts} experts for each row"),
            device: device.kind(),
            limit: format!("{n_used_max} of {n_experts_max}"),
        })
    }
}

fn norm(hyper: &Hyper<'_>, kind: NormKind) -> Result<NormConfig, ConfigError> {
    let key = match kind {
        NormKind::Rms => "attention.layer_norm_rms_epsilon",
        NormKind::Layer => "attention.layer_norm_epsilon",
    };
    let eps = hyper.number(key)?.ok_or_else(|| hyper.missing(key))?;
    hyper.above_zero_number(key, eps)?;
    Ok(NormConfig { kind, eps })
}

/// A bound that scores or logits approach; 0 stands for none.
fn cap(hyper: &Hyper<'_>, key: &str, served: bool) -> Result<Option<f32>, ConfigError> {
    match hyper.number(key)? {
        None | Some(0.0) => Ok(None),
        Some(cap) if !served => Err(hyper.unsupported(key, cap)),
        Some(cap) => {
            hyper.above_zero_number(key, cap)?;
            Ok(Some(cap))
        }
    }
}

/// Families that have models of either kind say which it is in the metadata.
fn parallel_halves(hyper: &Hyper<'_>, family: &Family) -> Result<bool, ConfigError> {
    let key = "use_parallel_residual";
    match hyper.any_number(key)? {
        None => Ok(family.parallel_halves),
        Some(flag) if (flag != 0.0) == family.parallel_halves => Ok(family.parallel_halves),
        Some(flag) if family.either_halves => Ok(flag != 0.0),
        Some(flag) => Err(hyper.unsupported(key, flag)),
    }
}

#[cfg(test)]
mod tests;
