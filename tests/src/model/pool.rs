//! Random blocks of each tensor type.

use std::io::{self, Write};

use gguf::TensorType;
use half::{bf16, f16};

use super::Random;

/// Encoded random blocks that tensors are cut from, each from another start.
///
/// Writing gigabytes block by block would be slow; a prime number of blocks keeps two rows of a matrix from being equal.
pub(super) struct Pool {
    bytes: Vec<u8>,
    block_bytes: usize,
}

const POOL_BLOCKS: usize = 32_749;

impl Pool {
    pub(super) fn matrix(tensor_type: TensorType, n_in: u64, seed: u64) -> Pool {
        let mut random = Random(seed ^ n_in.rotate_left(32));
        let amplitude = (3.0 / n_in as f32).sqrt();
        let mut bytes = Vec::new();
        for _ in 0..POOL_BLOCKS {
            encode_block(tensor_type, amplitude, &mut random, &mut bytes);
        }
        Pool {
            block_bytes: bytes.len() / POOL_BLOCKS,
            bytes,
        }
    }

    pub(super) fn norms(seed: u64) -> Pool {
        let mut random = Random(seed);
        let bytes = (0..POOL_BLOCKS)
            .flat_map(|_| (1.0 + 0.1 * random.uniform()).to_le_bytes())
            .collect();
        Pool {
            bytes,
            block_bytes: 4,
        }
    }

    pub(super) fn write(
        &self,
        out: &mut impl Write,
        len_bytes: u64,
        index: usize,
    ) -> io::Result<()> {
        let mut left = usize::try_from(len_bytes).map_err(io::Error::other)?;
        let mut start = (index * 7919) % POOL_BLOCKS * self.block_bytes;
        while left > 0 {
            let piece = left.min(self.bytes.len() - start);
            out.write_all(&self.bytes[start..start + piece])?;
            left -= piece;
            start = 0;
        }
        Ok(())
    }
}

/// Appends a block of elements that are about uniform between `-amplitude` and `amplitude`.
fn encode_block(tensor_type: TensorType, amplitude: f32, random: &mut Random, out: &mut Vec<u8>) {
    let factor = |number: f32| f16::from_f32(number).to_le_bytes();
    match tensor_type {
        TensorType::F32 => out.extend((amplitude * random.uniform()).to_le_bytes()),
        TensorType::F16 => out.extend(factor(amplitude * random.uniform())),
        TensorType::BF16 => out.extend(bf16::from_f32(amplitude * random.uniform()).to_le_bytes()),
        TensorType::Q8_0 => {
            out.extend(factor(amplitude / 127.0));
            out.extend((0..32).map(|_| (random.next() % 255) as u8 ^ 0x80));
        }
        TensorType::Q4_0 => {
            out.extend(factor(amplitude / 8.0));
            out.extend((0..16).map(|_| random.byte()));
        }
        // Scales of six bits, 32 ..= 63, and minima equal to them: with a factor eight times as large, elements are scale · (quant - 8).
        TensorType::Q4_K => {
            let unit = amplitude / (48.0 * 8.0);
            out.extend(factor(unit));
            out.extend(factor(8.0 * unit));
            let groups: [u8; 8] = std::array::from_fn(|_| 32 + random.byte() % 32);
            let first = |group: usize| groups[group] | (groups[group + 4] >> 4) << 6;
            let low = |group: usize| (groups[group] & 15) * 0x11;
            out.extend([0, 1, 2, 3, 0, 1, 2, 3].map(first));
            out.extend([4, 5, 6, 7].map(low));
            out.extend((0..128).map(|_| random.byte()));
        }
        TensorType::Q6_K => {
            out.extend((0..128 + 64).map(|_| random.byte()));
            out.extend((0..16).map(|_| 64 + random.byte() % 64));
            out.extend(factor(amplitude / (96.0 * 32.0)));
        }
        other => panic!("the model writer has no encoder for {}", other.name()),
    }
}
