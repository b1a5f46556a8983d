//! Products of bytes: activations quantised in blocks of 32, weights that unpack to signed bytes with a scale per block.
//!
//! A block's 32 products are summed exactly as integers; the sum is multiplied with both scales and added to the f32 partial sums.

use std::ops::Range;

use super::{Family, Row, RowMut, RowSize, Simd};

/// Rows of bytes, with one f32 scale per block of [`BLOCK_LEN`].
pub(crate) struct Int8;

/// Elements that share a scale.
pub(super) const BLOCK_LEN: usize = 32;

/// Blocks whose scales are multiplied together. Rows have room for a whole number of groups.
pub(super) const SCALE_GROUP: usize = 16;

impl Family for Int8 {
    const PANEL_LEN: usize = 1024;

    fn weight_size(n_in: usize) -> RowSize {
        RowSize {
            floats: (n_in / BLOCK_LEN).next_multiple_of(SCALE_GROUP),
            bytes: n_in,
        }
    }

    fn activation_size(n_in: usize) -> RowSize {
        Int8::weight_size(n_in)
    }

    #[inline(always)]
    fn prepare<S: Simd>(simd: S, x: &[f32], row: RowMut<'_>) {
        let quants = row.bytes.as_chunks_mut::<BLOCK_LEN>().0;
        for ((block, quants), scale) in x
            .as_chunks::<BLOCK_LEN>()
            .0
            .iter()
            .zip(quants)
            .zip(row.floats)
        {
            *scale = quantize(simd, block, quants);
        }
    }

    #[inline(always)]
    fn accumulate<S: Simd, const W: usize, const X: usize>(
        simd: S,
        w: [Row<'_>; W],
        x: [Row<'_>; X],
        panel: Range<usize>,
        sums: &mut [[S::F32; X]; W],
    ) {
        let blocks = panel.start / BLOCK_LEN..panel.end / BLOCK_LEN;
        let (mut w_blocks, mut x_blocks) = ([BlockRow::default(); W], [BlockRow::default(); X]);
        for (blocks_of, row) in w_blocks.iter_mut().zip(w) {
            *blocks_of = BlockRow::new(row, blocks.clone());
        }
        for (blocks_of, row) in x_blocks.iter_mut().zip(x) {
            *blocks_of = BlockRow::new(row, blocks.clone());
        }
        let mut local = *sums;
        for first in (0..blocks.len()).step_by(SCALE_GROUP) {
            let scales = products_of_scales(&w_blocks, &x_blocks, first / SCALE_GROUP);
            for i in 0..SCALE_GROUP.min(blocks.len() - first) {
                for ((sums, w), scales) in local.iter_mut().zip(&w_blocks).zip(&scales) {
                    for ((sum, x), scales) in sums.iter_mut().zip(&x_blocks).zip(scales) {
                        let products = simd.dot_i8(&w.quants[first + i], &x.quants[first + i]);
                        *sum = simd.mul_add(products, simd.splat(scales[i]), *sum);
                    }
                }
            }
        }
        *sums = local;
    }
}

/// Products of both scales for one group of blocks, `[weight row][activation row][block]`: a few vector products, where one by one they would cost as much as the bytes.
#[inline(always)]
fn products_of_scales<const W: usize, const X: usize>(
    w: &[BlockRow; W],
    x: &[BlockRow; X],
    group: usize,
) -> [[[f32; SCALE_GROUP]; X]; W] {
    let mut products = [[[0.0; SCALE_GROUP]; X]; W];
    for (products, w) in products.iter_mut().zip(w) {
        for (products, x) in products.iter_mut().zip(x) {
            let scales = w.scales[group].iter().zip(&x.scales[group]);
            for (product, (w, x)) in products.iter_mut().zip(scales) {
                *product = w * x;
            }
        }
    }
    products
}

/// A range of a row's blocks that begins with a group of scales.
#[derive(Clone, Copy, Default)]
pub(super) struct BlockRow<'a> {
    /// In groups; what the last group has beyond the blocks means nothing.
    pub(super) scales: &'a [[f32; SCALE_GROUP]],
    pub(super) quants: &'a [[i8; BLOCK_LEN]],
}

impl<'a> BlockRow<'a> {
    #[inline(always)]
    pub(super) fn new(row: Row<'a>, blocks: Range<usize>) -> BlockRow<'a> {
        BlockRow {
            scales: &row.floats.as_chunks().0[blocks.start / SCALE_GROUP..],
            quants: &row.bytes.as_chunks().0[blocks],
        }
    }
}

/// Quantises a block to -127 ..= 127 and returns its scale, the largest magnitude / 127. The scale is NaN if any number is not finite: so is every product then, as it would be without
/// quantising.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the value was clamped to what a byte holds"
)]
fn quantize<S: Simd>(_: S, block: &[f32; BLOCK_LEN], quants: &mut [i8; BLOCK_LEN]) -> f32 {
    let mut largest = [0.0_f32; 8];
    // Zero for finite numbers, NaN for others.
    let mut not_finite = [0.0_f32; 8];
    for eight in block.as_chunks::<8>().0 {
        for ((largest, not_finite), &value) in largest.iter_mut().zip(&mut not_finite).zip(eight) {
            let magnitude = value.abs();
            *largest = if magnitude > *largest {
                magnitude
            } else {
                *largest
            };
            *not_finite += value * 0.0;
        }
    }
    let largest = largest.into_iter().fold(0.0, f32::max);
    let not_finite: f32 = not_finite.into_iter().sum();
    let per_unit = if largest > 0.0 { 127.0 / largest } else { 0.0 };
    for (quant, &value) in quants.iter_mut().zip(block) {
        // Adding and taking off 1.5 · 2^23 rounds to the nearest whole number, ties to even.
        let rounded = (value * per_unit).clamp(-127.0, 127.0) + 12_582_912.0 - 12_582_912.0;
        *quant = rounded as i8;
    }
    largest / 127.0 + not_finite
}
