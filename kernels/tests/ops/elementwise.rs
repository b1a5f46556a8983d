//! Operations on rows and elements against the reference.

use gguf::TensorType;
use kernels::{Activation, Device, RopeKind, RopeParams, RopeScaling, RopeTable, Tensor, ops};

use crate::support::{
    Random, Tolerance, check_close, compare, devices, is_gpu, must, must_fail, roped, tensor,
    weight, zeros,
};

/// Rows and columns: single ones, either side of a vector and of a task.
const SHAPES: [[usize; 2]; 10] = [
    [1, 1],
    [1, 7],
    [2, 8],
    [3, 9],
    [5, 31],
    [4, 64],
    [2, 1000],
    [33, 257],
    [1, 8193],
    [40, 2048],
];

/// A result on a device and on the reference.
fn both(device: &Device, run: impl Fn(&Device) -> Tensor) -> (Vec<f32>, Vec<f32>) {
    (
        run(device).to_f32().expect("readable"),
        run(&Device::reference()).to_f32().expect("readable"),
    )
}

fn normed(device: &Device, [rows, cols]: [usize; 2], eps: f32) -> Tensor {
    let mut random = Random::new(cols as u64);
    let x = tensor(device, &[rows, cols], &random.numbers(rows * cols));
    let scale = weight(device, TensorType::F32, &[cols], &mut random);
    let mut out = zeros(device, &[rows, cols]);
    ops::rms_norm(&x, &scale, eps, &mut out).expect("shapes agree");
    out
}

/// The mean of squares is off by a rounding per element of a lane at most; the root halves that. Two products follow.
const NORM: Tolerance = Tolerance {
    abs: 0.0,
    rel: 1e-5,
};

#[test]
fn rms_norm_matches_reference() {
    for device in devices() {
        for shape in SHAPES {
            let (found, expected) = both(&device, |device| normed(device, shape, 1e-5));
            must(
                check_close(&found, &expected, NORM),
                &(device.description(), shape),
            );
        }
    }
}

#[test]
fn another_eps_is_seen() {
    let device = &devices()[1];
    let (found, _) = both(device, |device| normed(device, [2, 64], 1e-5));
    let (_, expected) = both(device, |device| normed(device, [2, 64], 5e-5));
    must_fail(
        check_close(&found, &expected, NORM),
        "eps five times as large",
    );
}

#[test]
fn additions_are_exact() {
    for device in devices() {
        for [rows, cols] in SHAPES {
            let sum = |device: &Device| {
                let mut random = Random::new(rows as u64);
                let mut x = tensor(device, &[rows, cols], &random.numbers(rows * cols));
                ops::add(
                    &mut x,
                    &tensor(device, &[rows, cols], &random.numbers(rows * cols)),
                )
                .expect("shapes agree");
                x
            };
            let (found, expected) = both(&device, sum);
            assert_eq!(found, expected, "{} {rows} x {cols}", device.description());
        }
    }
}

/// The exponential is within 2 units in the last place; a sum, a quotient and a product follow.
const SILU: Tolerance = Tolerance {
    abs: 1e-30,
    rel: 1e-6,
};

fn activated(device: &Device, [rows, cols]: [usize; 2]) -> Tensor {
    let mut random = Random::new(cols as u64);
    let gate: Vec<f32> = random
        .numbers(rows * cols)
        .iter()
        .map(|n| n * 60.0)
        .collect();
    let up = tensor(device, &[rows, cols], &random.numbers(rows * cols));
    let mut out = zeros(device, &[rows, cols]);
    ops::activate(
        &tensor(device, &[rows, cols], &gate),
        &up,
        &mut out,
        Activation::Silu,
    )
    .expect("shapes agree");
    out
}

#[test]
fn activate_matches_reference() {
    for device in devices() {
        for shape in SHAPES {
            let (found, expected) = both(&device, |device| activated(device, shape));
            must(
                check_close(&found, &expected, SILU),
                &(device.description(), shape),
            );
        }
    }
}

#[test]
fn a_coarser_exponential_is_seen() {
    let device = &devices()[1];
    let (mut found, expected) = both(device, |device| activated(device, [2, 64]));
    for value in &mut found {
        *value *= 1.0 + 2e-6;
    }
    must_fail(
        check_close(&found, &expected, SILU),
        "a relative error of 2e-6",
    );
}

struct RopeCase {
    params: RopeParams,
    factors: bool,
    rows: usize,
    n_heads: usize,
    head_dim: usize,
}

impl RopeCase {
    fn run(&self, device: &Device) -> Tensor {
        let mut random = Random::new(self.head_dim as u64);
        let factors: Vec<f32> = (0..self.params.dims / 2)
            .map(|i| 1.0 + i as f32 * 0.25)
            .collect();
        let table =
            RopeTable::new(self.params, self.factors.then_some(&factors)).expect("dims are even");
        let cols = self.n_heads * self.head_dim;
        let x = random.numbers(self.rows * cols);
        let positions: Vec<u32> = (0..self.rows).map(|_| random.bits() % 100_000).collect();
        let [q, k] = roped(device, &x, &positions, &table, self.n_heads);
        if !is_gpu(device) {
            // On a GPU rotated keys go to the store alone.
            let [q, k] = [&q, &k].map(|x| x.to_f32().expect("readable"));
            assert_eq!(q, k, "queries and keys turn alike");
        }
        q
    }
}

fn rope_cases() -> Vec<RopeCase> {
    let params = |dims, kind, scaling| RopeParams {
        dims,
        base: 500_000.0,
        kind,
        scaling,
        attn_factor: 1.0,
    };
    let linear = RopeScaling::Linear { factor: 4.0 };
    vec![
        RopeCase {
            params: params(2, RopeKind::Interleaved, RopeScaling::None),
            factors: false,
            rows: 1,
            n_heads: 1,
            head_dim: 2,
        },
        RopeCase {
            params: params(64, RopeKind::Interleaved, linear),
            factors: true,
            rows: 40,
            n_heads: 5,
            head_dim: 64,
        },
        RopeCase {
            params: params(64, RopeKind::Halves, RopeScaling::None),
            factors: true,
            rows: 3,
            n_heads: 2,
            head_dim: 80,
        },
        RopeCase {
            params: params(10, RopeKind::Interleaved, RopeScaling::None),
            factors: false,
            rows: 7,
            n_heads: 3,
            head_dim: 11,
        },
        RopeCase {
            params: params(0, RopeKind::Halves, RopeScaling::None),
            factors: false,
            rows: 2,
            n_heads: 1,
            head_dim: 3,
        },
    ]
}

/// Angles are the same numbers on all devices; each element is two products and a sum.
#[test]
fn rope_matches_reference() {
    for device in devices() {
        for (index, case) in rope_cases().iter().enumerate() {
            let (found, expected) = both(&device, |device| case.run(device));
            must(
                compare(&found, &expected, |_| 2e-7),
                &(device.description(), index),
            );
        }
    }
}

#[test]
fn the_other_kind_of_pairs_is_seen() {
    let device = &devices()[1];
    for mut case in rope_cases().into_iter().filter(|case| case.params.dims > 2) {
        let expected = case.run(&Device::reference()).to_f32().expect("readable");
        case.params.kind = match case.params.kind {
            RopeKind::Interleaved => RopeKind::Halves,
            RopeKind::Halves => RopeKind::Interleaved,
        };
        must_fail(
            compare(
                &case.run(device).to_f32().expect("readable"),
                &expected,
                |_| 2e-7,
            ),
            "the other kind of pairs",
        );
    }
}
