//! Instruction sets: one thin file each, all with the same operations.

mod portable;
#[cfg(target_arch = "x86_64")]
mod x86_64;

use super::simd::{Kernel, Simd};
use portable::Portable;

/// The instruction set that a device uses.
#[derive(Debug, Clone, Copy)]
pub(super) enum Isa {
    /// What the compiler may assume of every machine of this architecture.
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2(x86_64::Avx2),
}

impl Isa {
    /// The best that this machine has.
    pub(super) fn detect() -> Isa {
        #[cfg(target_arch = "x86_64")]
        if let Some(avx2) = x86_64::Avx2::new() {
            return Isa::Avx2(avx2);
        }
        Isa::Portable
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => "avx2+fma+f16c",
        }
    }

    /// Runs a kernel with these instructions.
    pub(super) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            Isa::Portable => Portable.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(avx2) => avx2.run(kernel),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::simd::exp;

    /// Every operation over the same eight lanes, as numbers.
    struct Everything([f32; 8]);

    impl Kernel for Everything {
        type Output = Vec<f32>;

        #[inline(always)]
        fn run<S: Simd>(self, simd: S) -> Vec<f32> {
            let (chunks, _) = S::chunks(&self.0);
            let mut results = Vec::new();
            for chunk in chunks {
                let v = simd.load(chunk);
                let w = simd.splat(3.0);
                let vectors = [
                    simd.add(v, w),
                    simd.sub(v, w),
                    simd.mul(v, w),
                    simd.div(v, w),
                    simd.mul_add(v, w, w),
                    simd.max(v, w),
                    simd.min(v, w),
                    simd.exp2_whole(v),
                ];
                for vector in vectors {
                    let mut stored = S::partial(&[]);
                    simd.store(vector, &mut stored);
                    results.extend_from_slice(stored.as_ref());
                }
                results.push(simd.sum(v));
                results.extend(simd.sum_of_each([v, w, v, simd.mul(v, v)]));
            }
            results
        }
    }

    #[test]
    fn every_instruction_set_computes_the_same() {
        // Small whole numbers: all results are exact, fused or not.
        let lanes = [0.0, 1.0, -1.0, 2.0, 3.0, -5.0, 12.0, 100.0];
        assert_eq!(
            Isa::detect().run(Everything(lanes)),
            Isa::Portable.run(Everything(lanes))
        );
    }

    struct Exp<'a>(&'a [f32]);

    impl Kernel for Exp<'_> {
        type Output = Vec<f32>;

        #[inline(always)]
        fn run<S: Simd>(self, simd: S) -> Vec<f32> {
            let mut results = Vec::new();
            for chunk in S::chunks(self.0).0 {
                let mut stored = S::partial(&[]);
                simd.store(exp(simd, simd.load(chunk)), &mut stored);
                results.extend_from_slice(stored.as_ref());
            }
            results
        }
    }

    #[test]
    fn exp_is_close_everywhere() {
        let inputs: Vec<f32> = (0..64_000)
            .map(|i| -110.0 + i as f32 * (205.0 / 64_000.0))
            .collect();
        for isa in [Isa::Portable, Isa::detect()] {
            for (&x, &found) in inputs.iter().zip(&isa.run(Exp(&inputs))) {
                let expected = x.exp();
                let tolerance = 3e-7 * expected + 1.5e-45;
                assert!(
                    found == expected || (found - expected).abs() <= tolerance,
                    "{} exp({x}) = {found}, expected {expected}",
                    isa.name()
                );
            }
        }
    }

    #[test]
    fn exp_of_odd_values() {
        let inputs = [
            0.0,
            -0.0,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::MAX,
            f32::MIN,
            f32::MIN_POSITIVE,
            f32::NAN,
        ];
        for isa in [Isa::Portable, Isa::detect()] {
            let found = isa.run(Exp(&inputs));
            assert_eq!(
                found[..7],
                [1.0, 1.0, f32::INFINITY, 0.0, f32::INFINITY, 0.0, 1.0],
                "{}",
                isa.name()
            );
            assert!(found[7].is_nan(), "{}", isa.name());
        }
    }

    struct DotI8<'a>(&'a [i8; 32], &'a [i8; 32]);

    impl Kernel for DotI8<'_> {
        type Output = f32;

        #[inline(always)]
        fn run<S: Simd>(self, simd: S) -> f32 {
            simd.sum(simd.dot_i8(self.0, self.1))
        }
    }

    #[test]
    fn byte_products_do_not_saturate() {
        for isa in [Isa::Portable, Isa::detect()] {
            for (w, x) in [
                (-128, 127),
                (-128, -127),
                (127, 127),
                (127, -127),
                (0, -127),
                (-128, 0),
            ] {
                let expected = 32 * i32::from(w) * i32::from(x);
                assert_eq!(
                    isa.run(DotI8(&[w; 32], &[x; 32])),
                    expected as f32,
                    "{} {w} x {x}",
                    isa.name()
                );
            }
        }
    }
}
