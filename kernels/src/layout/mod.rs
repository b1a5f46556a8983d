//! What the bytes of each tensor type mean: the truth that every device is compared with.
//!
//! One file per family of types. A row of `n` elements is `n / block_len` blocks without gaps. Products and sums are made in the order that each file states, so values agree bit by bit with
//! other implementations of the format.

mod float;
pub(crate) mod iq4;
pub(crate) mod k_quants;
pub(crate) mod mxfp4;
mod nibbles;
mod q8_0;

use gguf::TensorType;

/// Unpacks one row: the bytes of whole blocks, and as many numbers as they stand for.
pub(crate) type Unpack = fn(bytes: &[u8], row: &mut [f32]);

/// The function that unpacks rows of `tensor_type`; `None` for a type that this crate does not read.
pub(crate) fn unpack(tensor_type: TensorType) -> Option<Unpack> {
    match tensor_type {
        TensorType::F32 => Some(float::unpack_f32),
        TensorType::F16 => Some(float::unpack_f16),
        TensorType::BF16 => Some(float::unpack_bf16),
        TensorType::Q4_0 => Some(nibbles::unpack_q4_0),
        TensorType::Q4_1 => Some(nibbles::unpack_q4_1),
        TensorType::Q5_0 => Some(nibbles::unpack_q5_0),
        TensorType::Q5_1 => Some(nibbles::unpack_q5_1),
        TensorType::Q8_0 => Some(q8_0::unpack),
        TensorType::Q2_K => Some(k_quants::unpack_q2_k),
        TensorType::Q3_K => Some(k_quants::unpack_q3_k),
        TensorType::Q4_K => Some(k_quants::unpack_q4_k),
        TensorType::Q5_K => Some(k_quants::unpack_q5_k),
        TensorType::Q6_K => Some(k_quants::unpack_q6_k),
        TensorType::IQ4_NL => Some(iq4::unpack_nl),
        TensorType::IQ4_XS => Some(iq4::unpack_xs),
        TensorType::MXFP4 => Some(mxfp4::unpack),
        _ => None,
    }
}
