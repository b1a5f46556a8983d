//! Random weights and rows, and what products of them must be.

use std::sync::Arc;

use gguf::TensorType;
use kernels::hip::View;
use kernels::hip::launch::matrix::{Rows, Weights};
use kernels::hip::launch::repack::repack;
use kernels::hip::launch::rowwise::write_forms;
use kernels::hip::launch::{Forms, Half, Int8};
use kernels::{Device, Owner, Tensor};

use crate::bench::{Bench, Outcome};

/// More than the caches of the largest GPU.
const ROUND_BYTES: usize = 300 << 20;
/// Outputs that are compared.
const CHECKED: usize = 16;

/// Rows in all forms.
pub(crate) struct Input {
    pub(crate) quants: View,
    pub(crate) blocks: View,
    pub(crate) half: View,
    pub(crate) scales: View,
    pub(crate) f32: View,
    pub(crate) numbers: Vec<f32>,
}

impl Input {
    pub(crate) fn rows(&self) -> Rows<'_> {
        Rows {
            f32: Some(&self.f32),
            int8: Some(Int8 {
                quants: &self.quants,
                blocks: &self.blocks,
            }),
        }
    }

    pub(crate) fn half(&self) -> Half<'_> {
        Half {
            numbers: &self.half,
            scales: &self.scales,
        }
    }
}

/// Copies of one random matrix.
pub(crate) struct Matrices {
    pub(crate) tensor_type: TensorType,
    pub(crate) shape: [usize; 2],
    pub(crate) copies: Vec<View>,
    /// The first rows, unpacked by the reference.
    pub(crate) head: Vec<f32>,
    pub(crate) bytes: usize,
}

impl Matrices {
    pub(crate) fn weights(&self, i: usize) -> Weights<'_> {
        let [n_out, n_in] = self.shape;
        Weights {
            view: &self.copies[i % self.copies.len()],
            tensor_type: self.tensor_type,
            n_out,
            n_in,
        }
    }
}

impl Bench {
    pub(crate) fn input(&self, rows: usize, n: usize) -> Outcome<Input> {
        let numbers: Vec<f32> = (0..rows * n)
            .map(|i| (noise(i) % 2001) as f32 / 1000.0 - 1.0)
            .collect();
        let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        let ((quants, blocks), (half, scales)) = (Int8::bytes(rows, n), Half::bytes(rows, n));
        let input = Input {
            quants: self.memory(quants)?,
            blocks: self.memory(blocks)?,
            half: self.memory(half)?,
            scales: self.memory(scales)?,
            f32: self.upload(&bytes)?,
            numbers,
        };
        let int8 = Int8 {
            quants: &input.quants,
            blocks: &input.blocks,
        };
        let out = Forms {
            f32: None,
            int8: Some(int8),
            half: Some(input.half()),
        };
        write_forms(&self.stream, &self.kernels, &input.f32, [rows, n], out)?;
        Ok(input)
    }

    pub(crate) fn matrices(&self, tensor_type: TensorType, shape: [usize; 2]) -> Outcome<Matrices> {
        let [n_out, n_in] = shape;
        let bytes = random_blocks(tensor_type, n_out * n_in);
        let head = bytes[..CHECKED * (bytes.len() / n_out)].to_vec();
        let len = head.len();
        let owner: Owner = Arc::new(head);
        let head = Tensor::from_owner(
            &Device::reference(),
            tensor_type,
            &[CHECKED, n_in],
            owner,
            0..len,
        )?;
        let first = self.upload(&bytes)?;
        let mut copies = Vec::new();
        for _ in 0..ROUND_BYTES.div_ceil(bytes.len()).max(2) {
            let view = self.memory(bytes.len())?;
            self.stream.copy(&first, &view)?;
            repack(
                &self.stream,
                &self.kernels,
                tensor_type,
                n_out * n_in,
                &view,
            )?;
            copies.push(view);
        }
        Ok(Matrices {
            tensor_type,
            shape,
            copies,
            head: head.to_f32()?,
            bytes: bytes.len(),
        })
    }

    /// That the first outputs of the first row are what they should be, to a hundredth of what the sum's terms make on average.
    pub(crate) fn check(&self, matrices: &Matrices, x: &Input, out: &View) -> Outcome<()> {
        let n_in = matrices.shape[1];
        let found = self.download(out, CHECKED)?;
        for (o, &found) in found.iter().enumerate() {
            let terms = || {
                matrices.head[o * n_in..][..n_in]
                    .iter()
                    .zip(&x.numbers)
                    .map(|(&w, &x)| f64::from(w) * f64::from(x))
            };
            let (expected, size) = (
                terms().sum::<f64>(),
                terms().map(|t| t * t).sum::<f64>().sqrt(),
            );
            if (f64::from(found) - expected).abs() > 0.05 * size {
                return Err(format!(
                    "{} {:?}: output {o} is {found}, not {expected}",
                    matrices.tensor_type, matrices.shape
                )
                .into());
            }
        }
        Ok(())
    }
}

/// Bits without order.
fn noise(i: usize) -> usize {
    let mixed = (i as u64 ^ 0x5bf0_3635).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    usize::try_from((mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 33).unwrap_or(0)
}

/// Random codes with small factors, so that no sum overflows.
fn random_blocks(tensor_type: TensorType, len: usize) -> Vec<u8> {
    let n_bytes = len / tensor_type.block_len() * tensor_type.block_bytes();
    let mut bytes: Vec<u8> = (0..n_bytes).map(|i| noise(i).to_le_bytes()[0]).collect();
    let small = 0x1c_u8; // f16 of about 0.004
    let high_bytes: &[usize] = match tensor_type {
        TensorType::Q4_1 | TensorType::Q5_1 | TensorType::Q4_K | TensorType::Q5_K => &[1, 3],
        TensorType::Q2_K => &[81, 83],
        TensorType::Q3_K => &[109],
        TensorType::Q6_K => &[209],
        TensorType::MXFP4 => &[],
        _ => &[1],
    };
    for block in bytes.chunks_exact_mut(tensor_type.block_bytes()) {
        for &byte in high_bytes {
            block[byte] = small;
        }
        match tensor_type {
            TensorType::MXFP4 => block[0] = 120,
            TensorType::BF16 => block[1] = 0x3c | (block[0] & 1) << 7,
            TensorType::F16 => block[1] = small | (block[0] & 1) << 7,
            _ => {}
        }
    }
    bytes
}
