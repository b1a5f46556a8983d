use std::f32::consts::LOG2_E;

use super::row::{BLOCK, LANES};

/// `e^x` for `x` at most 0, within two units in the last place; 0 below -87, where f32 ends, and for NaN.
///
/// `x = n ln 2 + r` with |r| at most half of ln 2 (Cody and Waite's reduction), then Taylor's series of `e^r` to the seventh power, whose rest is below 6e-9, times `2^n`. No branch and no table, so that a loop over it becomes vector code.
#[inline]
pub(super) fn exp(x: f32) -> f32 {
    /// Adding it leaves a number's nearest integer in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let shifted = x * LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN_2_HIGH) - n * LN_2_LOW;
    let mut series = 1.0 / 5040.0;
    for factor in [
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        series = series * r + factor;
    }
    let power = f32::from_bits(series.to_bits().wrapping_add(shifted.to_bits() << 23));
    if x > -87.0 { power } else { 0.0 }
}

/// Of each block of a row: the sum of `e^((logit - peak) / temperature)`. No logit is above `peak`.
pub(super) fn block_sums(
    row: &[f32],
    peak: f32,
    temperature: f32,
) -> impl Iterator<Item = f64> + '_ {
    row.chunks(BLOCK).map(move |logits| {
        let share = |logit: f32| exp((logit - peak) / temperature);
        let mut lanes = [0.0f32; LANES];
        let (rows, rest) = logits.as_chunks::<LANES>();
        for row in rows {
            for (lane, &logit) in lanes.iter_mut().zip(row) {
                *lane += share(logit);
            }
        }
        let rest = rest.iter().map(|&logit| share(logit));
        lanes.into_iter().chain(rest).map(f64::from).sum()
    })
}

/// The sum of `e^(logit - peak)` over a row.
pub(super) fn sum(row: &[f32], peak: f32) -> f64 {
    block_sums(row, peak, 1.0).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_exponential() {
        let mut worst = 0.0f64;
        for step in 0..2_000_000u32 {
            let x = -87.0 * step as f32 / 2e6;
            let truth = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) - truth).abs() / truth);
        }
        assert!(worst < 2.4e-7, "relative error {worst:e}");
        let ends = [0.0, -0.0, -87.5, f32::NEG_INFINITY, f32::NAN, f32::MIN];
        assert_eq!(ends.map(exp), [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn sums_of_odd_lengths() {
        for len in [0, 1, 15, 16, 17, 255, 256, 257, 1000] {
            let row: Vec<f32> = (0..len).map(|i| -((i * 37 % 101) as f32) / 9.0).collect();
            let truth: f64 = row.iter().map(|&x| f64::from(x / 0.7).exp()).sum();
            let found: f64 = block_sums(&row, 0.0, 0.7).sum();
            assert!((found - truth).abs() <= 1e-6 * truth, "{len}");
        }
    }
}
