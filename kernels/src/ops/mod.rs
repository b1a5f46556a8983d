//! The operations. Each checks shapes, types, devices and indices once, then matches on the device.
//!
//! Activations are f32 tensors of shape `[rows, cols]` that own their memory; a row is a token. Weights may be of any type that [`Device::supports`](crate::Device::supports) and may look at memory of somebody else.
//! When an operation is refused, nothing has been computed or written. Zero rows are fine everywhere: nothing happens then.

mod attention;
mod check;
mod elementwise;
mod logits;
mod matrix;
mod norm;
mod routing;
mod scale;

pub use attention::{AttentionParams, attention, rope_and_write};
pub use elementwise::{Activation, activate, add, rms_norm};
pub use logits::argmax;
pub use matrix::{
    Linear, add_positions, embed, gated, gather_rows, matmul, matmul_add, matmul_each,
};
pub use norm::{head_norm, layer_norm};
pub use routing::{ExpertNetwork, experts, route};
pub use scale::{activate_alone, clear, gate_rows, scale, soft_cap};
