//! What the bytes of each tensor type mean: the truth that every device is compared with.
//!
//! One file per family of types. A row of `n` elements is `n / block_len` blocks without gaps.

mod float;
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
        TensorType::Q8_0 => Some(q8_0::unpack),
        _ => None,
    }
}
