//! Q8_0: blocks of an f16 scale and 32 signed bytes.

use super::int8::{BLOCK_LEN, Int8};
use super::{Format, Row, RowMut, Simd};

pub(crate) struct Q8_0;

/// A block in the file.
type Block = [u8; 2 + BLOCK_LEN];

#[inline(always)]
fn scale<S: Simd>(simd: S, block: &Block) -> f32 {
    simd.f16([block[0], block[1]])
}

#[inline(always)]
fn quants(block: &Block) -> &[i8; BLOCK_LEN] {
    let quants: &[u8; BLOCK_LEN] = block.last_chunk().expect("a block ends with its bytes");
    bytemuck::cast_ref(quants)
}

impl Format for Q8_0 {
    type Family = Int8;

    #[inline(always)]
    fn unpack<S: Simd>(simd: S, packed: &[u8], row: RowMut<'_>) {
        let blocks: &[Block] = packed.as_chunks().0;
        for ((block, bytes), row_scale) in blocks
            .iter()
            .zip(row.bytes.as_chunks_mut().0)
            .zip(row.floats)
        {
            *bytes = *quants(block);
            *row_scale = scale(simd, block);
        }
    }

    #[inline(always)]
    fn dot<S: Simd, const W: usize>(simd: S, packed: [&[u8]; W], x: Row<'_>) -> [f32; W] {
        let x_scales = x.floats;
        let x_quants: &[[i8; BLOCK_LEN]] = x.bytes.as_chunks().0;
        let n_blocks = x_quants.len().min(x_scales.len());
        let mut rows: [&[Block]; W] = [&[]; W];
        for (blocks, row) in rows.iter_mut().zip(packed) {
            *blocks = &row.as_chunks().0[..n_blocks];
        }
        let mut sums = [simd.splat(0.0); W];
        for i in 0..n_blocks {
            for (sum, row) in sums.iter_mut().zip(&rows) {
                let products = simd.dot_i8(quants(&row[i]), &x_quants[i]);
                let scale = scale(simd, &row[i]) * x_scales[i];
                *sum = simd.mul_add(products, simd.splat(scale), *sum);
            }
        }
        let mut results = [0.0; W];
        for (result, sum) in results.iter_mut().zip(sums) {
            *result = simd.sum(sum);
        }
        results
    }
}
