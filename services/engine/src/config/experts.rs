use kernels::{Activation, RoutingParams, Scoring};

use super::family::Routing;
use super::{ConfigError, Family, Hyper};

/// The experts of a block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExpertConfig {
    /// How many there are.
    pub n_experts: usize,
    /// How the router chooses some for a row, and what they count.
    pub routing: RoutingParams,
    /// Inner width of an expert, where the metadata says it; else that of the dense network.
    pub n_ff: usize,
    /// Their activation.
    pub activation: Activation,
    /// What always runs beside them.
    pub shared: Option<SharedConfig>,
    /// Blocks at the beginning that have a dense network instead.
    pub leading_dense: u32,
}

/// A feed-forward network that runs for every row beside those that the router chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedConfig {
    /// Its inner width.
    pub n_ff: usize,
    /// Whether its result is multiplied with the sigmoid of one number for each row.
    pub gated: bool,
}

/// What a family has beside its experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SharedExpert {
    /// Nothing.
    None,
    /// A network, where the metadata gives its width.
    Plain,
    /// A network with a gate of its own.
    Gated,
}

/// The experts that the metadata announces, if it does.
pub(super) fn read(
    hyper: &Hyper<'_>,
    family: &Family,
) -> Result<Option<ExpertConfig>, ConfigError> {
    let n_experts = hyper.any_number("expert_count")?.unwrap_or(0.0);
    if n_experts == 0.0 {
        return Ok(None);
    }
    let n_experts = hyper.count("expert_count")?;
    let Some(routing) = family.routing else {
        return Err(hyper.unsupported("expert_count", n_experts));
    };
    let n_used = hyper.count("expert_used_count")?;
    if n_used > n_experts {
        let reason = format!("there are only {n_experts} experts");
        return Err(hyper.invalid("expert_used_count", n_used, reason));
    }
    let leading_dense = hyper.any_number("leading_dense_block_count")?;
    let n_ff = match hyper.optional_count("expert_feed_forward_length")? {
        Some(n_ff) => n_ff,
        None => hyper.count("feed_forward_length")?,
    };
    Ok(Some(ExpertConfig {
        n_experts: n_experts as usize,
        routing: RoutingParams {
            n_used: n_used as usize,
            scoring: scoring(hyper, &routing)?,
            normalised: hyper
                .flag("expert_weights_norm")?
                .unwrap_or(routing.normalised),
            scale: scale(hyper)?,
        },
        n_ff: n_ff as usize,
        activation: routing.activation,
        shared: shared(hyper, routing.shared, n_ff)?,
        leading_dense: match leading_dense {
            None => 0,
            Some(0.0) => 0,
            Some(_) => hyper.count("leading_dense_block_count")?,
        },
    }))
}

/// The width is given as such, or as a number of experts.
fn shared(
    hyper: &Hyper<'_>,
    shared: SharedExpert,
    expert_n_ff: u32,
) -> Result<Option<SharedConfig>, ConfigError> {
    if shared == SharedExpert::None {
        return Ok(None);
    }
    let count = hyper.any_number("expert_shared_count")?.unwrap_or(0.0);
    let key = "expert_shared_feed_forward_length";
    let n_ff = if hyper.any_number(key)?.unwrap_or(0.0) > 0.0 {
        u64::from(hyper.count(key)?)
    } else if count > 0.0 {
        u64::from(hyper.count("expert_shared_count")?) * u64::from(expert_n_ff)
    } else if shared == SharedExpert::Gated {
        u64::from(hyper.count("feed_forward_length")?)
    } else {
        return Ok(None);
    };
    Ok(Some(SharedConfig {
        n_ff: usize::try_from(n_ff).unwrap_or(usize::MAX),
        gated: shared == SharedExpert::Gated,
    }))
}

/// `expert_gating_func`, where it is given; the numbers are those of the converters.
fn scoring(hyper: &Hyper<'_>, routing: &Routing) -> Result<Scoring, ConfigError> {
    let key = "expert_gating_func";
    match hyper.optional_count(key)? {
        None => Ok(routing.scoring),
        Some(1) => Ok(Scoring::Softmax),
        Some(2) => Ok(Scoring::Sigmoid),
        Some(3) => Ok(Scoring::SoftmaxOfChosen),
        Some(other) => Err(hyper.unsupported(key, other)),
    }
}

/// Factor on the weights of the chosen. Converters write 0 for none.
fn scale(hyper: &Hyper<'_>) -> Result<f32, ConfigError> {
    let key = "expert_weights_scale";
    match hyper.number(key)? {
        None | Some(0.0) => Ok(1.0),
        Some(scale) => {
            hyper.above_zero_number(key, scale)?;
            Ok(scale)
        }
    }
}
