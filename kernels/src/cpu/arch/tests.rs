use super::*;
use crate::cpu::simd::{CHUNK_LEN, exp};

/// Rows of fours of bytes, side by side, whole and with rows missing.
struct Interleaved<'a>(&'a [[u8; CHUNK_LEN]]);

impl Kernel for Interleaved<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let rows: Vec<&[u8; CHUNK_LEN]> = self.0.iter().collect();
        for n_rows in 1..=S::LANES {
            let mut found = vec![[0; 4]; CHUNK_LEN / 4 * S::LANES];
            simd.interleave(&rows[..n_rows], &mut found);
            for (q, lanes) in found.chunks(S::LANES).enumerate() {
                for (lane, row) in rows[..n_rows].iter().enumerate() {
                    assert_eq!(lanes[lane], row[4 * q..][..4], "four {q} of row {lane}");
                }
            }
        }
    }
}

#[test]
fn every_instruction_set_puts_rows_side_by_side() {
    let mut bits = bits(9);
    let rows: Vec<[u8; CHUNK_LEN]> = (0..16)
        .map(|_| std::array::from_fn(|_| bits.next().expect("endless")))
        .collect();
    for isa in Isa::available() {
        isa.run(Interleaved(&rows));
    }
}

/// A deterministic sequence of bits.
fn bits(seed: u64) -> impl Iterator<Item = u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::from_fn(move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        Some(state.to_le_bytes()[7])
    })
}

/// Every operation that gives one result per lane, over the same numbers; results by operation, then by number.
struct Lanewise([f32; 16]);

impl Kernel for Lanewise {
    type Output = Vec<Vec<f32>>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Vec<Vec<f32>> {
        let mut results = vec![Vec::new(); 8];
        for chunk in S::chunks(&self.0).0 {
            let (v, w) = (simd.load(chunk), simd.splat(3.0));
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
            for (results, vector) in results.iter_mut().zip(vectors) {
                let mut stored = S::partial(&[]);
                simd.store(vector, &mut stored);
                results.extend_from_slice(stored.as_ref());
            }
        }
        results
    }
}

/// Sums over all lanes of all vectors.
struct Sums([f32; 16]);

impl Kernel for Sums {
    type Output = [f32; 5];

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> [f32; 5] {
        let mut totals = [0.0; 5];
        for chunk in S::chunks(&self.0).0 {
            let v = simd.load(chunk);
            let twice = simd.add(v, v);
            let each = simd.sum_of_each([v, twice, simd.mul(v, v), simd.sub(twice, twice)]);
            let found = [simd.sum(v), each[0], each[1], each[2], each[3]];
            for (total, found) in totals.iter_mut().zip(found) {
                *total += found;
            }
        }
        totals
    }
}

#[test]
fn every_instruction_set_computes_the_same() {
    // Small whole numbers: all results are exact, fused or not.
    let numbers = [
        0.0, 1.0, -1.0, 2.0, 3.0, -5.0, 12.0, 100.0, 7.0, -7.0, 33.0, 21.0, -64.0, 8.0, 9.0, -100.0,
    ];
    let sum: f32 = numbers.iter().sum();
    let squares: f32 = numbers.iter().map(|n| n * n).sum();
    for isa in Isa::available() {
        let expected = Isa::Portable.run(Lanewise(numbers));
        assert_eq!(isa.run(Lanewise(numbers)), expected, "{}", isa.name());
        let sums = [sum, sum, 2.0 * sum, squares, 0.0];
        assert_eq!(isa.run(Sums(numbers)), sums, "{}", isa.name());
    }
}

/// Pairs of BF16 numbers: 32 of `w` and of `x`, sixteen sums of two products.
struct Bf16Dots {
    w: [[u8; 4]; 16],
    x: [[u8; 4]; 16],
}

impl Kernel for &Bf16Dots {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Vec<f32> {
        let mut results = Vec::new();
        for (w, x) in S::chunks(&self.w).0.iter().zip(S::chunks(&self.x).0) {
            let mut stored = S::partial(&[]);
            let sum = simd.dot_bf16(simd.splat(0.5), simd.load_quads(w), simd.load_quads(x));
            simd.store(sum, &mut stored);
            results.extend_from_slice(stored.as_ref());
        }
        results
    }
}

#[test]
fn every_instruction_set_multiplies_pairs_of_bf16_numbers() {
    // Whole numbers below 256 are BF16 numbers, and their products are exact.
    let mut bits = bits(31);
    let mut numbers = || -> [f32; 32] {
        std::array::from_fn(|_| f32::from(bits.next().expect("endless")) - 128.0)
    };
    let (w, x) = (numbers(), numbers());
    let packed = |numbers: &[f32; 32]| {
        let packed = numbers.map(|n| half::bf16::from_f32(n).to_le_bytes());
        bytemuck::cast::<[[u8; 2]; 32], [[u8; 4]; 16]>(packed)
    };
    let dots = Bf16Dots {
        w: packed(&w),
        x: packed(&x),
    };
    let expected: Vec<f32> = (0..16)
        .map(|lane| 0.5 + w[2 * lane] * x[2 * lane] + w[2 * lane + 1] * x[2 * lane + 1])
        .collect();
    for isa in Isa::available() {
        assert_eq!(isa.run_bf16(&dots), expected, "{}", isa.name());
    }
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
    for isa in Isa::available() {
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
    let odd = [
        0.0,
        -0.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MAX,
        f32::MIN,
        f32::MIN_POSITIVE,
        f32::NAN,
    ];
    let inputs = [odd, odd].concat();
    for isa in Isa::available() {
        let found = isa.run(Exp(&inputs));
        let expected = [1.0, 1.0, f32::INFINITY, 0.0, f32::INFINITY, 0.0, 1.0];
        assert_eq!(found[..7], expected, "{}", isa.name());
        assert_eq!(found[8..15], expected, "{}", isa.name());
        assert!(found[7].is_nan() && found[15].is_nan(), "{}", isa.name());
    }
}

/// Every operation on bytes, over one chunk.
#[derive(Clone)]
struct Bytes {
    w: [u8; CHUNK_LEN],
    x: [i8; CHUNK_LEN],
    scales: [i16; CHUNK_LEN / 16],
    wide: bool,
}

impl Kernel for &Bytes {
    type Output = Vec<i32>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Vec<i32> {
        if self.wide {
            all::<S, true>(simd, self)
        } else {
            all::<S, false>(simd, self)
        }
    }
}

#[inline(always)]
fn all<S: Simd, const WIDE: bool>(simd: S, bytes: &Bytes) -> Vec<i32> {
    let mut results = simd.dots_of_32::<WIDE>(&bytes.w, &bytes.x).to_vec();
    results.push(simd.scaled_dots_of_16::<WIDE>(&bytes.w, &bytes.x, &bytes.scales));
    // Sixteen lanes whatever their number in a vector; sums are below 2^24, so f32 holds them.
    let quads: &[[u8; 4]] = bytes.w.as_chunks().0;
    let pairs: Vec<[u8; 4]> = quads
        .iter()
        .map(|q| bytemuck::cast([-i16::from(q[0]) * 16, i16::from(q[1])]))
        .collect();
    for (chunk, pairs) in S::chunks(&quads[..16])
        .0
        .iter()
        .zip(S::chunks(&pairs[..16]).0)
    {
        let x: &[[i8; 4]] = bytes.x.as_chunks().0;
        let (w, start) = (simd.load_quads(chunk), simd.splat_i32(-7));
        let quad = simd.dot_quads::<WIDE>(start, w, x[5]);
        let pairs = simd.load_quads(pairs);
        let pair = simd.dot_pairs(start, pairs, [x[6][0].into(), -2000]);
        let mixed = simd.sub_i32(simd.add_i32(quad, pair), simd.mul_i32(start, start));
        let halves = [simd.half::<false>(pairs), simd.half::<true>(pairs)];
        for vector in [quad, pair, mixed, halves[0], halves[1]] {
            let mut stored = S::partial(&[]);
            simd.store(simd.to_f32(vector), &mut stored);
            #[expect(clippy::cast_possible_truncation, reason = "whole numbers below 2^24")]
            results.extend(stored.as_ref().iter().map(|&n| n as i32));
        }
    }
    let table = std::array::from_fn(|i| bytes.w[i]);
    let (first, second) = (
        &bytes.w[64..].as_chunks().0[0],
        &bytes.w[96..].as_chunks().0[0],
    );
    let (first, second) = (simd.load_bytes(first), simd.load_bytes(second));
    let sixteen = bytes.w.as_chunks().0[9];
    for vector in [
        simd.look_up(&table, simd.field(first, 0, 15, 0)),
        simd.nibbles(&sixteen),
        simd.bits([sixteen[0], sixteen[1], sixteen[2], sixteen[3]], 0x10),
        simd.field(first, 4, 15, 0),
        simd.field(first, 0, 0x0c, 2),
        simd.field(second, 7, 1, 4),
        simd.or(first, second),
    ] {
        let mut stored = [0; 32];
        simd.store_bytes(vector, &mut stored);
        results.extend(stored.map(i32::from));
    }
    let eight = std::array::from_fn(|i| sixteen[i]);
    results.extend(simd.twice(eight).map(i32::from));
    let halves = std::array::from_fn(|i| [sixteen[i], sixteen[i + 8] & 0xbb]);
    results.extend(simd.f16s(halves).map(|n| n.to_bits().cast_signed()));
    results
}

/// Operations of [`all`] that give one result per lane.
const LANEWISE: usize = 5;

/// Results of a kernel come by vector: this sorts the part that does by operation.
fn by_operation(results: Vec<i32>, lanes: usize) -> Vec<i32> {
    let (head, rest) = results.split_at(9);
    let (vectors, tail) = rest.split_at(16 * LANEWISE);
    let mut sorted = head.to_vec();
    for operation in 0..LANEWISE {
        for group in vectors.chunks(LANEWISE * lanes) {
            sorted.extend_from_slice(&group[operation * lanes..][..lanes]);
        }
    }
    sorted.extend_from_slice(tail);
    sorted
}

struct Lanes;

impl Kernel for Lanes {
    type Output = usize;

    fn run<S: Simd>(self, _: S) -> usize {
        S::LANES
    }
}

#[test]
fn bytes_are_multiplied_exactly() {
    let extreme = |w: u8, x: i8, scale: i16| Bytes {
        w: [w; CHUNK_LEN],
        x: [x; CHUNK_LEN],
        scales: [scale; CHUNK_LEN / 16],
        wide: w > 127,
    };
    let random = |seed: u64, wide: bool| {
        let mut bytes = bits(seed);
        let mut next = || bytes.next().expect("endless");
        Bytes {
            w: std::array::from_fn(|_| if wide { next() } else { next() & 127 }),
            x: std::array::from_fn(|_| next().cast_signed().max(-127)),
            scales: std::array::from_fn(|_| i16::from(next().cast_signed())),
            wide,
        }
    };
    let mut cases = vec![
        extreme(127, 127, -128),
        extreme(127, -127, 127),
        extreme(255, 127, -32),
        extreme(255, -127, 31),
        extreme(128, -127, 31),
        extreme(0, -127, -128),
    ];
    cases.extend((0..20).map(|seed| random(seed, seed % 2 == 0)));
    for case in &cases {
        let expected = by_operation(Isa::Portable.run(case), Isa::Portable.run(Lanes));
        for isa in Isa::available() {
            let found = by_operation(isa.run(case), isa.run(Lanes));
            assert_eq!(found, expected, "{}", isa.name());
        }
    }
}

#[test]
fn the_portable_sums_are_right() {
    let case = Bytes {
        w: std::array::from_fn(|i| u8::try_from(i).expect("a byte")),
        x: std::array::from_fn(|i| i8::try_from(i % 7).expect("small") - 3),
        scales: std::array::from_fn(|i| i16::try_from(i).expect("small") - 5),
        wide: true,
    };
    let product = |i: usize| i32::from(case.w[i]) * i32::from(case.x[i]);
    let found = Isa::Portable.run(&case);
    let blocks: Vec<i32> = (0..8)
        .map(|b| (32 * b..32 * b + 32).map(product).sum())
        .collect();
    assert_eq!(found[..8], blocks);
    let scaled: i32 = (0..256)
        .map(|i| product(i) * i32::from(case.scales[i / 16]))
        .sum();
    assert_eq!(found[8], scaled);
}
