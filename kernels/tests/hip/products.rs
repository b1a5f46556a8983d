//! Weights in every type: repacked, unpacked again, and multiplied, against sums in f64 over what the reference unpacks.

use gguf::TensorType;
use kernels::Device;
use kernels::hip::View;
use kernels::hip::launch::embed::{Embed, embed};
use kernels::hip::launch::matrix::{
    Gated, Product, Rows, Tile, Weights, gated_matvec, has_matmul, matmul, matvec,
};
use kernels::hip::launch::repack::repack;
use kernels::hip::launch::rowwise::{Function, write_forms};
use kernels::hip::launch::{Forms, Half, Int8};

use super::cases::{Random, TYPES, compare, is_quantised, must, packed, view};
use super::support::{downloaded, kernels, memory, stream, uploaded};

/// A random matrix on the device and what it means.
pub(crate) struct Matrix {
    pub(crate) tensor_type: TensorType,
    pub(crate) n_out: usize,
    pub(crate) n_in: usize,
    pub(crate) on_device: View,
    /// `[n_out, n_in]`, unpacked by the reference.
    pub(crate) numbers: Vec<f32>,
}

impl Matrix {
    pub(crate) fn random(
        tensor_type: TensorType,
        [n_out, n_in]: [usize; 2],
        random: &mut Random,
    ) -> Matrix {
        let bytes = packed(tensor_type, n_out * n_in, random);
        let numbers = view(&Device::reference(), tensor_type, &[n_out, n_in], &bytes, 0)
            .to_f32()
            .expect("every type is unpacked");
        let on_device = uploaded(&bytes);
        let stream = stream();
        repack(&stream, &kernels(), tensor_type, n_out * n_in, &on_device).expect("repacked");
        stream.synchronize().expect("done");
        Matrix {
            tensor_type,
            n_out,
            n_in,
            on_device,
            numbers,
        }
    }

    pub(crate) fn weights(&self) -> Weights<'_> {
        Weights {
            view: &self.on_device,
            tensor_type: self.tensor_type,
            n_out: self.n_out,
            n_in: self.n_in,
        }
    }

    pub(crate) fn row(&self, o: usize) -> &[f32] {
        &self.numbers[o * self.n_in..][..self.n_in]
    }

    pub(crate) fn product(&self, o: usize, x: &[f32]) -> f64 {
        self.row(o)
            .iter()
            .zip(x)
            .map(|(&w, &x)| f64::from(w) * f64::from(x))
            .sum()
    }
}

/// Rows of activations in every form that their length allows.
pub(crate) struct Input {
    pub(crate) n: usize,
    pub(crate) numbers: Vec<f32>,
    pub(crate) f32: View,
    quants: View,
    blocks: View,
    half: View,
    scales: View,
}

impl Input {
    pub(crate) fn random(rows: usize, n: usize, random: &mut Random) -> Input {
        Input::of(random.numbers(rows * n), rows, n)
    }

    pub(crate) fn of(numbers: Vec<f32>, rows: usize, n: usize) -> Input {
        let (quants, blocks) = Int8::bytes(rows, n);
        let (half, scales) = Half::bytes(rows, n);
        let input = Input {
            n,
            f32: uploaded(&numbers),
            numbers,
            quants: memory(quants),
            blocks: memory(blocks.max(1)),
            half: memory(half),
            scales: memory(scales),
        };
        let stream = stream();
        let int8 = n.is_multiple_of(32).then_some(input.int8());
        let out = Forms {
            f32: None,
            int8,
            half: Some(input.half()),
        };
        write_forms(&stream, &kernels(), &input.f32, [rows, n], out).expect("written");
        stream.synchronize().expect("done");
        input
    }

    pub(crate) fn int8(&self) -> Int8<'_> {
        Int8 {
            quants: &self.quants,
            blocks: &self.blocks,
        }
    }

    pub(crate) fn half(&self) -> Half<'_> {
        Half {
            numbers: &self.half,
            scales: &self.scales,
        }
    }

    pub(crate) fn for_dots(&self) -> Rows<'_> {
        Rows {
            f32: Some(&self.f32),
            int8: self.n.is_multiple_of(32).then_some(self.int8()),
        }
    }

    pub(crate) fn row(&self, r: usize) -> &[f32] {
        &self.numbers[r * self.n..][..self.n]
    }
}

/// What rounding may do to a product of int8 blocks: each activation is off by at most half a step of its block, and f32 sums by a few of their roundings.
pub(crate) fn allowed_int8(matrix: &Matrix, o: usize, x: &[f32]) -> f32 {
    let pairs = || matrix.row(o).iter().zip(x);
    let magnitudes: f32 = pairs().map(|(w, x)| (w * x).abs()).sum();
    let rounding = 1e-5 * magnitudes + 1e-6;
    if !is_quantised(matrix.tensor_type) {
        return rounding;
    }
    let blocks = matrix.row(o).chunks(32).zip(x.chunks(32));
    let steps: f32 = blocks
        .map(|(w, x)| {
            let largest = x.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
            w.iter().map(|w| w.abs()).sum::<f32>() * largest / 254.0
        })
        .sum();
    1.01 * steps + rounding
}

/// What rounding may do to a product in f16: scale, minimum, weight and activation are each rounded to 11 bits, which the largest weight of a chunk bounds.
pub(crate) fn allowed_half(matrix: &Matrix, o: usize, x: &[f32]) -> f32 {
    let chunks = matrix.row(o).chunks(32).zip(x.chunks(32));
    let parts: f32 = chunks
        .map(|(w, x)| {
            let largest = w.iter().fold(0.0_f32, |largest, w| largest.max(w.abs()));
            largest * x.iter().map(|x| x.abs()).sum::<f32>()
        })
        .sum();
    2.0_f32.powi(-9) * parts + 1e-6
}

pub(crate) fn shape_for(tensor_type: TensorType, n_out: usize, n_in: usize) -> [usize; 2] {
    [n_out, n_in.next_multiple_of(tensor_type.block_len())]
}

#[test]
fn planes_hold_what_the_file_says() {
    let stream = stream();
    for tensor_type in TYPES {
        // Rows that end within a panel, on its edge, and behind it.
        for [n_out, n_in] in [[1, 32], [3, 2048], [9, 800], [5, 2304]] {
            let shape = shape_for(tensor_type, n_out, n_in);
            let mut random = Random::new(1 + n_in as u64);
            let table = Matrix::random(tensor_type, shape, &mut random);
            let ids = random.shuffled(n_out);
            let (ids_on_device, out) = (uploaded(&ids), memory(n_out * shape[1] * 4));
            let op = Embed {
                table: table.weights(),
                ids: &ids_on_device,
                stride: 1,
                out: &out,
                rows: n_out,
                factor: 1.0,
                add: false,
            };
            embed(&stream, &kernels(), op).expect("enqueued");
            let found: Vec<f32> = downloaded(&stream, &out);
            let expected: Vec<f32> = ids
                .iter()
                .flat_map(|&id| table.row(id as usize).to_vec())
                .collect();
            // One rounding of a product and its minimum, of the size of the largest number that the type's factors make.
            must(
                compare(&found, &expected, |i| 1e-6 * expected[i].abs() + 2e-6),
                &(tensor_type, shape),
            );
        }
    }
}

#[test]
fn few_rows_meet_weights_as_dot_products() {
    let stream = stream();
    for tensor_type in TYPES {
        for (rows, n_out, n_in) in [
            (1, 1, 32),
            (1, 37, 1056),
            (2, 9, 96),
            (4, 8, 2048),
            (5, 17, 352),
        ] {
            let shape = shape_for(tensor_type, n_out, n_in);
            let mut random = Random::new(7 + rows as u64);
            let matrix = Matrix::random(tensor_type, shape, &mut random);
            let x = Input::random(rows, shape[1], &mut random);
            let (bias, add) = (random.numbers(n_out), random.numbers(rows * n_out));
            let (bias_on_device, out) = (uploaded(&bias), uploaded(&add));
            let product = Product {
                weights: matrix.weights(),
                bias: Some(&bias_on_device),
                add: Some(&out),
                out: &out,
            };
            matvec(&stream, &kernels(), &[product], x.for_dots(), rows).expect("enqueued");
            let expected = |i: usize| {
                matrix.product(i % n_out, x.row(i / n_out))
                    + f64::from(bias[i % n_out])
                    + f64::from(add[i])
            };
            check(
                &downloaded(&stream, &out),
                expected,
                |i| allowed_int8(&matrix, i % n_out, x.row(i / n_out)),
                &(tensor_type, rows, shape),
            );
        }
    }
}

#[test]
fn floats_of_any_length_are_multiplied() {
    let stream = stream();
    for tensor_type in [TensorType::F32, TensorType::F16, TensorType::BF16] {
        for (rows, n_out, n_in) in [(1, 3, 1), (3, 5, 7), (4, 2, 100), (6, 11, 1023)] {
            let mut random = Random::new(n_in as u64);
            let matrix = Matrix::random(tensor_type, [n_out, n_in], &mut random);
            let x = Input::random(rows, n_in, &mut random);
            let out = memory(rows * n_out * 4);
            let product = Product {
                weights: matrix.weights(),
                bias: None,
                add: None,
                out: &out,
            };
            matvec(&stream, &kernels(), &[product], x.for_dots(), rows).expect("enqueued");
            let expected = |i: usize| matrix.product(i % n_out, x.row(i / n_out));
            check(
                &downloaded(&stream, &out),
                expected,
                |i| allowed_int8(&matrix, i % n_out, x.row(i / n_out)),
                &(tensor_type, rows, n_in),
            );
        }
    }
}

#[test]
fn products_of_a_group_are_those_of_single_launches() {
    let stream = stream();
    let mut random = Random::new(3);
    let x = Input::random(3, 512, &mut random);
    let types = [TensorType::Q4_K, TensorType::Q6_K, TensorType::F16];
    let matrices: Vec<Matrix> = types
        .iter()
        .zip([33, 8, 15])
        .map(|(&t, n_out)| Matrix::random(t, [n_out, 512], &mut random))
        .collect();
    let outs = || {
        matrices
            .iter()
            .map(|m| memory(3 * m.n_out * 4))
            .collect::<Vec<_>>()
    };
    let (together, alone) = (outs(), outs());
    let products =
        |outs: &'_ [View]| -> Vec<(usize, View)> { outs.iter().cloned().enumerate().collect() };
    let product = |&(i, ref out): &(usize, View)| (matrices[i].weights(), out.clone());
    let prepared: Vec<_> = products(&together).iter().map(product).collect();
    let group: Vec<Product> = prepared
        .iter()
        .map(|(weights, out)| Product {
            weights: *weights,
            bias: None,
            add: None,
            out,
        })
        .collect();
    matvec(&stream, &kernels(), &group, x.for_dots(), 3).expect("enqueued");
    for (matrix, out) in matrices.iter().zip(&alone) {
        let product = Product {
            weights: matrix.weights(),
            bias: None,
            add: None,
            out,
        };
        matvec(&stream, &kernels(), &[product], x.for_dots(), 3).expect("enqueued");
    }
    for (together, alone) in together.iter().zip(&alone) {
        assert_eq!(
            downloaded::<u32>(&stream, together),
            downloaded::<u32>(&stream, alone)
        );
    }
}

#[test]
fn a_row_has_the_same_bits_beside_others() {
    let stream = stream();
    let mut random = Random::new(5);
    let matrix = Matrix::random(TensorType::Q4_K, [40, 768], &mut random);
    let x = Input::random(5, 768, &mut random);
    let all = memory(5 * 40 * 4);
    let multiply = |x: Rows, rows: usize, out: &View| {
        let product = Product {
            weights: matrix.weights(),
            bias: None,
            add: None,
            out,
        };
        matvec(&stream, &kernels(), &[product], x, rows).expect("enqueued");
    };
    multiply(x.for_dots(), 5, &all);
    let all: Vec<u32> = downloaded(&stream, &all);
    for r in 0..5 {
        let alone = memory(40 * 4);
        let (quants, blocks) = (&x.quants, &x.blocks);
        let (quants, blocks) = (
            quants.slice(r * 768..(r + 1) * 768),
            blocks.slice(r * 192..(r + 1) * 192),
        );
        let (quants, blocks) = (quants.expect("inside"), blocks.expect("inside"));
        let rows = Rows {
            f32: None,
            int8: Some(Int8 {
                quants: &quants,
                blocks: &blocks,
            }),
        };
        multiply(rows, 1, &alone);
        assert_eq!(
            downloaded::<u32>(&stream, &alone),
            all[r * 40..][..40],
            "row {r}"
        );
    }
}

#[test]
fn gates_are_activated_and_quantised() {
    let stream = stream();
    let functions = [
        Function::Silu,
        Function::Gelu,
        Function::GeluTanh,
        Function::Relu,
        Function::ReluSquared,
        Function::SwigluClamped,
    ];
    for (tensor_type, function) in TYPES.into_iter().zip(functions.into_iter().cycle()) {
        let rows = 1 + tensor_type.id() as usize % 5;
        let [n_out, n_in] = shape_for(tensor_type, 64, 288);
        let mut random = Random::new(u64::from(tensor_type.id()));
        let (gate, up) = (
            Matrix::random(tensor_type, [n_out, n_in], &mut random),
            Matrix::random(tensor_type, [n_out, n_in], &mut random),
        );
        let x = Input::random(rows, n_in, &mut random);
        let (gate_bias, up_bias) = (random.numbers(n_out), random.numbers(n_out));
        let (gate_bias_view, up_bias_view) = (uploaded(&gate_bias), uploaded(&up_bias));
        let (quants, blocks) = Int8::bytes(rows, n_out);
        let (out, quants, blocks) = (memory(rows * n_out * 4), memory(quants), memory(blocks));
        let op = Gated {
            gate: gate.weights(),
            up: up.weights(),
            gate_bias: Some(&gate_bias_view),
            up_bias: Some(&up_bias_view),
            function,
            x: x.for_dots(),
            out: Forms {
                f32: Some(&out),
                int8: Some(Int8 {
                    quants: &quants,
                    blocks: &blocks,
                }),
                half: None,
            },
            rows,
        };
        gated_matvec(&stream, &kernels(), op).expect("enqueued");
        let found: Vec<f32> = downloaded(&stream, &out);
        let parts = |i: usize| {
            let (o, x) = (i % n_out, x.row(i / n_out));
            (
                gate.product(o, x) + f64::from(gate_bias[o]),
                up.product(o, x) + f64::from(up_bias[o]),
            )
        };
        let expected = |i: usize| gated(function, parts(i).0, parts(i).1);
        // Slopes of these functions stay below 1.2 (twice the gate for the square).
        let allowed = |i: usize| {
            let (o, x) = (i % n_out, x.row(i / n_out));
            let (g, u) = (parts(i).0.abs() as f32 + 1.0, parts(i).1.abs() as f32 + 1.0);
            let (dg, du) = (allowed_int8(&gate, o, x), allowed_int8(&up, o, x));
            1.2 * (2.0 * g * dg * (u + du) + (g * g).max(g) * du) + 1e-5
        };
        check(&found, expected, allowed, &(tensor_type, function, rows));
        check_quants(
            &found,
            &downloaded(&stream, &quants),
            &downloaded(&stream, &blocks),
        );
    }
}

/// That quants and blocks stand for the numbers: within half a step, with the right sums.
pub(crate) fn check_quants(numbers: &[f32], quants: &[i8], blocks: &[[u8; 8]]) {
    assert_eq!(numbers.len(), quants.len());
    for ((numbers, quants), block) in numbers.chunks(32).zip(quants.chunks(32)).zip(blocks) {
        let scale = f32::from_le_bytes([block[0], block[1], block[2], block[3]]);
        let sums = [[block[4], block[5]], [block[6], block[7]]].map(i16::from_le_bytes);
        for (number, &quant) in numbers.iter().zip(quants) {
            assert!(
                (number - scale * f32::from(quant)).abs() <= 0.501 * scale,
                "{number} is not {scale} * {quant}"
            );
        }
        let expected = [&quants[..16], &quants[16..]]
            .map(|half| half.iter().map(|&q| i16::from(q)).sum::<i16>());
        assert_eq!(sums, expected);
    }
}

fn gated(function: Function, gate: f64, up: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match function {
        Function::Silu => gate * sigmoid(gate) * up,
        Function::Gelu => 0.5 * gate * (1.0 + erf(gate / 2.0_f64.sqrt())) * up,
        Function::GeluTanh => {
            0.5 * gate
                * (1.0 + (0.797_884_560_802_865_4 * (gate + 0.044_715 * gate.powi(3))).tanh())
                * up
        }
        Function::Relu => gate.max(0.0) * up,
        Function::ReluSquared => gate.max(0.0).powi(2) * up,
        Function::SwigluClamped => {
            let gate = gate.min(7.0);
            gate * sigmoid(1.702 * gate) * (up.clamp(-7.0, 7.0) + 1.0)
        }
    }
}

/// The error function as its integral says, by Simpson's rule.
pub(crate) fn erf(x: f64) -> f64 {
    let (limit, steps) = (x.clamp(-6.0, 6.0), 2000);
    let h = limit / f64::from(steps);
    let f = |i: i32| (-(h * f64::from(i)).powi(2)).exp();
    let inner: f64 = (1..steps)
        .map(|i| f(i) * if i % 2 == 1 { 4.0 } else { 2.0 })
        .sum();
    2.0 / std::f64::consts::PI.sqrt() * h / 3.0 * (f(0) + inner + f(steps))
}

/// Random products of every type that matrix cores take, with a bias and added to what was there, for each shape of `[rows, n_out, n_in]`: enqueued by `multiply`, which has the number of the
/// shape, and compared with numbers in f64.
pub(crate) fn check_on_matrix_cores(
    shapes: &[[usize; 3]],
    multiply: impl Fn(usize, Product, &Input, usize),
) {
    for tensor_type in TYPES {
        for (index, &[rows, n_out, n_in]) in shapes.iter().enumerate() {
            let [n_out, n_in] = shape_for(tensor_type, n_out, n_in);
            if !has_matmul(tensor_type, n_in) {
                continue;
            }
            let mut random = Random::new(rows as u64);
            let matrix = Matrix::random(tensor_type, [n_out, n_in], &mut random);
            let x = Input::random(rows, n_in, &mut random);
            let (bias, add) = (random.numbers(n_out), random.numbers(rows * n_out));
            let (bias_on_device, out) = (uploaded(&bias), uploaded(&add));
            let product = Product {
                weights: matrix.weights(),
                bias: Some(&bias_on_device),
                add: Some(&out),
                out: &out,
            };
            multiply(index, product, &x, rows);
            let expected = |i: usize| {
                matrix.product(i % n_out, x.row(i / n_out))
                    + f64::from(bias[i % n_out])
                    + f64::from(add[i])
            };
            check(
                &downloaded(&stream(), &out),
                expected,
                |i| allowed_half(&matrix, i % n_out, x.row(i / n_out)),
                &(tensor_type, index, rows, n_out, n_in),
            );
        }
    }
}

#[test]
fn many_rows_meet_weights_on_matrix_cores() {
    let tiles = [
        Tile::Narrow,
        Tile::Narrow,
        Tile::Middle,
        Tile::Middle,
        Tile::Wide,
    ];
    let shapes = [
        [1, 5, 32],
        [16, 65, 544],
        [17, 130, 96],
        [64, 3, 1280],
        [129, 131, 160],
    ];
    let stream = stream();
    check_on_matrix_cores(&shapes, |index, product, x, rows| {
        matmul(&stream, &kernels(), tiles[index], product, x.half(), rows).expect("enqueued");
        stream.synchronize().expect("done");
    });
}

#[test]
fn rows_beyond_f16_are_scaled() {
    let stream = stream();
    let mut random = Random::new(11);
    let matrix = Matrix::random(TensorType::Q8_0, [7, 64], &mut random);
    let numbers: Vec<f32> = random
        .numbers(2 * 64)
        .iter()
        .enumerate()
        .map(|(i, n)| if i < 64 { n * 1e7 } else { *n })
        .collect();
    let x = uploaded(&numbers);
    let (half, scales) = (memory(2 * 64 * 2), memory(8));
    let half = Half {
        numbers: &half,
        scales: &scales,
    };
    write_forms(
        &stream,
        &kernels(),
        &x,
        [2, 64],
        Forms {
            half: Some(half),
            ..Forms::default()
        },
    )
    .expect("written");
    let out = memory(2 * 7 * 4);
    let product = Product {
        weights: matrix.weights(),
        bias: None,
        add: None,
        out: &out,
    };
    matmul(&stream, &kernels(), Tile::Narrow, product, half, 2).expect("enqueued");
    let row = |r: usize| &numbers[r * 64..][..64];
    check(
        &downloaded(&stream, &out),
        |i| matrix.product(i % 7, row(i / 7)),
        |i| allowed_half(&matrix, i % 7, row(i / 7)),
        &"large rows",
    );
}

/// Compares with numbers in f64.
#[expect(
    clippy::cast_possible_truncation,
    reason = "rounded once, to be compared with f32"
)]
pub(crate) fn check(
    found: &[f32],
    expected: impl Fn(usize) -> f64,
    allowed: impl Fn(usize) -> f32,
    case: &dyn std::fmt::Debug,
) {
    let expected: Vec<f32> = (0..found.len()).map(|i| expected(i) as f32).collect();
    must(compare(found, &expected, allowed), case);
}
