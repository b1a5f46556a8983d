//! Q5_K: 8 groups of 32 with scales and minima of six bits, five bits per element.

use super::blocks::{Chunk, Large, LargeScales, Quantised};
use super::{Simd, add_bits, four_bits, six_bit_scales};

pub(crate) struct Q5K;

impl Quantised for Q5K {
    type Family = Large<false, true, 32>;

    const BLOCK_BYTES: usize = 2 + 2 + 12 + 32 + 128;

    #[inline(always)]
    fn unpack<S: Simd>(simd: S, packed: &[u8], chunk: &mut Chunk<LargeScales>) {
        let block: &[u8; Self::BLOCK_BYTES] = packed.try_into().expect("one block");
        let (head, rest) = block.split_first_chunk().expect("its beginning");
        let (fifths, nibbles) = rest.split_first_chunk::<32>().expect("its fifth bits");
        six_bit_scales(simd, head, &mut chunk.scales);
        four_bits(
            simd,
            nibbles.first_chunk().expect("its nibbles"),
            &mut chunk.quants,
        );
        add_bits(simd, fifths, 4, &mut chunk.quants);
    }
}
