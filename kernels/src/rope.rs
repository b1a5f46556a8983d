//! Rotary position embedding: parameters and the table of inverse frequencies.

use crate::OpError;

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
                }
            })
            .collect();
        Ok(RopeTable {
            params,
            inverse_frequencies,
        })
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

/// `1 / base^(2 pair / dims)`: exponent and result in float32, the power itself exact to float32.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the result is wanted in float32"
)]
fn inverse_frequency(base: f32, pair: usize, dims: usize) -> f32 {
    let exponent = (2 * pair) as f32 / dims as f32;
    1.0 / f64::from(base).powf(f64::from(exponent)) as f32
}
