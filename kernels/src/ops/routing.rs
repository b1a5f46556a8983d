//! Choosing experts for each row, and their products.

use super::check::{Check, on_gpu};
use super::matrix::{Linear, gated, matmul};
use crate::hip::MATRICES;
use crate::ops::Activation;
use crate::routing::{HostMemory, Memory, Routing};
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

impl<'a> ExpertNetwork<'a> {
    pub(crate) fn linears(&self) -> [Linear<'a>; MATRICES] {
        [self.gate, self.up, self.down]
    }
}

/// Chooses experts of a layer for every row by the router's `logits`; of two that rank equal, the one with the lower number. A GPU chooses in its own time: [`Routing::chosen`] waits for it.
///
/// `logits`: `[rows, n_experts]`; `bias`: `[n_experts]` F32, added to the scores for the choice alone. A row's experts and their weights depend on that row alone.
///
/// # Errors
/// [`OpError::Memory`] for more rows than `routing` has room for, [`OpError::OutOfRange`] for a layer that it does not have, and the checks on shape, type and device.
pub fn route(
    layer: usize,
    logits: &Tensor,
    bias: Option<&Tensor>,
    routing: &mut Routing,
) -> Result<(), OpError> {
    let check = Check("route");
    check.same_device(logits.device(), &[("routing", routing.device())])?;
    routing.in_layers(layer)?;
    let n_experts = routing.size().n_experts;
    let [rows, _] = check.two_dims("logits", logits)?;
    check.shape("logits", logits, &[rows, n_experts])?;
    if let Some(bias) = bias {
        check.same_device(logits.device(), &[("bias", bias.device())])?;
        check.vector_shape("bias", bias, n_experts)?;
    }
    if rows > routing.size().max_rows {
        return Err(OpError::Memory {
            shape: vec![rows, n_experts],
        });
    }
    match logits.device() {
        // A few numbers for each row.
        Device::Reference | Device::Cpu(_) => {
            let bias = bias.map(|bias| check.vector("bias", bias, n_experts));
            let bias: Option<Vec<f32>> = bias
                .transpose()?
                .map(|bias| (0..n_experts).map(|expert| bias.get(expert)).collect());
            let values = check.activations("logits", logits)?;
            routing.choose(layer, values.data, bias.as_deref());
        }
        Device::Hip(hip) => {
            let logits = check.resident("logits", logits)?;
            hip.route((layer, rows), logits, bias.map(on_gpu), routing)?;
        }
    }
    Ok(())
}

/// Adds to each row of `out` what its experts make of its row of `x`, weighed: `out[r] += Σ_e weight[r, e] · down_e(activation(gate_e · x[r]) · (up_e · x[r]))`, experts in the order of their rank.
///
/// `x`, `out`: `[rows, n_embd]`, the rows that were [routed](route) at this layer; `networks`: one for each expert, or `None` for those that no row goes to. Where none is missing, nobody asks
/// which ones the rows go to.
///
/// # Errors
/// [`OpError::Count`] if there is not one place in `networks` for each expert, [`OpError::Expert`] if a network that some row goes to is missing, and the checks on shape, type and device, for
/// every network that is there; on a GPU the same matrix of all experts has one type. `out` is as it was then.
pub fn experts(
    layer: usize,
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
        &[("routing", routing.device()), ("out", out.device())],
    )?;
    routing.in_layers(layer)?;
    let size = *routing.size();
    let shape = [routing.n_rows(layer), size.n_embd];
    check.shape("x", x, &shape)?;
    check.shape("out", out, &shape)?;
    check.count("networks", size.n_experts, networks.len())?;
    check_there(check, layer, routing, networks)?;
    match device {
        Device::Reference | Device::Cpu(_) => {
            on_processor(layer, routing, networks, activation, x, out)
        }
        Device::Hip(hip) => {
            check_networks(check, networks, x, size.n_ff)?;
            let (x, out) = (check.resident("x", x)?, check.resident_mut("out", out)?);
            Ok(hip.experts(layer, routing, networks, activation, x, out)?)
        }
    }
}

/// That every expert is there that a row goes to.
fn check_there(
    check: Check,
    layer: usize,
    routing: &mut Routing,
    networks: &[Option<ExpertNetwork<'_>>],
) -> Result<(), OpError> {
    if networks.iter().all(Option::is_some) {
        return Ok(());
    }
    let chosen = routing.chosen(layer)?;
    let missing = |&expert: &u32| networks[expert as usize].is_none();
    match chosen.into_iter().find(missing) {
        None => Ok(()),
        Some(expert) => Err(OpError::Expert {
            op: check.0,
            expert,
        }),
    }
}

/// That the networks which are there are all alike: one launch serves them.
fn check_networks(
    check: Check,
    networks: &[Option<ExpertNetwork<'_>>],
    x: &Tensor,
    n_ff: usize,
) -> Result<(), OpError> {
    let Some(first) = networks.iter().flatten().next() else {
        return Ok(());
    };
    let n_embd = x.row_len();
    let names = ["gate", "up", "down"];
    let shapes = [[n_ff, n_embd], [n_ff, n_embd], [n_embd, n_ff]];
    let first = first.linears();
    for network in networks.iter().flatten() {
        for (index, linear) in network.linears().into_iter().enumerate() {
            let (name, weight) = (names[index], linear.weight);
            check.same_device(x.device(), &[(name, weight.device())])?;
            check.matrix_shape(name, weight)?;
            check.shape(name, weight, &shapes[index])?;
            if weight.tensor_type() != first[index].weight.tensor_type() {
                return Err(OpError::TensorType {
                    op: check.0,
                    operand: name,
                    found: weight.tensor_type(),
                });
            }
            if let Some(bias) = linear.bias {
                check.same_device(x.device(), &[("bias", bias.device())])?;
                check.vector_shape("bias", bias, shapes[index][0])?;
            }
            let n_biases = |linear: Linear| usize::from(linear.bias.is_some());
            check.count("bias", n_biases(first[index]), n_biases(linear))?;
        }
    }
    Ok(())
}

fn on_processor(
    layer: usize,
    routing: &mut Routing,
    networks: &[Option<ExpertNetwork<'_>>],
    activation: Activation,
    x: &Tensor,
    out: &mut Tensor,
) -> Result<(), OpError> {
    let check = Check("experts");
    for expert in routing.chosen(layer)? {
        let network = networks[expert as usize].ok_or(OpError::Expert {
            op: check.0,
            expert,
        })?;
        run_one(layer, routing, expert, &network, activation, x)?;
    }
    let Memory::Host(memory) = &routing.memory else {
        unreachable!("the device was matched: it is the processor");
    };
    let outputs = check.activations("outputs", &memory.outputs)?;
    let n_used = routing.params().n_used;
    let out = check.activations_mut("out", out)?;
    for (row, out) in out.chunks_exact_mut(outputs.cols).enumerate() {
        for (rank, weight) in routing.weights(layer, row).iter().enumerate() {
            let made = outputs.row(row * n_used + rank);
            for (out, made) in out.iter_mut().zip(made) {
                *out += weight * made;
            }
        }
    }
    Ok(())
}

/// Gathers the rows of one expert, runs its network on them and puts what comes of each into its slot.
fn run_one(
    layer: usize,
    routing: &mut Routing,
    expert: u32,
    network: &ExpertNetwork<'_>,
    activation: Activation,
    x: &Tensor,
) -> Result<(), OpError> {
    let check = Check("experts");
    let slots = routing.slots_of(layer, expert);
    let n_used = routing.params().n_used;
    let Memory::Host(memory) = &mut routing.memory else {
        unreachable!("the device was matched: it is the processor");
    };
    let HostMemory {
        gathered,
        hidden,
        made,
        outputs,
    } = &mut **memory;
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
