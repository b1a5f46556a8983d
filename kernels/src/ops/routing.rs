//! Choosing experts for each row, and their products.

use super::check::Check;
use super::matrix::{Linear, gated, matmul};
use crate::ops::Activation;
use crate::routing::Routing;
use crate::{Device, OpError, Tensor};

/// The matrices of one expert.
#[derive(Debug, Clone, Copy)]
pub struct ExpertNetwork<'a> {
    /// `[n_ff, n_embd]`
    pub gate: Linear<'a>,
    /// `[n_ff, n_embd]`
    pub up: Linear<'a>,
    /// `[n_embd, n_ff]`
    pub down: Linear<'a>,
}

/// Chooses experts for every row by the router's `logits`; of two that rank equal, the one with the lower number.
///
/// `logits`: `[rows, n_experts]`; `bias`: `[n_experts]` F32, added to the scores for the choice alone. A row's experts and their weights depend on that row alone.
///
/// # Errors
/// [`OpError::Memory`] for more rows than `routing` has room for, and the checks on shape, type and device.
pub fn route(logits: &Tensor, bias: Option<&Tensor>, routing: &mut Routing) -> Result<(), OpError> {
    let check = Check("route");
    check.same_device(logits.device(), &[("routing", routing.gathered.device())])?;
    let [rows, _] = check.two_dims("logits", logits)?;
    check.shape("logits", logits, &[rows, routing.n_experts()])?;
    let bias: Option<Vec<f32>> = match bias {
        None => None,
        Some(bias) => {
            check.same_device(logits.device(), &[("bias", bias.device())])?;
            let vector = check.vector("bias", bias, routing.n_experts())?;
            Some((0..routing.n_experts()).map(|i| vector.get(i)).collect())
        }
    };
    let values = check.activations("logits", logits)?;
    routing
        .outputs
        .set_rows(rows.saturating_mul(routing.params().n_used))?;
    match logits.device() {
        // A few numbers for each row.
        Device::Reference | Device::Cpu(_) => routing.choose(values.data, bias.as_deref()),
        Device::Hip(_) => return Err(check.not_on(logits.device())),
    }
    Ok(())
}

/// Adds to each row of `out` what its experts make of its row of `x`, weighed: `out[r] += Σ_e weight[r, e] · down_e(activation(gate_e · x[r]) · (up_e · x[r]))`, experts in the order of their rank.
///
/// `x`, `out`: `[rows, n_embd]`, the rows that were [routed](route); `networks`: one for each expert, or `None` for those that no row goes to.
///
/// # Errors
/// [`OpError::Count`] if there is not one place in `networks` for each expert, [`OpError::Expert`] if a network that some row goes to is missing, and the checks on shape, type and device. `out`
/// is as it was then.
pub fn experts(
    routing: &mut Routing,
    networks: &[Option<ExpertNetwork<'_>>],
    activation: Activation,
    x: &Tensor,
    out: &mut Tensor,
) -> Result<(), OpError> {
    let check = Check("experts");
    let device = x.device().clone();
    check.same_device(
        &device,
        &[
            ("routing", routing.gathered.device()),
            ("out", out.device()),
        ],
    )?;
    let shape = [routing.n_rows(), routing.gathered.row_len()];
    check.shape("x", x, &shape)?;
    check.shape("out", out, &shape)?;
    if networks.len() != routing.n_experts() {
        return Err(OpError::Count {
            op: check.0,
            operand: "networks",
            expected: routing.n_experts(),
            found: networks.len(),
        });
    }
    match device {
        Device::Hip(_) => return Err(check.not_on(&device)),
        Device::Reference | Device::Cpu(_) => {
            for expert in routing.chosen() {
                let network = networks[expert as usize].ok_or(OpError::Expert {
                    op: check.0,
                    expert,
                })?;
                run_one(routing, expert, &network, activation, x)?;
            }
            let outputs = check.activations("outputs", &routing.outputs)?;
            let n_used = routing.params().n_used;
            let out = check.activations_mut("out", out)?;
            for (row, out) in out.chunks_exact_mut(outputs.cols).enumerate() {
                for (rank, weight) in routing.weights(row).iter().enumerate() {
                    let made = outputs.row(row * n_used + rank);
                    for (out, made) in out.iter_mut().zip(made) {
                        *out += weight * made;
                    }
                }
            }
        }
    }
    Ok(())
}

/// Gathers the rows of one expert, runs its network on them and puts what comes of each into its slot.
fn run_one(
    routing: &mut Routing,
    expert: u32,
    network: &ExpertNetwork<'_>,
    activation: Activation,
    x: &Tensor,
) -> Result<(), OpError> {
    let check = Check("experts");
    let slots = routing.slots_of(expert);
    let n_used = routing.params().n_used;
    let Routing {
        gathered,
        hidden,
        made,
        outputs,
        ..
    } = routing;
    for tensor in [&mut *gathered, &mut *hidden, &mut *made] {
        tensor.set_rows(slots.len())?;
    }
    let n_embd = gathered.row_len();
    let rows = check.activations("x", x)?;
    let gathered_rows = check.activations_mut("gathered", gathered)?;
    for (out, slot) in gathered_rows.chunks_exact_mut(n_embd).zip(&slots) {
        out.copy_from_slice(rows.row(slot / n_used));
    }
    gated(network.gate, network.up, activation, gathered, hidden)?;
    matmul(network.down, hidden, made)?;
    let made = check.activations("made", made)?;
    let outputs = check.activations_mut("outputs", outputs)?;
    for (index, slot) in slots.into_iter().enumerate() {
        outputs[slot * n_embd..][..n_embd].copy_from_slice(made.row(index));
    }
    Ok(())
}
