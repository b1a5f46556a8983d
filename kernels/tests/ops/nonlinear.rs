//! Non-linear functions, factors and norms besides the usual one, against the reference and against numbers of another library.

use gguf::TensorType;
use kernels::{Activation, Device, Tensor, ops};

use crate::support::{
    Random, Tolerance, all_devices, bits, check_close, devices, is_gpu, must, must_fail, refused,
    tensor, weight, zeros,
};

const ACTIVATIONS: [Activation; 5] = [
    Activation::Silu,
    Activation::GeluTanh,
    Activation::Gelu,
    Activation::ReluSquared,
    Activation::Clamped,
];

/// Single elements, either side of a vector and of a task.
const LENGTHS: [usize; 6] = [1, 7, 8, 31, 1000, 8193];

/// Exponential and quotient are within a few units in the last place; the error function is within 1.5e-7 of the true one, and a magnitude of at most 8 multiplies it.
const CLOSE: Tolerance = Tolerance {
    abs: 1.5e-6,
    rel: 1e-6,
};

fn numbers(len: usize) -> Vec<f32> {
    let mut random = Random::new(len as u64);
    random.numbers(len).iter().map(|n| 8.0 * n).collect()
}

fn alone(device: &Device, numbers: &[f32], activation: Activation) -> Vec<f32> {
    let mut x = tensor(device, &[1, numbers.len()], numbers);
    ops::activate_alone(&mut x, activation).expect("owned");
    x.to_f32().expect("readable")
}

#[test]
fn activations_match_the_reference() {
    for device in devices() {
        for activation in ACTIVATIONS {
            for len in LENGTHS {
                let numbers = numbers(len);
                let found = alone(&device, &numbers, activation);
                let expected = alone(&Device::reference(), &numbers, activation);
                must(
                    check_close(&found, &expected, CLOSE),
                    &(device.description(), activation, len),
                );
            }
        }
    }
}

/// By PyTorch 2.11 in float64.
#[test]
fn gelu_is_what_others_compute() {
    let x = [-9.0, -3.0, -1.0, -0.5, -0.1, 0.0, 0.1, 0.5, 1.0, 3.0, 9.0];
    let exact = [
        0.0,
        -0.004_049_694,
        -0.158_655_25,
        -0.154_268_77,
        -0.046_017_216,
        0.0,
        0.053_982_783,
        0.345_731_23,
        0.841_344_8,
        2.995_950_3,
        9.0,
    ];
    let by_tanh = [
        0.0,
        -0.003_637_392,
        -0.158_808_01,
        -0.154_286,
        -0.046_017_25,
        0.0,
        0.053_982_75,
        0.345_714,
        0.841_192,
        2.996_362_6,
        9.0,
    ];
    for device in all_devices() {
        let what = device.description();
        let gelu = alone(&device, &x, Activation::Gelu);
        must(check_close(&gelu, &exact, CLOSE), &what);
        let tanh = alone(&device, &x, Activation::GeluTanh);
        must(check_close(&tanh, &by_tanh, CLOSE), &what);
        must_fail(check_close(&tanh, &exact, CLOSE), "the approximation");
    }
}

#[test]
fn a_gate_lets_the_other_half_through() {
    for device in all_devices() {
        for activation in ACTIVATIONS {
            let (gate, up) = (numbers(31), numbers(32)[1..].to_vec());
            let [gate_rows, up_rows] = [&gate, &up].map(|x| tensor(&device, &[1, 31], x));
            let mut out = zeros(&device, &[1, 31]);
            ops::activate(&gate_rows, &up_rows, &mut out, activation).expect("shapes agree");
            let through = up.iter().map(|&up| match activation {
                Activation::Clamped => up.clamp(-7.0, 7.0) + 1.0,
                _ => up,
            });
            let active = alone(&device, &gate, activation).into_iter();
            let expected: Vec<f32> = active.zip(through).map(|(a, b)| a * b).collect();
            let found = out.to_f32().expect("readable");
            if is_gpu(&device) {
                must(
                    check_close(&found, &expected, CLOSE),
                    &(device.description(), activation),
                );
            } else {
                assert_eq!(found, expected, "{activation:?}");
            }
        }
    }
}

#[test]
fn factors_and_bounds() {
    for device in all_devices() {
        let numbers = numbers(8193);
        let mut x = tensor(&device, &[1, 8193], &numbers);
        ops::scale(&mut x, -0.25).expect("owned");
        let scaled: Vec<f32> = numbers.iter().map(|n| n * -0.25).collect();
        assert_eq!(x.to_f32().expect("readable"), scaled);
        ops::soft_cap(&mut x, 1.5).expect("owned");
        let capped: Vec<f32> = scaled.iter().map(|n| 1.5 * (n / 1.5).tanh()).collect();
        let found = x.to_f32().expect("readable");
        if is_gpu(&device) {
            must(check_close(&found, &capped, CLOSE), &device.description());
        } else {
            assert_eq!(found, capped, "{}", device.description());
        }
        ops::clear(&mut x).expect("owned");
        assert_eq!(x.to_f32().expect("readable"), [0.0; 8193]);

        let mut rows = tensor(&device, &[2, 2], &[1.0, 2.0, 3.0, 4.0]);
        let gate = tensor(&device, &[2, 1], &[0.0, 200.0]);
        ops::gate_rows(&mut rows, &gate).expect("shapes agree");
        assert_eq!(rows.to_f32().expect("readable"), [0.5, 1.0, 3.0, 4.0]);
        let wrong = tensor(&device, &[1, 2], &[0.0, 0.0]);
        refused(
            ops::gate_rows(&mut rows, &wrong),
            "gate_rows: gate has shape [1, 2], expected [2, 1]",
        );
    }
}

/// Rows and columns of a norm.
const SHAPES: [[usize; 2]; 5] = [[1, 1], [2, 8], [3, 9], [5, 31], [33, 257]];

/// Mean and variance are off by a rounding for each element of a lane at most.
const NORM: Tolerance = Tolerance {
    abs: 2e-6,
    rel: 1e-5,
};

fn layer_normed(device: &Device, [rows, cols]: [usize; 2], biased: bool) -> Vec<f32> {
    let mut random = Random::new(cols as u64);
    // Far from zero, so that taking the mean off matters.
    let x: Vec<f32> = random
        .numbers(rows * cols)
        .iter()
        .map(|n| n + 3.0)
        .collect();
    let x = tensor(device, &[rows, cols], &x);
    let [scale, bias] = [0, 1].map(|_| weight(device, TensorType::F32, &[cols], &mut random));
    let mut out = zeros(device, &[rows, cols]);
    ops::layer_norm(&x, &scale, biased.then_some(&bias), 1e-2, &mut out).expect("shapes agree");
    out.to_f32().expect("readable")
}

#[test]
fn layer_norm_matches_the_reference() {
    for device in devices() {
        for shape in SHAPES {
            for biased in [true, false] {
                let found = layer_normed(&device, shape, biased);
                let expected = layer_normed(&Device::reference(), shape, biased);
                must(
                    check_close(&found, &expected, NORM),
                    &(device.description(), shape, biased),
                );
            }
        }
        must_fail(
            check_close(
                &layer_normed(&device, [2, 8], false),
                &layer_normed(&Device::reference(), [2, 8], true),
                NORM,
            ),
            "a missing bias",
        );
    }
}

#[test]
fn layer_norm_of_a_known_row() {
    for device in all_devices() {
        let x = tensor(&device, &[1, 4], &[1.0, 3.0, 5.0, 7.0]);
        let ones = tensor(&device, &[4], &[1.0; 4]);
        let mut out = zeros(&device, &[1, 4]);
        // Mean 4, variance 5.
        ops::layer_norm(&x, &ones, Some(&ones), 4.0, &mut out).expect("shapes agree");
        let expected = [0.0, 2.0 / 3.0, 4.0 / 3.0, 2.0];
        let found = out.to_f32().expect("readable");
        must(check_close(&found, &expected, NORM), &device.description());
    }
}

#[test]
fn heads_are_normalised_as_rows_are() {
    for device in all_devices() {
        let mut random = Random::new(5);
        let (rows, n_heads, head_dim) = (3, 5, 33);
        let numbers = random.numbers(rows * n_heads * head_dim);
        let scale = weight(&device, TensorType::F32, &[head_dim], &mut random);
        let mut heads = tensor(&device, &[rows, n_heads * head_dim], &numbers);
        ops::head_norm(&mut heads, &scale, 1e-3).expect("shapes agree");
        let as_rows = tensor(&device, &[rows * n_heads, head_dim], &numbers);
        let mut out: Tensor = zeros(&device, &[rows * n_heads, head_dim]);
        ops::rms_norm(&as_rows, &scale, 1e-3, &mut out).expect("shapes agree");
        let [heads, out] = [&heads, &out].map(|x| x.to_f32().expect("readable"));
        must(check_close(&heads, &out, NORM), &device.description());

        let mut short = tensor(&device, &[1, 34], &numbers[..34]);
        refused(
            ops::head_norm(&mut short, &scale, 1e-3),
            "head_norm: x has shape [1, 34], expected [1, 33]",
        );
        assert_eq!(
            bits(&short.to_f32().expect("readable")),
            bits(&numbers[..34])
        );
    }
}
