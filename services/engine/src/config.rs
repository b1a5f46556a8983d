//! The architecture of a model as data, read once from the metadata.
//!
//! The forward pass never looks at metadata or at the name of an architecture: whatever distinguishes two models of the family is a field here. What the forward pass would compute wrongly is refused by name.

mod hyper;

use gguf::{Directory, MetadataError};
use kernels::{Activation, RopeKind, RopeParams, RopeScaling};

use hyper::Hyper;

/// Architectures of the family: the name in `general.architecture` and which elements of a head rope pairs.
const ARCHITECTURES: &[(&str, RopeKind)] = &[
    ("llama", RopeKind::Interleaved),
    ("qwen2", RopeKind::Halves),
];

/// Everything that the forward pass needs to know about a model besides its tensors.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// `general.architecture`, for messages.
    pub architecture: String,
    /// Transformer blocks.
    pub n_layers: usize,
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
    /// Width of the gated feed-forward network.
    pub n_ff: usize,
    /// Its activation.
    pub activation: Activation,
    /// Size of the vocabulary.
    pub n_vocab: u32,
    /// Tokens that a sequence may have.
    pub context_length: u32,
    /// Added to the mean square in every norm.
    pub rms_eps: f32,
    /// Rotary positions, without the frequency factors: those are a tensor.
    pub rope: RopeParams,
    /// Factor on the products of queries and keys.
    pub attention_scale: f32,
}

/// Why the metadata does not describe a model that can run here.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// A key is missing, or its value has the wrong type or does not fit.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// Another family of models.
    #[error("architecture '{found}' is not supported")]
    Architecture {
        /// `general.architecture`.
        found: String,
    },
    /// The model has a feature that the forward pass does not have.
    #[error("{key} = {value} is not supported")]
    Unsupported {
        /// The metadata key that announces it.
        key: String,
        /// Its value.
        value: String,
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
        let Some(&(_, rope_kind)) = ARCHITECTURES.iter().find(|(name, _)| *name == architecture)
        else {
            return Err(ConfigError::Architecture {
                found: architecture.to_owned(),
            });
        };
        let hyper = Hyper::new(metadata, architecture);
        let n_layers = n_layers(&hyper, directory)?;
        let context_length = hyper.count("context_length")?;
        refuse_unserved(&hyper, context_length)?;

        let n_embd = hyper.count("embedding_length")?;
        let n_heads = hyper.count_of_layers("attention.head_count", n_layers)?;
        let n_heads = n_heads.ok_or_else(|| hyper.missing("attention.head_count"))?;
        let n_kv_heads = hyper
            .count_of_layers("attention.head_count_kv", n_layers)?
            .unwrap_or(n_heads);
        if !n_heads.is_multiple_of(n_kv_heads) {
            return Err(hyper.invalid(
                "attention.head_count_kv",
                n_kv_heads,
                format!("must divide the head count {n_heads}"),
            ));
        }
        let head_dim = |key| head_dim(&hyper, key, n_embd, n_heads);
        let head_dim_k = head_dim("attention.key_length")?;
        let head_dim_v = head_dim("attention.value_length")?;
        let n_ff = hyper.count_of_layers("feed_forward_length", n_layers)?;

        Ok(ModelConfig {
            architecture: architecture.to_owned(),
            n_layers: n_layers as usize,
            n_embd: n_embd as usize,
            n_heads: n_heads as usize,
            n_kv_heads: n_kv_heads as usize,
            head_dim_k: head_dim_k as usize,
            head_dim_v: head_dim_v as usize,
            n_ff: n_ff.ok_or_else(|| hyper.missing("feed_forward_length"))? as usize,
            activation: Activation::Silu,
            n_vocab: n_vocab(&hyper, directory)?,
            context_length,
            rms_eps: rms_eps(&hyper)?,
            rope: rope(&hyper, rope_kind, head_dim_k)?,
            attention_scale: 1.0 / (head_dim_k as f32).sqrt(),
        })
    }
}

/// The number of blocks, which cannot be more than there are tensors: so nothing that counts layers can be led astray by a number in the file.
fn n_layers(hyper: &Hyper<'_>, directory: &Directory) -> Result<u32, ConfigError> {
    let n_layers = hyper.count("block_count")?;
    let n_tensors = directory.tensors().len();
    if n_layers as usize > n_tensors {
        let reason = format!("the directory has only {n_tensors} tensors");
        return Err(hyper.invalid("block_count", n_layers, reason));
    }
    Ok(n_layers)
}

/// An explicit head length, or an even share of the width.
fn head_dim(hyper: &Hyper<'_>, key: &str, n_embd: u32, n_heads: u32) -> Result<u32, ConfigError> {
    if let Some(head_dim) = hyper.optional_count(key)? {
        return Ok(head_dim);
    }
    if !n_embd.is_multiple_of(n_heads) {
        let reason = format!("must divide embedding_length {n_embd} where no {key} is given");
        return Err(hyper.invalid("attention.head_count", n_heads, reason));
    }
    Ok(n_embd / n_heads)
}

/// The tokenizer says how many tokens there are; a file without one, its own key or the embedding's rows.
fn n_vocab(hyper: &Hyper<'_>, directory: &Directory) -> Result<u32, ConfigError> {
    if let Some(tokens) = directory.metadata().get_array("tokenizer.ggml.tokens")? {
        let count = u32::try_from(tokens.len()).ok().filter(|&count| count > 0);
        return count.ok_or_else(|| ConfigError::Invalid {
            key: "tokenizer.ggml.tokens".to_owned(),
            value: format!("an array of {}", tokens.len()),
            reason: "a vocabulary has 1 to 2^32 - 1 tokens".to_owned(),
        });
    }
    if let Some(n_vocab) = hyper.optional_count("vocab_size")? {
        return Ok(n_vocab);
    }
    let rows = directory
        .tensor("token_embd.weight")
        .map(|table| table.shape.n_rows());
    let rows = rows.and_then(|rows| u32::try_from(rows).ok());
    rows.ok_or_else(|| hyper.missing("vocab_size"))
}

fn rms_eps(hyper: &Hyper<'_>) -> Result<f32, ConfigError> {
    let key = "attention.layer_norm_rms_epsilon";
    let eps = hyper.number(key)?.ok_or_else(|| hyper.missing(key))?;
    if eps > 0.0 && eps.is_finite() {
        Ok(eps)
    } else {
        Err(hyper.invalid(key, eps, "must be a number above 0".to_owned()))
    }
}

fn rope(hyper: &Hyper<'_>, kind: RopeKind, head_dim: u32) -> Result<RopeParams, ConfigError> {
    let dims = hyper
        .optional_count("rope.dimension_count")?
        .unwrap_or(head_dim);
    if dims != head_dim || !dims.is_multiple_of(2) {
        let reason = format!(
            "rotary positions need an even number of elements and the whole head of {head_dim}"
        );
        return Err(hyper.invalid("rope.dimension_count", dims, reason));
    }
    let base = hyper.number("rope.freq_base")?.unwrap_or(10_000.0);
    if !(base > 0.0 && base.is_finite()) {
        return Err(hyper.invalid(
            "rope.freq_base",
            base,
            "must be a number above 0".to_owned(),
        ));
    }
    Ok(RopeParams {
        dims: dims as usize,
        base,
        kind,
        scaling: rope_scaling(hyper)?,
        attn_factor: 1.0,
    })
}

/// `rope.scaling.type` and `.factor`, or the older `rope.scale_linear` alone.
fn rope_scaling(hyper: &Hyper<'_>) -> Result<RopeScaling, ConfigError> {
    let (factor_key, factor) = match hyper.text("rope.scaling.type")? {
        Some("none") => return Ok(RopeScaling::None),
        Some("linear") => ("rope.scaling.factor", hyper.number("rope.scaling.factor")?),
        Some(other) => return Err(hyper.unsupported("rope.scaling.type", other)),
        None => ("rope.scale_linear", hyper.number("rope.scale_linear")?),
    };
    match factor {
        // Converters write 0 for "no scaling".
        None | Some(0.0 | 1.0) => Ok(RopeScaling::None),
        Some(factor) if factor > 0.0 && factor.is_finite() => Ok(RopeScaling::Linear { factor }),
        Some(factor) => {
            Err(hyper.invalid(factor_key, factor, "must be a number above 0".to_owned()))
        }
    }
}

/// Keys that announce a feature which the forward pass does not have, with the values at which they announce nothing.
const UNSERVED: &[(&str, &[f64])] = &[
    ("expert_count", &[0.0]),
    ("attention.clamp_kqv", &[0.0]),
    ("attention.max_alibi_bias", &[0.0]),
    ("attention.causal", &[1.0]),
    ("attention.scale", &[0.0]),
    ("attn_logit_softcapping", &[0.0]),
    ("final_logit_softcapping", &[0.0]),
    ("use_parallel_residual", &[0.0]),
    ("logit_scale", &[0.0, 1.0]),
    ("residual_scale", &[0.0, 1.0]),
    ("embedding_scale", &[0.0, 1.0]),
    ("rope.scaling.attn_factor", &[0.0, 1.0]),
];

fn refuse_unserved(hyper: &Hyper<'_>, context_length: u32) -> Result<(), ConfigError> {
    for &(key, neutral) in UNSERVED {
        if let Some(value) = hyper.any_number(key)?
            && !neutral.contains(&value)
        {
            return Err(hyper.unsupported(key, value));
        }
    }
    // A window at least as long as the context hides nothing.
    let window = hyper.any_number("attention.sliding_window")?.unwrap_or(0.0);
    if window != 0.0 && window < f64::from(context_length) {
        return Err(hyper.unsupported("attention.sliding_window", window));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
