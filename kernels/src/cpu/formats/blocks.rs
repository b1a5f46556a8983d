//! Products of bytes: activations quantised to int8, weights that unpack to unsigned bytes with scales beside them.
//!
//! # The order of a sum
//! Within a block (32 or 256 elements, as the tensor type has it) everything is integers and exact, so any order will do. A block's sum is multiplied with the product of both scales, rounded, and
//! added to one of [`CHAINS`] f32 sums: block `b` to chain `b mod 8`, in order; chains are added up in pairs at the end. Products and sums are rounded apart, never fused. So a quantised product
//! is the same bits in every kernel on every instruction set.
//!
//! # Two families
//! [`Small`]: blocks of 32 with scales (and minima) in f32; activations get a scale per 32. [`Large`]: blocks of 256 in groups with small integer scales, which stay integers until the block's end;
//! activations get a scale per 256, and a minimum meets the sum of its group's activations.

use bytemuck::Pod;

use super::{Row, RowMut, RowSize};
use crate::cpu::simd::{CHUNK_LEN, Simd};

mod large;
mod small;

pub(crate) use large::{Large, LargeScales};
pub(crate) use small::{Small, SmallScales, eight_blocks, f16_scales};

/// f32 sums of a product.
pub(crate) const CHAINS: usize = 8;

/// A quantised tensor type on the processor.
pub(crate) trait Quantised: Send + Sync + 'static {
    type Family: Family;

    /// Bytes of a block.
    const BLOCK_BYTES: usize;

    /// Bytes of 256 elements.
    const CHUNK_BYTES: usize = CHUNK_LEN / Self::Family::X_BLOCK * Self::BLOCK_BYTES;

    /// What an unpacked byte is above the weight's own integer; in [`Large`] it is folded into the minima.
    const OFFSET: i32 = 0;

    /// Unpacks 256 elements, [`Quantised::CHUNK_BYTES`] of the file.
    fn unpack<S: Simd>(simd: S, packed: &[u8], chunk: &mut Chunk<Scales<Self>>);
}

/// What stands beside the bytes of a chunk.
pub(crate) type Scales<Q> = <<Q as Quantised>::Family as Family>::Scales;

/// 256 unpacked elements of a weight row.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Chunk<T> {
    pub(crate) quants: [u8; CHUNK_LEN],
    pub(crate) scales: T,
}

impl<T: Default> Default for Chunk<T> {
    fn default() -> Chunk<T> {
        Chunk {
            quants: [0; CHUNK_LEN],
            scales: T::default(),
        }
    }
}

/// A prepared row of activations.
pub(crate) struct XRow<'a, F: Family> {
    quants: &'a [[i8; CHUNK_LEN]],
    scales: &'a [F::XScales],
    sums: &'a [F::XSums],
}

impl<'a, F: Family> XRow<'a, F> {
    /// The first `n_chunks` chunks of a row: where a loop ends there too, no access is checked in it.
    #[inline(always)]
    pub(crate) fn new(row: Row<'a>, n_chunks: usize) -> XRow<'a, F> {
        XRow {
            quants: &row.bytes.as_chunks().0[..n_chunks],
            scales: &bytemuck::cast_slice(row.floats)[..n_chunks],
            sums: &bytemuck::cast_slice(row.sums)[..n_chunks],
        }
    }

    #[inline(always)]
    pub(crate) fn chunk(&self, index: usize) -> XChunk<'a, F> {
        XChunk {
            quants: &self.quants[index],
            scales: &self.scales[index],
            sums: &self.sums[index],
        }
    }
}

/// 256 activations.
pub(crate) struct XChunk<'a, F: Family> {
    pub(crate) quants: &'a [i8; CHUNK_LEN],
    /// One per block.
    pub(crate) scales: &'a F::XScales,
    /// Sums of the bytes, one per block or group.
    pub(crate) sums: &'a F::XSums,
}

impl<F: Family> XChunk<'_, F> {
    /// Four neighbouring bytes.
    #[inline(always)]
    fn quad(&self, q: usize) -> [i8; 4] {
        let quads: &[[i8; 4]; CHUNK_LEN / 4] = bytemuck::cast_ref(self.quants);
        quads[q]
    }
}

/// Bytes of the scales that are interleaved as the weights' bytes are.
pub(crate) const SCALE_BYTES: usize = 64;

/// A chunk of as many weight rows as a vector has lanes, row `l` in lane `l`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TileChunk<'a> {
    /// `[CHUNK_LEN / 4][lanes]` fours of neighbouring bytes.
    pub(crate) quads: &'a [[u8; 4]],
    /// `[SCALE_BYTES / 4][lanes]`, of [`Family::scale_bytes`].
    pub(crate) scales: &'a [[u8; 4]],
    /// `[2][lanes]`, of [`Family::factors`].
    pub(crate) factors: &'a [f32],
}

/// The arithmetic that tensor types share.
pub(crate) trait Family: Sized + 'static {
    /// What stands beside the bytes of a chunk of a weight row.
    type Scales: Copy + Default;

    /// Activations that share a scale, and those that share a sum.
    const X_BLOCK: usize;
    const X_SUM: usize;

    /// Scales of 256 activations, and sums of them.
    type XScales: Pod;
    type XSums: Pod;

    /// Adds one chunk's products to the chains. `index`: number of the chunk in its row.
    fn multiply<S: Simd>(
        simd: S,
        w: &Chunk<Self::Scales>,
        x: XChunk<'_, Self>,
        place: Place,
        chains: &mut [f32; CHAINS],
    );

    /// What of a chunk's scales is interleaved as its bytes are.
    fn scale_bytes(scales: &Self::Scales) -> &[u8; SCALE_BYTES];

    /// What stands beside these.
    fn factors(scales: &Self::Scales) -> [f32; 2];

    /// [`Family::multiply`] of all lanes with several rows of activations.
    fn multiply_tile<S: Simd, const X: usize>(
        simd: S,
        tile: TileChunk<'_>,
        x: &[XChunk<'_, Self>; X],
        place: Place,
        chains: &mut [[S::F32; X]; CHAINS],
    );
}

/// Where a chunk stands, and what its bytes are above the weights.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// Number of the chunk in its row.
    pub(crate) index: usize,
    /// [`Quantised::OFFSET`].
    pub(crate) offset: i32,
}

/// Size of a prepared row of `n_in` activations.
pub(crate) fn activation_size<F: Family>(n_in: usize) -> RowSize {
    let n_in = n_in.next_multiple_of(CHUNK_LEN);
    RowSize {
        floats: n_in / F::X_BLOCK,
        bytes: n_in,
        sums: n_in / F::X_SUM,
    }
}

/// Quantises a row of activations.
#[inline(always)]
pub(crate) fn prepare<F: Family>(x: &[f32], row: RowMut<'_>) {
    let (bytes, padding) = row.bytes.split_at_mut(x.len());
    padding.fill(0);
    row.floats.fill(0.0);
    let blocks = x.chunks(F::X_BLOCK).zip(bytes.chunks_mut(F::X_BLOCK));
    for ((x, bytes), scale) in blocks.zip(&mut *row.floats) {
        *scale = quantize(x, bytes);
    }
    for (bytes, sum) in row.bytes.chunks_exact(F::X_SUM).zip(&mut *row.sums) {
        *sum = bytes.iter().map(|&byte| i16::from(byte)).sum();
    }
}

/// Chains added up: in pairs, and pairs in pairs.
#[inline(always)]
pub(crate) fn total([a, b, c, d, e, f, g, h]: [f32; CHAINS]) -> f32 {
    ((a + b) + (c + d)) + ((e + f) + (g + h))
}

/// [`total`] of each lane.
#[inline(always)]
pub(crate) fn total_lanes<S: Simd>(simd: S, [a, b, c, d, e, f, g, h]: [S::F32; CHAINS]) -> S::F32 {
    let first = simd.add(simd.add(a, b), simd.add(c, d));
    simd.add(first, simd.add(simd.add(e, f), simd.add(g, h)))
}

/// Quantises numbers to -127 ..= 127 and returns their scale, the largest magnitude / 127. The scale is NaN if any number is not finite: so is every product then, as it would be without
/// quantising.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the value was clamped to what a byte holds"
)]
fn quantize(numbers: &[f32], quants: &mut [i8]) -> f32 {
    const STRIDE: usize = 16;
    let mut largest = [0.0_f32; STRIDE];
    // Zero for finite numbers, NaN for others.
    let mut not_finite = [0.0_f32; STRIDE];
    for numbers in numbers.as_chunks::<STRIDE>().0 {
        for i in 0..STRIDE {
            let magnitude = numbers[i].abs();
            largest[i] = if magnitude > largest[i] {
                magnitude
            } else {
                largest[i]
            };
            not_finite[i] += numbers[i] * 0.0;
        }
    }
    let largest = largest.into_iter().fold(0.0, f32::max);
    let not_finite: f32 = not_finite.into_iter().sum();
    let per_unit = if largest > 0.0 { 127.0 / largest } else { 0.0 };
    for (quant, &value) in quants.iter_mut().zip(numbers) {
        // Adding and taking off 1.5 · 2^23 rounds to the nearest whole number, ties to even.
        let rounded = (value * per_unit).clamp(-127.0, 127.0) + 12_582_912.0 - 12_582_912.0;
        *quant = rounded as i8;
    }
    largest / 127.0 + not_finite
}
