use std::num::NonZeroUsize;

use super::family::{Rotated, Windows};
use super::hyper::Pattern;
use super::rope::{PLAIN, UNROTATED, WINDOWED};
use super::sizes::Sizes;
use super::{ConfigError, ExpertConfig, Family, Hyper, LayerConfig};

/// What each block has: a window, rotary positions, experts.
pub(super) fn read(
    hyper: &Hyper<'_>,
    family: &Family,
    sizes: &Sizes,
    experts: Option<&ExpertConfig>,
) -> Result<Vec<LayerConfig>, ConfigError> {
    let window = window(hyper, family, sizes)?;
    let windowed = windowed(hyper, family, sizes)?;
    let layers = (0..sizes.n_layers).zip(windowed).map(|(index, windowed)| {
        let rotated = match family.rotated {
            Rotated::All => !family.learned_positions,
            // A family that rotates only where there is a window rotates everywhere where there is none at all.
            Rotated::Windowed => windowed || window.is_none(),
            Rotated::AllButEvery(len) => (index + 1) % len != 0,
        };
        LayerConfig {
            window: window.filter(|_| windowed),
            rope: match (rotated, windowed) {
                (false, _) => UNROTATED,
                (true, true) => WINDOWED,
                (true, false) => PLAIN,
            },
            routed: experts.is_some_and(|experts| index >= experts.leading_dense),
        }
    });
    Ok(layers.collect())
}

/// How far a row sees in layers with a window.
fn window(
    hyper: &Hyper<'_>,
    family: &Family,
    sizes: &Sizes,
) -> Result<Option<NonZeroUsize>, ConfigError> {
    let key = "attention.sliding_window";
    // Converters write 0 for none.
    if hyper.any_number(key)?.unwrap_or(0.0) == 0.0 {
        return Ok(None);
    }
    let len = hyper.count(key)?;
    if family.windows == Windows::Refused {
        // A window at least as long as the context hides nothing.
        return if len >= sizes.context_length {
            Ok(None)
        } else {
            Err(hyper.unsupported(key, len))
        };
    }
    Ok(NonZeroUsize::new(len as usize))
}

/// Whether each layer is one of those that have a window, if there is any.
fn windowed(hyper: &Hyper<'_>, family: &Family, sizes: &Sizes) -> Result<Vec<bool>, ConfigError> {
    let key = "attention.sliding_window_pattern";
    let indices = 0..sizes.n_layers;
    let all_but_every = |len: u32| {
        indices
            .clone()
            .map(|index| (index + 1) % len != 0)
            .collect()
    };
    match (family.windows, hyper.pattern(key)?) {
        (Windows::Refused, None) => Ok(indices.map(|_| false).collect()),
        (Windows::Refused, Some(_)) => Err(hyper.unsupported(key, "a pattern")),
        (_, Some(Pattern::Layers(flags))) if flags.len() == sizes.n_layers as usize => Ok(flags),
        (_, Some(Pattern::Layers(flags))) => Err(hyper.invalid(
            key,
            format!("an array of length {}", flags.len()),
            format!("expected one flag for each of {} layers", sizes.n_layers),
        )),
        (_, Some(Pattern::Every(len))) | (Windows::AllButEvery(len), None) => {
            Ok(all_but_every(len))
        }
        (Windows::All, None) => Ok(indices.map(|_| true).collect()),
    }
}
