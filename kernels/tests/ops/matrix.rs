//! Products and rows of matrices against the reference.

use gguf::TensorType;
use half::bf16;
use kernels::{Activation, Device, IndexLimits, KvShape, Linear, RowIndex, StepRows, Tensor, ops};

use crate::support::{
    Mismatch, NO_STORE, Random, TYPES, Tolerance, bits, check_close, compare, devices, is_gpu,
    is_quantised, must, must_fail, packed, picked, positions, processors, refused, tensor, tokens,
    view, weight, zeros,
};

/// Rows of activations, outputs, inputs: single ones, either side of a vector, of a group, of a tile, of a block of rows and of a panel.
const SHAPES: [[usize; 3]; 16] = [
    [1, 1, 1],
    [1, 5, 7],
    [2, 3, 8],
    [3, 4, 9],
    [3, 17, 31],
    [4, 16, 33],
    [5, 15, 64],
    [7, 1, 100],
    [23, 19, 96],
    [24, 33, 65],
    [25, 2, 1023],
    [26, 6, 1024],
    [4, 5, 1056],
    [49, 18, 1025],
    [1, 64, 2080],
    [73, 70, 160],
];

fn product(weight: &Tensor, x: &Tensor) -> Vec<f32> {
    let mut out = zeros(weight.device(), &[x.shape()[0], weight.shape()[0]]);
    ops::matmul(weight, x, &mut out).expect("shapes agree");
    out.to_f32().expect("readable")
}

/// [`Case::deviation`]. A GPU's matrix cores take both factors of a product in half precision: each is off by up to 2^-11 of itself, as good as evenly. A processor with products of BF16 numbers
/// rounds activations that meet such weights by up to 2^-8.
fn deviation(device: &Device, tensor_type: TensorType) -> f32 {
    if is_gpu(device) && tensor_type != TensorType::F32 {
        return 2.0_f32.powi(-11) * (2.0_f32 / 3.0).sqrt();
    }
    if multiplies_bf16(device) && tensor_type == TensorType::BF16 {
        return 2.0_f32.powi(-8) * (1.0_f32 / 3.0).sqrt();
    }
    0.0
}

fn multiplies_bf16(device: &Device) -> bool {
    device.description().contains("+bf16")
}

/// One product on a device and on the reference.
struct Case {
    tensor_type: TensorType,
    /// Standard deviation of a product for the rounding of its factors, as a share of itself.
    deviation: f32,
    n_in: usize,
    n_out: usize,
    bytes: Vec<u8>,
    weights: Vec<f32>,
    x: Vec<f32>,
    found: Vec<f32>,
    expected: Vec<f32>,
}

impl Case {
    fn random(
        device: &Device,
        tensor_type: TensorType,
        [rows, n_out, n_in]: [usize; 3],
        seed: u64,
    ) -> Case {
        let mut random = Random::new(seed);
        let n_in = n_in.next_multiple_of(tensor_type.block_len());
        let bytes = packed(tensor_type, n_out * n_in, &mut random);
        let (offset, x) = (random.below(8), random.numbers(rows * n_in));
        let reference = Device::reference();
        let on = |device: &Device| view(device, tensor_type, &[n_out, n_in], &bytes, offset);
        let expected = product(&on(&reference), &tensor(&reference, &[rows, n_in], &x));
        let found = product(&on(device), &tensor(device, &[rows, n_in], &x));
        Case {
            tensor_type,
            deviation: deviation(device, tensor_type),
            n_in,
            n_out,
            weights: on(&reference).to_f32().expect("readable"),
            bytes,
            x,
            found,
            expected,
        }
    }

    /// What rounding may do to output `index`. A sum of n products in f32 is off by at most about n/8 + 8 roundings of the sum of magnitudes, as each of 8 lanes adds an eighth of them (the
    /// reference's one rounding included). Where activations become bytes, each is off by up to half a step of its block, as good as evenly: six standard deviations of the sum are
    /// allowed. A little comes on top: the rounding of scales, and of minima that weights nearly cancel.
    fn allowed(&self, index: usize) -> f32 {
        let (row, column) = (index / self.n_out, index % self.n_out);
        let x = &self.x[row * self.n_in..][..self.n_in];
        let weights = &self.weights[column * self.n_in..][..self.n_in];
        let magnitudes: f32 = weights.iter().zip(x).map(|(w, x)| (w * x).abs()).sum();
        let rounding = (self.n_in as f32 / 8.0 + 8.0) * f32::EPSILON / 2.0 * magnitudes;
        let rounding = rounding + self.of_rounded_factors(weights, x);
        if !is_quantised(self.tensor_type) {
            return rounding;
        }
        let block_len = self.tensor_type.block_len();
        let steps = x.chunks(block_len).map(|block| {
            block
                .iter()
                .fold(0.0, |largest: f32, x| largest.max(x.abs()))
                / 127.0
        });
        let variance: f32 = steps
            .zip(weights.chunks(block_len))
            .map(|(step, weights)| step * step / 12.0 * weights.iter().map(|w| w * w).sum::<f32>())
            .sum();
        4.0 * rounding + 6.0 * variance.sqrt()
    }

    /// What rounded factors may do to a sum: six standard deviations of it are allowed.
    fn of_rounded_factors(&self, weights: &[f32], x: &[f32]) -> f32 {
        let products = weights.iter().zip(x).map(|(w, x)| (w * x) * (w * x));
        6.0 * self.deviation * products.sum::<f32>().sqrt()
    }

    fn check(&self, found: &[f32]) -> Result<(), Mismatch> {
        compare(found, &self.expected, |index| self.allowed(index))
    }
}

#[test]
fn matmul_matches_reference() {
    for device in devices() {
        for tensor_type in TYPES {
            for (seed, shape) in (0..).zip(SHAPES) {
                let case = Case::random(&device, tensor_type, shape, seed);
                must(
                    case.check(&case.found),
                    &(device.description(), tensor_type, shape, seed),
                );
            }
        }
    }
}

/// Whole numbers with a 127 in each block: the scale is 1 and nothing is rounded away.
fn whole(len: usize, random: &mut Random) -> Vec<f32> {
    let byte = |i: usize| match i % 32 {
        0 => 127.0,
        _ => random.below(255) as f32 - 127.0,
    };
    (0..len).map(byte).collect()
}

#[test]
fn matmul_with_bytes_that_need_no_rounding_is_as_exact_as_f32() {
    for device in processors() {
        for tensor_type in TYPES.into_iter().filter(|&t| is_quantised(t)) {
            for [rows, n_out, n_in] in [[1, 5, 256], [3, 2, 512], [30, 33, 1280]] {
                let mut random = Random::new(7);
                let x = whole(rows * n_in, &mut random);
                let bytes = packed(tensor_type, n_out * n_in, &mut random);
                let weights =
                    |device: &Device| view(device, tensor_type, &[n_out, n_in], &bytes, 3);
                let on =
                    |device: &Device| product(&weights(device), &tensor(device, &[rows, n_in], &x));
                let largest = weights(&Device::reference())
                    .to_f32()
                    .expect("readable")
                    .iter()
                    .fold(0.0, |largest: f32, w| largest.max(w.abs()));
                let magnitude = 127.0 * largest * n_in as f32;
                must(
                    compare(&on(&device), &on(&Device::reference()), |_| {
                        1e-6 * magnitude
                    }),
                    &(device.description(), tensor_type, rows, n_out, n_in),
                );
            }
        }
    }
}

/// Activations that are BF16 numbers already lose nothing, whatever the processor multiplies with.
#[test]
fn bf16_products_of_bf16_numbers_are_as_exact_as_f32() {
    for device in processors() {
        for (seed, [rows, n_out, n_in]) in (0..).zip(SHAPES) {
            let mut case = Case::random(&device, TensorType::BF16, [rows, n_out, n_in], seed);
            for x in &mut case.x {
                *x = bf16::from_f32(*x).to_f32();
            }
            let on = |device: &Device| {
                let weight = view(device, TensorType::BF16, &[n_out, n_in], &case.bytes, 2);
                product(&weight, &tensor(device, &[rows, n_in], &case.x))
            };
            let (found, expected) = (on(&device), on(&Device::reference()));
            case.deviation = 0.0;
            must(
                compare(&found, &expected, |index| case.allowed(index)),
                &(device.description(), rows, n_out, n_in),
            );
        }
    }
}

/// And others are rounded to the nearest one, on the processors that say so.
#[test]
fn activations_are_rounded_to_bf16_where_the_processor_multiplies_such_numbers() {
    let (between, next) = (1.0 + 2.0_f32.powi(-8) * 1.5, 1.0 + 2.0_f32.powi(-7));
    for device in processors() {
        let expected = if multiplies_bf16(&device) {
            next
        } else {
            between
        };
        for rows in [1, 5] {
            let weight = view(
                &device,
                TensorType::BF16,
                &[1, 1],
                &bf16::ONE.to_le_bytes(),
                0,
            );
            let found = product(&weight, &tensor(&device, &[rows, 1], &vec![between; rows]));
            assert_eq!(found, vec![expected; rows], "{}", device.description());
        }
    }
}

/// Blocks are summed as integers and then in an order that no kernel changes, so it takes one lost element or one other bit to make a difference.
#[test]
fn quantised_products_are_the_same_bits_on_every_instruction_set() {
    for tensor_type in TYPES.into_iter().filter(|&t| is_quantised(t)) {
        for (seed, shape) in (0..).zip(SHAPES) {
            let mut found = processors()
                .into_iter()
                .map(|device| bits(&Case::random(&device, tensor_type, shape, seed).found));
            let first = found.next().expect("a device");
            for (index, other) in found.enumerate() {
                assert!(other == first, "{tensor_type} {shape:?}, device {index}");
            }
        }
    }
}

/// A bit may vanish in rounding, or meet an activation that is zero as a byte, but not many do.
#[test]
fn a_changed_bit_of_a_quantised_weight_is_seen() {
    for device in devices() {
        for tensor_type in TYPES.into_iter().filter(|&t| is_quantised(t)) {
            for rows in [1, 9] {
                let case = Case::random(&device, tensor_type, [rows, 3, 512], 21);
                let (mut changes, mut unseen) = (0, 0);
                // Each change is an upload and a product of its own, which take a stand-in for a GPU a while.
                let step = if is_gpu(&device) { 101 } else { 7 };
                for at in (0..case.bytes.len()).step_by(step) {
                    let mut bytes = case.bytes.clone();
                    bytes[at] ^= 0x44;
                    let other = view(&device, tensor_type, &[3, 512], &bytes, 0);
                    let read = view(&Device::reference(), tensor_type, &[3, 512], &bytes, 0);
                    if read.to_f32().expect("readable") == case.weights {
                        continue;
                    }
                    let found = product(&other, &tensor(&device, &[rows, 512], &case.x));
                    changes += 1;
                    unseen += usize::from(bits(&found) == bits(&case.found));
                }
                assert!(
                    100 * unseen <= 3 * changes,
                    "{} {tensor_type}: {unseen} of {changes} unseen",
                    device.description()
                );
            }
        }
    }
}

#[test]
fn planted_faults_in_a_product_are_seen() {
    let device = &devices()[1];
    for tensor_type in TYPES {
        let shape = [25, 18, 1024];
        let case = Case::random(device, tensor_type, shape, 3);
        must(case.check(&case.found), &tensor_type);

        let mut swapped = case.found.clone();
        swapped.swap(4, 5);
        must_fail(case.check(&swapped), "two columns exchanged");

        let mut shifted = case.found.clone();
        shifted.rotate_right(18);
        must_fail(case.check(&shifted), "results in the wrong rows");

        let mut nan = case.found.clone();
        nan[449] = f32::NAN;
        must_fail(case.check(&nan), "a NaN in the last element");

        // As if a kernel forgot the tail: the last block of every row counts for nothing.
        let mut x = case.x.clone();
        x.chunks_exact_mut(1024)
            .for_each(|row| row[992..].fill(0.0));
        let found = product(
            &view(device, tensor_type, &[18, 1024], &case.bytes, 0),
            &tensor(device, &[25, 1024], &x),
        );
        must_fail(case.check(&found), "a lost tail");
    }
}

#[test]
fn one_lost_element_of_a_float_row_is_seen() {
    let device = &devices()[1];
    for tensor_type in [TensorType::F32, TensorType::F16, TensorType::BF16] {
        let case = Case::random(device, tensor_type, [1, 4, 1025], 5);
        let mut x = case.x.clone();
        x[1024] = 0.0;
        let found = product(
            &view(device, tensor_type, &[4, 1025], &case.bytes, 0),
            &tensor(device, &[1, 1025], &x),
        );
        must_fail(case.check(&found), "the last element of an odd row");
    }
}

/// Of rows that are unpacked: a GPU subtracts minima in an order of its own.
fn unpacked(device: &Device) -> Tolerance {
    Tolerance {
        abs: if is_gpu(device) { 1e-6 } else { 0.0 },
        rel: 0.0,
    }
}

#[test]
fn embed_is_exact_for_every_type() {
    for device in devices() {
        for tensor_type in TYPES {
            let table =
                |device: &Device| weight(device, tensor_type, &[9, 256], &mut Random::new(11));
            let ids = [8, 0, 3, 3];
            let rows = tokens(&device, 9, &ids, &[]).expect("ids exist");
            let mut out = zeros(&device, &[4, 256]);
            ops::embed(&rows, &table(&device), &mut out).expect("shapes agree");
            let values = table(&Device::reference()).to_f32().expect("readable");
            let expected: Vec<f32> = ids
                .iter()
                .flat_map(|&id| values[id as usize * 256..][..256].to_vec())
                .collect();
            must(
                check_close(
                    &out.to_f32().expect("readable"),
                    &expected,
                    unpacked(&device),
                ),
                &(device.description(), tensor_type),
            );
        }
    }
}

#[test]
fn rows_of_positions_are_added() {
    let kv = KvShape {
        block_len: 4,
        n_blocks: 3,
        ..NO_STORE
    };
    let tables: [&[u32]; 2] = [&[2, 0], &[1]];
    let places = [positions(0, 5, 3), positions(1, 2, 2)].concat();
    for device in devices() {
        for tensor_type in TYPES {
            let table =
                |device: &Device| weight(device, tensor_type, &[8, 256], &mut Random::new(12));
            let limits = IndexLimits {
                max_rows: 8,
                max_logit_rows: 8,
                n_vocab: 1,
                kv,
            };
            // Rows that a GPU adds for the shape of the step have no position.
            let mut rows = RowIndex::new(&device, limits);
            rows.set_recordable(StepRows {
                ids: &[0; 5],
                places: &places,
                tables: &tables,
                logit_rows: &[],
            })
            .expect("places exist");
            let before = Random::new(13).numbers(rows.n_rows() * 256);
            let mut out = tensor(&device, &[rows.n_rows(), 256], &before);
            ops::add_positions(&rows, &table(&device), &mut out).expect("shapes agree");
            let values = table(&Device::reference()).to_f32().expect("readable");
            let mut expected = before;
            for (row, position) in expected.chunks_mut(256).zip([5, 6, 7, 2, 3]) {
                let added = &values[position * 256..];
                row.iter_mut().zip(added).for_each(|(x, value)| *x += value);
            }
            must(
                check_close(
                    &out.to_f32().expect("readable"),
                    &expected,
                    unpacked(&device),
                ),
                &(device.description(), tensor_type),
            );
            let short = weight(&device, tensor_type, &[7, 256], &mut Random::new(12));
            refused(
                ops::add_positions(&rows, &short, &mut out),
                "add_positions: position 7 at entry 2 is out of range, there are 7",
            );
        }
    }
}

#[test]
fn gather_rows_copies() {
    for device in devices() {
        let x = tensor(&device, &[3, 5], &Random::new(1).numbers(15));
        let mut out = zeros(&device, &[4, 5]);
        let rows = tokens(&device, 1, &[0; 3], &[2, 2, 0, 1]).expect("rows exist");
        ops::gather_rows(&rows, &x, &mut out).expect("shapes agree");
        let values = x.to_f32().expect("readable");
        assert_eq!(
            out.to_f32().expect("readable"),
            [&values[10..], &values[10..], &values[..10]].concat()
        );
    }
}

/// A product, its bias and what was there before are three numbers that are added in this order, whichever operation they go through.
#[test]
fn every_form_of_a_product_has_the_same_bits() {
    for device in devices() {
        for (seed, rows) in [(1, 1), (2, 3), (3, 30)] {
            let mut random = Random::new(seed);
            let mut linear = |tensor_type, n_out| {
                (
                    weight(&device, tensor_type, &[n_out, 96], &mut random),
                    weight(&device, TensorType::F32, &[n_out], &mut random),
                )
            };
            // Two forms of activations, in turn.
            let linears = [
                linear(TensorType::Q8_0, 33),
                linear(TensorType::F16, 7),
                linear(TensorType::Q8_0, 5),
            ];
            let operand = |index: usize| Linear {
                weight: &linears[index].0,
                bias: Some(&linears[index].1),
            };
            let x = tensor(&device, &[rows, 96], &random.numbers(rows * 96));
            let mut outs = [33, 7, 5].map(|n_out| zeros(&device, &[rows, n_out]));
            let [a, b, c] = &mut outs;
            ops::matmul_each(&x, [(operand(0), a), (operand(1), b), (operand(2), c)])
                .expect("shapes agree");
            for (index, out) in outs.iter().enumerate() {
                let n_out = out.shape()[1];
                let product = product(&linears[index].0, &x);
                let bias = linears[index].1.to_f32().expect("readable");
                let expected: Vec<f32> = (0..rows * n_out)
                    .map(|i| product[i] + bias[i % n_out])
                    .collect();
                let case = (device.description(), rows, index);
                assert_eq!(
                    bits(&out.to_f32().expect("readable")),
                    bits(&expected),
                    "each {case:?}"
                );

                let mut alone = zeros(&device, &[rows, n_out]);
                ops::matmul(operand(index), &x, &mut alone).expect("shapes agree");
                assert_eq!(
                    bits(&alone.to_f32().expect("readable")),
                    bits(&expected),
                    "alone {case:?}"
                );

                let before = random.numbers(rows * n_out);
                let mut sum = tensor(&device, &[rows, n_out], &before);
                ops::matmul_add(operand(index), &x, &mut sum).expect("shapes agree");
                let added: Vec<f32> = before.iter().zip(&expected).map(|(a, b)| a + b).collect();
                assert_eq!(
                    bits(&sum.to_f32().expect("readable")),
                    bits(&added),
                    "added {case:?}"
                );
            }
        }
    }
}

/// The products are held against the reference above; here they must be the ones that are activated.
#[test]
fn gated_is_its_parts() {
    for device in devices() {
        for rows in [1, 4, 25] {
            let mut random = Random::new(rows as u64);
            let [gate, up] = [TensorType::Q8_0, TensorType::BF16]
                .map(|tensor_type| weight(&device, tensor_type, &[19, 64], &mut random));
            let bias = weight(&device, TensorType::F32, &[19], &mut random);
            let x = tensor(&device, &[rows, 64], &random.numbers(rows * 64));
            let up = Linear {
                weight: &up,
                bias: Some(&bias),
            };
            let (mut gates, mut ups) = (zeros(&device, &[rows, 19]), zeros(&device, &[rows, 19]));
            ops::matmul(&gate, &x, &mut gates).expect("shapes agree");
            ops::matmul(up, &x, &mut ups).expect("shapes agree");
            let mut expected = zeros(&device, &[rows, 19]);
            ops::activate(&gates, &ups, &mut expected, Activation::Silu).expect("shapes agree");
            let mut found = zeros(&device, &[rows, 19]);
            let gate = Linear::from(&gate);
            ops::gated(gate, up, Activation::Silu, &x, &mut found).expect("shapes agree");
            assert_eq!(
                bits(&found.to_f32().expect("readable")),
                bits(&expected.to_f32().expect("readable")),
                "{} {rows}",
                device.description()
            );
        }
    }
}

#[test]
fn argmax_matches_reference() {
    for device in devices() {
        for n_vocab in [1, 5, 64, 1000, 4097] {
            let mut random = Random::new(n_vocab as u64);
            // Few different numbers, so that there are ties.
            let numbers: Vec<f32> = (0..6 * n_vocab)
                .map(|_| [f32::NAN, -1.0, 0.5, 0.75, f32::NEG_INFINITY][random.below(5)])
                .collect();
            let best = |device: &Device| picked(&tensor(device, &[6, n_vocab], &numbers));
            assert_eq!(
                best(&device),
                best(&Device::reference()),
                "{} {n_vocab}",
                device.description()
            );
        }
    }
}
