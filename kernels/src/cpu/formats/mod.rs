//! Tensor types: how rows are multiplied as they lie in the file, and how they are unpacked for many products.
//!
//! One small file per type implements [`Format`]. Types whose products are the same arithmetic once they are unpacked share a [`Family`].
//!
//! # The order of a sum
//! For each pair of a weight row and a row of activations a family keeps one vector of partial sums, adds to it from the first element to the last, and adds up its lanes at the end.
//! [`Format::dot`] and [`Family::accumulate`] keep the very same order, so which of them a product goes through does not change a bit.

mod bf16;
mod f16;
mod f32;
mod float;
mod int8;
mod q8_0;

use std::ops::Range;

pub(super) use bf16::Bf16;
pub(super) use f16::F16;
pub(super) use f32::F32;
pub(super) use float::accumulate as accumulate_floats;
pub(super) use q8_0::Q8_0;

use super::rows::{Row, RowMut, RowSize};
use super::simd::Simd;

/// A tensor type on the processor.
pub(super) trait Format: Send + Sync + 'static {
    type Family: Family;

    /// Unpacks a row of the file for [`Family::accumulate`].
    fn unpack<S: Simd>(simd: S, packed: &[u8], row: RowMut<'_>);

    /// Products of `W` rows of the file with one prepared row of activations.
    fn dot<S: Simd, const W: usize>(simd: S, packed: [&[u8]; W], x: Row<'_>) -> [f32; W];
}

/// The arithmetic of products, once weights are unpacked and activations prepared.
pub(super) trait Family: 'static {
    /// Elements of `K` that [`Family::accumulate`] is best given at a time, so that a tile stays in the first-level cache.
    const PANEL_LEN: usize;

    /// Size of an unpacked row of `n_in` weights.
    fn weight_size(n_in: usize) -> RowSize;

    /// Size of a prepared row of `n_in` activations.
    fn activation_size(n_in: usize) -> RowSize;

    /// Prepares a row of activations.
    fn prepare<S: Simd>(simd: S, x: &[f32], row: RowMut<'_>);

    /// Adds the products over a panel, a range of elements that begins at a multiple of [`Family::PANEL_LEN`] and ends at one or at the row's end, to partial sums.
    fn accumulate<S: Simd, const W: usize, const X: usize>(
        simd: S,
        w: [Row<'_>; W],
        x: [Row<'_>; X],
        panel: Range<usize>,
        sums: &mut [[S::F32; X]; W],
    );
}
