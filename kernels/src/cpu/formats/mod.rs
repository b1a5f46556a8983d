//! Tensor types as the processor reads them.
//!
//! One small file per type. Types of numbers ([`Element`]) meet activations in the arithmetic of `float`; quantised types ([`Quantised`]) meet activations that were quantised to int8, in one of
//! the families of [`blocks`].

mod bf16;
mod bits;
pub(super) mod blocks;
mod f16;
mod f32;
pub(super) mod float;
mod iq4_nl;
mod iq4_xs;
mod mxfp4;
mod q2_k;
mod q3_k;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;

pub(super) use bf16::{Bf16, Bf16Pairs};
use bits::{add_bits, four_bits, raised, six_bit_scales, two_bits};
pub(super) use blocks::Quantised;
pub(super) use f16::F16;
pub(super) use f32::F32;
pub(super) use iq4_nl::Iq4Nl;
pub(super) use iq4_xs::Iq4Xs;
pub(super) use mxfp4::Mxfp4;
pub(super) use q2_k::Q2K;
pub(super) use q3_k::Q3K;
pub(super) use q4_0::Q4_0;
pub(super) use q4_1::Q4_1;
pub(super) use q4_k::Q4K;
pub(super) use q5_0::Q5_0;
pub(super) use q5_1::Q5_1;
pub(super) use q5_k::Q5K;
pub(super) use q6_k::Q6K;
pub(super) use q8_0::Q8_0;

use super::arch::Isa;
use super::rows::{Row, RowMut, RowSize};
use super::simd::Simd;

/// What activations become before a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// f32 numbers.
    Floats,
    /// BF16 numbers.
    Bf16Pairs,
    /// Bytes, with a scale for so many.
    Bytes { block_len: usize },
}
