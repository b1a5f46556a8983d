use kernels::{RopeParams, RopeScaling};

use super::sizes::Sizes;
use super::{ConfigError, Family, Hyper};

/// The tensor with what the frequencies are divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeFactors {
    /// `rope_freqs.weight`, where the file has it.
    IfThere,
    /// `rope_factors_long.weight`, for contexts longer than those that the model was first trained with; its counterpart for shorter ones is not used.
    Long,
    /// `rope_factors_short.weight`, for the others; its counterpart is not used.
    Short,
}

/// Places in [`ModelConfig::ropes`](super::ModelConfig::ropes): layers without a window, layers with one, layers that do not rotate.
pub(super) const PLAIN: usize = 0;
pub(super) const WINDOWED: usize = 1;
pub(super) const UNROTATED: usize = 2;

/// Factor on cosines and sines.
const ATTN_FACTOR: &str = "rope.scaling.attn_factor";

pub(super) fn read(
    hyper: &Hyper<'_>,
    family: &Family,
    sizes: &Sizes,
) -> Result<(Vec<RopeParams>, RopeFactors), ConfigError> {
    let dims = dims(hyper, sizes.head_dim_k)?;
    let base = base(hyper, "rope.freq_base")?.unwrap_or(10_000.0);
    let window_base = base_of_windows(hyper, family)?.unwrap_or(base);
    let Scaled {
        scaling,
        attn_factor,
        factors,
    } = scaling(hyper, family, sizes)?;
    let plain = RopeParams {
        dims: dims as usize,
        base,
        kind: family.rope,
        scaling,
        attn_factor,
    };
    let mut windowed = RopeParams {
        base: window_base,
        ..plain
    };
    if !family.window_rope_scaled {
        windowed.scaling = RopeScaling::None;
        windowed.attn_factor = 1.0;
    }
    let unrotated = RopeParams { dims: 0, ..plain };
    Ok((vec![plain, windowed, unrotated], factors))
}

fn dims(hyper: &Hyper<'_>, head_dim: u32) -> Result<u32, ConfigError> {
    let key = "rope.dimension_count";
    let dims = hyper.optional_count(key)?.unwrap_or(head_dim);
    if dims > head_dim || !dims.is_multiple_of(2) {
        let reason =
            format!("rotary positions need an even number of elements of the head of {head_dim}");
        return Err(hyper.invalid(key, dims, reason));
    }
    Ok(dims)
}

fn base(hyper: &Hyper<'_>, key: &str) -> Result<Option<f32>, ConfigError> {
    let base = hyper.number(key)?;
    if let Some(base) = base {
        hyper.above_zero_number(key, base)?;
    }
    Ok(base)
}

fn base_of_windows(hyper: &Hyper<'_>, family: &Family) -> Result<Option<f32>, ConfigError> {
    Ok(base(hyper, "rope.freq_base_swa")?.or(family.window_rope_base))
}

/// How positions are stretched.
struct Scaled {
    scaling: RopeScaling,
    attn_factor: f32,
    factors: RopeFactors,
}

/// `rope.scaling.type` and what goes with it, or the older `rope.scale_linear` alone.
fn scaling(hyper: &Hyper<'_>, family: &Family, sizes: &Sizes) -> Result<Scaled, ConfigError> {
    let scaled = |scaling| Scaled {
        scaling,
        attn_factor: 1.0,
        factors: RopeFactors::IfThere,
    };
    let key = "rope.scaling.type";
    Ok(match hyper.text(key)? {
        Some("none") => scaled(RopeScaling::None),
        Some("linear") => scaled(linear(hyper, "rope.scaling.factor")?),
        // Older converters say it by the factor alone.
        None if hyper
            .number(ATTN_FACTOR)?
            .is_some_and(|factor| factor != 0.0 && factor != 1.0) =>
        {
            long(hyper, sizes)?
        }
        None => scaled(linear(hyper, "rope.scale_linear")?),
        Some("longrope") => long(hyper, sizes)?,
        Some("yarn") => yarn(hyper, family)?,
        Some(other) => return Err(hyper.unsupported(key, other)),
    })
}

fn linear(hyper: &Hyper<'_>, key: &str) -> Result<RopeScaling, ConfigError> {
    match hyper.number(key)? {
        // Converters write 0 for "no scaling".
        None | Some(0.0 | 1.0) => Ok(RopeScaling::None),
        Some(factor) => {
            hyper.above_zero_number(key, factor)?;
            Ok(RopeScaling::Linear { factor })
        }
    }
}

/// LongRoPE: one tensor of factors for contexts as long as those of the first training, another for longer ones. Which it is follows from the context that the model is served with, so that a key
/// in the cache stays what it is while its sequence grows. Source: arXiv:2402.13753.
fn long(hyper: &Hyper<'_>, sizes: &Sizes) -> Result<Scaled, ConfigError> {
    let original = hyper.count("rope.scaling.original_context_length")?;
    let attn_factor = match hyper.number(ATTN_FACTOR)? {
        None | Some(0.0) => 1.0,
        Some(factor) => {
            hyper.above_zero_number(ATTN_FACTOR, factor)?;
            factor
        }
    };
    Ok(Scaled {
        scaling: RopeScaling::None,
        attn_factor,
        factors: if sizes.context_length > original {
            RopeFactors::Long
        } else {
            RopeFactors::Short
        },
    })
}

/// YaRN. Source: arXiv:2309.00071.
fn yarn(hyper: &Hyper<'_>, family: &Family) -> Result<Scaled, ConfigError> {
    let number = |key: &str| -> Result<Option<f32>, ConfigError> {
        let number = hyper.number(key)?;
        if let Some(number) = number {
            hyper.above_zero_number(key, number)?;
        }
        Ok(number)
    };
    let key = "rope.scaling.factor";
    let factor = number(key)?.ok_or_else(|| hyper.missing(key))?;
    let attn_factor = number("rope.scaling.yarn_attn_factor")?;
    Ok(Scaled {
        scaling: RopeScaling::Yarn {
            factor,
            original_context: hyper.count("rope.scaling.original_context_length")?,
            beta_fast: number("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
            beta_slow: number("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
            truncates: family.yarn_truncates,
        },
        // The paper's own temperature, where the metadata has none.
        attn_factor: attn_factor.unwrap_or(if factor > 1.0 {
            0.1 * factor.ln() + 1.0
        } else {
            1.0
        }),
        factors: RopeFactors::IfThere,
    })
}
