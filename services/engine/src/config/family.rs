//! The table of architectures: what a name in `general.architecture` stands for, as far as the metadata does not say it.

use kernels::{Activation, RopeKind, Scoring};

use super::experts::SharedExpert;
use super::sizes::Sizes;
use super::{ConfigError, Hyper, NormKind};

/// One architecture. Every line of the table is checked against logits of another implementation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Family {
    /// `general.architecture`.
    pub(super) name: &'static str,
    /// Which elements of a head rope pairs.
    pub(super) rope: RopeKind,
    /// Added to the embedding in place of rope.
    pub(super) learned_positions: bool,
    pub(super) norm: NormKind,
    pub(super) norms: Norms,
    /// Unless `use_parallel_residual` says otherwise.
    pub(super) parallel_halves: bool,
    /// Whether it may say otherwise.
    pub(super) either_halves: bool,
    pub(super) qk_norm: QkNorm,
    pub(super) sinks: bool,
    pub(super) activation: Activation,
    pub(super) gated: bool,
    pub(super) windows: Windows,
    /// Base of rope in layers with a window, unless `rope.freq_base_swa` says otherwise; `None` for the base of the others.
    pub(super) window_rope_base: Option<f32>,
    /// Whether layers with a window stretch positions as the others do.
    pub(super) window_rope_scaled: bool,
    /// Which layers rotate at all.
    pub(super) rotated: Rotated,
    /// Whether YaRN's range of dimensions is rounded to whole ones.
    pub(super) yarn_truncates: bool,
    pub(super) soft_caps: bool,
    pub(super) embedding_scale: Scale,
    pub(super) residual_scale: Scale,
    pub(super) logit_scale: Scale,
    /// A number of layers at which queries are scaled by `n_embd / n_heads` and not by their own length: the one size of that family which does.
    pub(super) scaled_by_width_at: Option<u32>,
    /// What its experts do, where it has some; `None` where it cannot have any.
    pub(super) routing: Option<Routing>,
}

/// Names of the norms of a block, without layer and `.weight`; `None` where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Norms {
    /// Of what attention reads.
    pub before_attention: Option<&'static str>,
    /// Of what attention gives, before it is added.
    pub after_attention: Option<&'static str>,
    /// Of what the feed-forward network reads. Without one it reads what attention read if both halves are parallel, else the hidden state.
    pub before_feed_forward: Option<&'static str>,
    /// Of what it gives, before it is added.
    pub after_feed_forward: Option<&'static str>,
}

/// Whether queries and keys are normalised, always by their root mean square.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    /// No.
    None,
    /// Each head for itself, all by the same weights: `[head_dim_k]`.
    Heads,
    /// All heads together: `[n_heads * head_dim_k]`.
    Row,
    /// As [`QkNorm::Heads`], where the file has the weights.
    HeadsIfThere,
}

/// Which layers see a window, where `attention.sliding_window` gives one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Windows {
    /// A window that would hide something is refused.
    Refused,
    /// All.
    All,
    /// All but the last of each group of so many.
    AllButEvery(u32),
}

/// Which layers have rotary positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rotated {
    All,
    /// Those with a window.
    Windowed,
    /// All but the last of each group of so many.
    AllButEvery(u32),
}

/// A factor that the family or the metadata may give.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scale {
    /// There is none; another one in the metadata is refused.
    One,
    /// `sqrt(n_embd)`.
    RootOfWidth,
    /// What the metadata says, or 1.
    Factor,
    /// One over what the metadata says.
    Divisor,
}

/// How experts are chosen and weighed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Routing {
    pub(super) scoring: Scoring,
    /// Whether the weights of the chosen are brought to a sum of 1, unless `expert_weights_norm` says otherwise.
    pub(super) normalised: bool,
    /// Whether experts that always run stand beside the routed ones.
    pub(super) shared: SharedExpert,
    /// Their activation.
    pub(super) activation: Activation,
}

const PRE_NORMS: Norms = Norms {
    before_attention: Some("attn_norm"),
    after_attention: None,
    before_feed_forward: Some("ffn_norm"),
    after_feed_forward: None,
};

const SANDWICH_NORMS: Norms = Norms {
    after_attention: Some("post_attention_norm"),
    after_feed_forward: Some("post_ffw_norm"),
    ..PRE_NORMS
};

const POST_NORMS: Norms = Norms {
    before_attention: None,
    before_feed_forward: None,
    ..SANDWICH_NORMS
};

const ONE_NORM: Norms = Norms {
    before_feed_forward: None,
    ..PRE_NORMS
};

const SOFTMAX: Routing = Routing {
    scoring: Scoring::Softmax,
    normalised: true,
    shared: SharedExpert::None,
    activation: Activation::Silu,
};

const LLAMA: Family = Family {
    name: "llama",
    rope: RopeKind::Interleaved,
    learned_positions: false,
    norm: NormKind::Rms,
    norms: PRE_NORMS,
    parallel_halves: false,
    either_halves: false,
    qk_norm: QkNorm::None,
    sinks: false,
    activation: Activation::Silu,
    gated: true,
    windows: Windows::Refused,
    window_rope_base: None,
    window_rope_scaled: true,
    rotated: Rotated::All,
    yarn_truncates: true,
    soft_caps: false,
    embedding_scale: Scale::One,
    residual_scale: Scale::One,
    logit_scale: Scale::One,
    scaled_by_width_at: None,
    routing: Some(SOFTMAX),
};

const QWEN2: Family = Family {
    name: "qwen2",
    rope: RopeKind::Halves,
    routing: None,
    ..LLAMA
};

const QWEN3: Family = Family {
    name: "qwen3",
    qk_norm: QkNorm::Heads,
    ..QWEN2
};

const GEMMA2: Family = Family {
    name: "gemma2",
    norms: SANDWICH_NORMS,
    activation: Activation::GeluTanh,
    windows: Windows::AllButEvery(2),
    soft_caps: true,
    embedding_scale: Scale::RootOfWidth,
    scaled_by_width_at: Some(46),
    ..QWEN2
};

const FAMILIES: &[Family] = &[
    LLAMA,
    QWEN2,
    QWEN3,
    Family {
        name: "qwen3moe",
        routing: Some(SOFTMAX),
        ..QWEN3
    },
    GEMMA2,
    Family {
        name: "gemma3",
        qk_norm: QkNorm::Heads,
        windows: Windows::AllButEvery(6),
        window_rope_base: Some(10_000.0),
        window_rope_scaled: false,
        scaled_by_width_at: Some(62),
        ..GEMMA2
    },
    Family {
        name: "glm4",
        norms: SANDWICH_NORMS,
        routing: None,
        ..LLAMA
    },
    Family {
        name: "phi3",
        windows: Windows::All,
        ..QWEN2
    },
    Family {
        name: "qwen2moe",
        routing: Some(Routing {
            normalised: false,
            shared: SharedExpert::Gated,
            ..SOFTMAX
        }),
        ..QWEN2
    },
    Family {
        name: "gemma",
        activation: Activation::GeluTanh,
        embedding_scale: Scale::RootOfWidth,
        ..QWEN2
    },
    GRANITE,
    Family {
        name: "granitemoe",
        routing: Some(Routing {
            shared: SharedExpert::Plain,
            ..SOFTMAX
        }),
        ..GRANITE
    },
    Family {
        name: "olmo2",
        norms: POST_NORMS,
        qk_norm: QkNorm::Row,
        windows: Windows::AllButEvery(4),
        window_rope_scaled: false,
        ..QWEN2
    },
    Family {
        name: "olmoe",
        qk_norm: QkNorm::Row,
        routing: Some(Routing {
            normalised: false,
            ..SOFTMAX
        }),
        ..QWEN2
    },
    Family {
        name: "smollm3",
        rotated: Rotated::AllButEvery(4),
        routing: None,
        ..LLAMA
    },
    COMMAND_R,
    Family {
        name: "cohere2",
        windows: Windows::AllButEvery(4),
        rotated: Rotated::Windowed,
        ..COMMAND_R
    },
    STARCODER2,
    Family {
        name: "gpt2",
        learned_positions: true,
        ..STARCODER2
    },
    Family {
        name: "gptneox",
        parallel_halves: true,
        either_halves: true,
        activation: Activation::Gelu,
        ..STARCODER2
    },
    Family {
        name: "phi2",
        norms: ONE_NORM,
        parallel_halves: true,
        ..STARCODER2
    },
    Family {
        name: "stablelm",
        norm: NormKind::Layer,
        ..QWEN2
    },
    Family {
        name: "nemotron",
        norm: NormKind::Layer,
        activation: Activation::ReluSquared,
        gated: false,
        ..QWEN2
    },
    Family {
        name: "gpt-oss",
        norms: Norms {
            before_feed_forward: Some("post_attention_norm"),
            ..PRE_NORMS
        },
        sinks: true,
        windows: Windows::AllButEvery(2),
        yarn_truncates: false,
        routing: Some(Routing {
            scoring: Scoring::SoftmaxOfChosen,
            activation: Activation::Clamped,
            ..SOFTMAX
        }),
        ..QWEN2
    },
    Family {
        name: "glm4moe",
        norms: Norms {
            before_feed_forward: Some("post_attention_norm"),
            ..PRE_NORMS
        },
        qk_norm: QkNorm::HeadsIfThere,
        routing: Some(Routing {
            scoring: Scoring::Sigmoid,
            shared: SharedExpert::Plain,
            ..SOFTMAX
        }),
        ..QWEN2
    },
];

const GRANITE: Family = Family {
    name: "granite",
    embedding_scale: Scale::Factor,
    residual_scale: Scale::Factor,
    logit_scale: Scale::Divisor,
    routing: None,
    ..LLAMA
};

const COMMAND_R: Family = Family {
    name: "command-r",
    norm: NormKind::Layer,
    norms: ONE_NORM,
    parallel_halves: true,
    logit_scale: Scale::Factor,
    routing: None,
    ..LLAMA
};

const STARCODER2: Family = Family {
    name: "starcoder2",
    norm: NormKind::Layer,
    activation: Activation::GeluTanh,
    gated: false,
    windows: Windows::All,
    ..QWEN2
};

impl Family {
    pub(super) fn find(architecture: &str) -> Result<&'static Family, ConfigError> {
        let mut families = FAMILIES.iter();
        families
            .find(|family| family.name == architecture)
            .ok_or_else(|| {
                let known: Vec<&str> = FAMILIES.iter().map(|family| family.name).collect();
                ConfigError::Architecture {
                    found: architecture.to_owned(),
                    known: known.join(", "),
                }
            })
    }

    /// Factor on the products of queries and keys.
    pub(super) fn attention_scale(
        &self,
        hyper: &Hyper<'_>,
        sizes: &Sizes,
    ) -> Result<f32, ConfigError> {
        let key = "attention.scale";
        if let Some(scale) = hyper.number(key)?.filter(|&scale| scale != 0.0) {
            hyper.above_zero_number(key, scale)?;
            return Ok(scale);
        }
        let len = if self.scaled_by_width_at == Some(sizes.n_layers) {
            sizes.n_embd / sizes.n_heads
        } else {
            sizes.head_dim_k
        };
        Ok(1.0 / (len as f32).sqrt())
    }
}

impl Scale {
    pub(super) fn read(
        self,
        hyper: &Hyper<'_>,
        key: &str,
        n_embd: u32,
    ) -> Result<f32, ConfigError> {
        // Converters write 0 for "none".
        let given = hyper.number(key)?.filter(|&scale| scale != 0.0);
        if let Some(scale) = given {
            hyper.above_zero_number(key, scale)?;
        }
        match (self, given) {
            (Scale::One, Some(scale)) if scale != 1.0 => Err(hyper.unsupported(key, scale)),
            (Scale::RootOfWidth, Some(scale)) => Err(hyper.unsupported(key, scale)),
            (Scale::RootOfWidth, None) => Ok((n_embd as f32).sqrt()),
            (Scale::Divisor, Some(scale)) => Ok(1.0 / scale),
            (Scale::Factor, Some(scale)) => Ok(scale),
            (Scale::One | Scale::Factor | Scale::Divisor, _) => Ok(1.0),
        }
    }
}
