//! Rotary position embedding: parameters and the table of inverse frequencies.

use std::sync::OnceLock;

use crate::OpError;
use crate::hip::{Hip, HipError, View};

/// Which elements of a head form the pairs that are rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeKind {
    /// Pair `i` is elements `2i` and `2i + 1` (llama as GGUF has it).
    Interleaved,
    /// Pair `i` is elements `i` and `i + dims / 2` (qwen2, gpt-neox).
    Halves,
}

/// How positions are stretched beyond the length that the model was trained for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// Every angle is divided by `factor`.
    Linear {
        /// `{arch}.rope.scaling.factor`.
        factor: f32,
    },
    /// YaRN: pairs that turn slowly are divided by `factor`, those that turn fast are left alone, and a ramp leads from one to the other. Source: arXiv:2309.00071.
    Yarn {
        /// `{arch}.rope.scaling.factor`.
        factor: f32,
        /// Positions that the model was trained with before it was stretched.
        original_context: u32,
        /// Pairs that turn more often than this over those positions are left alone.
        beta_fast: f32,
        /// Pairs that turn less often are stretched in full.
        beta_slow: f32,
        /// Whether the ends of the ramp are rounded outward to whole pairs.
        truncates: bool,
    },
}

/// What a [`RopeTable`] is made from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeParams {
    /// Leading elements of a head that are rotated: even, at most the head's length. The rest passes through.
    pub dims: usize,
    /// Base of the frequencies, `{arch}.rope.freq_base`.
    pub base: f32,
    /// Which elements form a pair.
    pub kind: RopeKind,
    /// Stretching of positions.
    pub scaling: RopeScaling,
    /// Factor on both cosine and sine; 1 unless the scaling asks for another.
    pub attn_factor: f32,
}

/// Inverse frequencies of each pair, and how pairs lie in a head.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeTable {
    params: RopeParams,
    /// Angle per position of each pair: `[dims / 2]`.
    inverse_frequencies: Vec<f32>,
    on_gpu: OnGpu,
}

/// The frequencies once more in a GPU's memory, when one has asked for them. It adds nothing to what a table is.
#[derive(Debug, Clone, Default)]
struct OnGpu(OnceLock<View>);

impl PartialEq for OnGpu {
    fn eq(&self, _: &OnGpu) -> bool {
        true
    }
}

impl RopeTable {
    /// Computes the inverse frequencies in the order of float32 operations that transformers uses, as angles at far positions depend on the last bit: `1 / base^(2i / dims)`, then divided by
    /// the pair's factor, then by the linear scaling's.
    ///
    /// `factors`: `[dims / 2]`, the tensor `rope_freqs.weight` of Llama 3 files.
    ///
    /// # Errors
    /// [`OpError::Shape`] if `dims` is odd or `factors` has another length than `dims / 2`.
    pub fn new(params: RopeParams, factors: Option<&[f32]>) -> Result<RopeTable, OpError> {
        let shape_error = |operand, expected, found| OpError::Shape {
            op: "rope table",
            operand,
            expected: vec![expected],
            found: vec![found],
        };
        if !params.dims.is_multiple_of(2) {
            return Err(shape_error("dims", params.dims + 1, params.dims));
        }
        let n_pairs = params.dims / 2;
        if let Some(factors) = factors
            && factors.len() != n_pairs
        {
            return Err(shape_error("factors", n_pairs, factors.len()));
        }
        let inverse_frequencies = (0..n_pairs)
            .map(|pair| {
                let unscaled = inverse_frequency(params.base, pair, params.dims)
                    / factors.map_or(1.0, |factors| factors[pair]);
                match params.scaling {
                    RopeScaling::None => unscaled,
                    RopeScaling::Linear { factor } => unscaled / factor,
                    RopeScaling::Yarn { factor, .. } => {
                        let stretched = stretch_of(&params, pair);
                        unscaled / factor * stretched + unscaled * (1.0 - stretched)
                    }
                }
            })
            .collect();
        Ok(RopeTable {
            params,
            inverse_frequencies,
            on_gpu: OnGpu::default(),
        })
    }

    /// The frequencies in a GPU's memory: `[dims / 2]` f32. A table serves the GPU that asks first.
    pub(crate) fn on_gpu(&self, hip: &Hip) -> Result<&View, HipError> {
        if let Some(view) = self.on_gpu.0.get() {
            return Ok(view);
        }
        let view = hip.copied(bytemuck::cast_slice(&self.inverse_frequencies))?;
        Ok(self.on_gpu.0.get_or_init(|| view))
    }

    /// What the table was made from.
    #[must_use]
    pub fn params(&self) -> &RopeParams {
        &self.params
    }

    /// Angle per position of each pair, `[dims / 2]`.
    #[must_use]
    pub fn inverse_frequencies(&self) -> &[f32] {
        &self.inverse_frequencies
    }

    /// Writes cosine and sine of every pair's angle at `position`, both `[dims / 2]`.
    pub(crate) fn cos_sin(&self, position: u32, cos: &mut [f32], sin: &mut [f32]) {
        let position = position as f32;
        for ((frequency, cos), sin) in self.inverse_frequencies.iter().zip(cos).zip(sin) {
            let angle = frequency * position;
            *cos = angle.cos() * self.params.attn_factor;
            *sin = angle.sin() * self.params.attn_factor;
        }
    }

    /// Rotates the pairs of one head by angles of which cosine and sine are given.
    pub(crate) fn rotate(&self, head: &mut [f32], cos: &[f32], sin: &[f32]) {
        let rotate_pair = |a: &mut f32, b: &mut f32, cos: f32, sin: f32| {
            (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin)
        };
        let angles = cos.iter().zip(sin);
        match self.params.kind {
            RopeKind::Interleaved => {
                for ([a, b], (&cos, &sin)) in head.as_chunks_mut().0.iter_mut().zip(angles) {
                    rotate_pair(a, b, cos, sin);
                }
            }
            RopeKind::Halves => {
                let (first, second) = head.split_at_mut(self.inverse_frequencies.len());
                for ((a, b), (&cos, &sin)) in first.iter_mut().zip(second).zip(angles) {
                    rotate_pair(a, b, cos, sin);
                }
            }
        }
    }
}

/// How much of YaRN's stretching a pair gets: 0 for none, 1 for all. Between two pairs, found by how often they turn over the original context, it grows evenly.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the ends of the ramp are wanted in float32"
)]
fn stretch_of(params: &RopeParams, pair: usize) -> f32 {
    let RopeScaling::Yarn {
        original_context,
        beta_fast,
        beta_slow,
        truncates,
        ..
    } = params.scaling
    else {
        return 0.0;
    };
    let dims = params.dims as f64;
    let pair_that_turns = |times: f32| {
        let wave = f64::from(original_context) / (f64::from(times) * 2.0 * std::f64::consts::PI);
        dims * wave.ln() / (2.0 * f64::from(params.base).ln())
    };
    let (mut low, mut high) = (pair_that_turns(beta_fast), pair_that_turns(beta_slow));
    if truncates {
        (low, high) = (low.floor(), high.ceil());
    }
    let (low, mut high) = (low.max(0.0), high.min(dims - 1.0));
    if low == high {
        // So that the ramp has a slope.
        high += 0.001;
    }
    let ramp = (pair as f32 - low as f32) / (high as f32 - low as f32);
    ramp.clamp(0.0, 1.0)
}

/// `1 / base^(2 pair / dims)`: exponent and result in float32, the power itself exact to float32.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the result is wanted in float32"
)]
fn inverse_frequency(base: f32, pair: usize, dims: usize) -> f32 {
    let exponent = (2 * pair) as f32 / dims as f32;
    1.0 / f64::from(base).powf(f64::from(exponent)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By transformers 4.57 in float32, for heads of 32, a base of 10,000, a factor of 4 and 512 positions.
    #[test]
    fn yarn_stretches_as_others_do() {
        let check = |truncates, expected: [f32; 8]| {
            let params = RopeParams {
                dims: 32,
                base: 10_000.0,
                kind: RopeKind::Halves,
                scaling: RopeScaling::Yarn {
                    factor: 4.0,
                    original_context: 512,
                    beta_fast: 32.0,
                    beta_slow: 1.0,
                    truncates,
                },
                attn_factor: 1.0,
            };
            let table = RopeTable::new(params, None).expect("even");
            let found = table.inverse_frequencies();
            for (found, expected) in found[1..].iter().zip(expected) {
                assert!(
                    (found / expected - 1.0).abs() < 1e-5,
                    "{found} is not {expected}"
                );
            }
        };
        check(
            true,
            [
                0.562_341_33,
                0.282_346_22,
                0.139_721_94,
                0.067_857_14,
                0.032_133_788,
                0.014_682_004,
                0.006_350_998,
                0.002_5,
            ],
        );
        check(
            false,
            [
                0.562_341_33,
                0.301_406_47,
                0.147_340_88,
                0.070_398_636,
                0.032_582_846,
                0.014_383_359,
                0.005_873_113,
                0.002_5,
            ],
        );
    }
}
