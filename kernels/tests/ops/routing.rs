//! Choosing experts and running them, against plain loops and bit by bit against themselves in other company.

use gguf::TensorType;
use kernels::{
    Activation, Device, ExpertNetwork, Linear, Routing, RoutingParams, RoutingSize, Scoring,
    Tensor, ops,
};

use crate::support::{
    Random, TYPES, Tolerance, all_devices, bits, check_close, devices, must, must_fail, refused,
    tensor, weight, zeros,
};

const N_EXPERTS: usize = 6;
const N_EMBD: usize = 64;
const N_LAYERS: usize = 3;
/// The layer that is looked at.
const LAYER: usize = 1;
const N_FF: usize = 32;

const PARAMS: RoutingParams = RoutingParams {
    n_used: 2,
    scoring: Scoring::Softmax,
    normalised: true,
    scale: 1.0,
};

fn routing(device: &Device, max_rows: usize, params: RoutingParams) -> Routing {
    let size = RoutingSize {
        n_layers: N_LAYERS,
        max_rows,
        n_experts: N_EXPERTS,
        n_embd: N_EMBD,
        n_ff: N_FF,
    };
    Routing::new(device, size, params).expect("small")
}

/// The experts of a device, each with matrices of its own.
struct Stack(Vec<[Tensor; 3]>);

impl Stack {
    fn new(device: &Device, tensor_type: TensorType) -> Stack {
        let mut random = Random::new(11);
        Stack(
            (0..N_EXPERTS)
                .map(|_| {
                    [[N_FF, N_EMBD], [N_FF, N_EMBD], [N_EMBD, N_FF]]
                        .map(|shape| weight(device, tensor_type, &shape, &mut random))
                })
                .collect(),
        )
    }

    /// Those that `keep` says.
    fn networks(&self, keep: impl Fn(u32) -> bool) -> Vec<Option<ExpertNetwork<'_>>> {
        (0..)
            .zip(&self.0)
            .map(|(expert, [gate, up, down])| {
                keep(expert).then(|| ExpertNetwork {
                    gate: Linear::from(gate),
                    up: Linear::from(up),
                    down: Linear::from(down),
                })
            })
            .collect()
    }
}

fn logits(rows: usize) -> Vec<f32> {
    let numbers = Random::new(3).numbers(rows * N_EXPERTS);
    numbers.iter().map(|n| 3.0 * n).collect()
}

fn hidden(rows: usize) -> Vec<f32> {
    Random::new(4).numbers(rows * N_EMBD)
}

/// Which experts are given.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Given {
    All,
    Chosen,
}

/// What the experts of some rows give, added to ones.
fn run(
    device: &Device,
    tensor_type: TensorType,
    rows: std::ops::Range<usize>,
    given: Given,
) -> Vec<f32> {
    let n = rows.len();
    let mut routing = routing(device, n, PARAMS);
    let stack = Stack::new(device, tensor_type);
    let logits = &logits(rows.end)[rows.start * N_EXPERTS..];
    let logits = tensor(device, &[n, N_EXPERTS], logits);
    ops::route(LAYER, &logits, None, &mut routing).expect("shapes agree");
    let x = tensor(
        device,
        &[n, N_EMBD],
        &hidden(rows.end)[rows.start * N_EMBD..],
    );
    let mut out = tensor(device, &[n, N_EMBD], &vec![1.0; n * N_EMBD]);
    let chosen = match given {
        Given::All => (0..6).collect(),
        Given::Chosen => routing.chosen(LAYER).expect("the device works"),
    };
    let networks = stack.networks(|expert| chosen.contains(&expert));
    let activation = Activation::Silu;
    ops::experts(LAYER, &mut routing, &networks, activation, &x, &mut out).expect("shapes agree");
    out.to_f32().expect("readable")
}

/// The same by loops in f64.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the sums are complete: each is rounded to f32 once"
)]
fn by_hand(rows: usize) -> Vec<f32> {
    let device = Device::reference();
    let stack = Stack::new(&device, TensorType::F32);
    let (logits, x) = (logits(rows), hidden(rows));
    let mut out = Vec::new();
    for (logits, x) in logits.chunks(N_EXPERTS).zip(x.chunks(N_EMBD)) {
        let mut order: Vec<usize> = (0..N_EXPERTS).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        let shares: Vec<f64> = order[..2]
            .iter()
            .map(|&e| f64::from(logits[e]).exp())
            .collect();
        let mut row = vec![1.0; N_EMBD];
        for (&expert, share) in order.iter().zip(&shares) {
            let product = |matrix: &Tensor, x: &[f64]| -> Vec<f64> {
                let rows = matrix.to_f32().expect("read");
                let rows = rows.chunks(x.len());
                rows.map(|row| row.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum())
                    .collect()
            };
            let [gate, up, down] = &stack.0[expert];
            let x: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
            let inner: Vec<f64> = product(gate, &x)
                .iter()
                .zip(product(up, &x))
                .map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up)
                .collect();
            for (out, made) in row.iter_mut().zip(product(down, &inner)) {
                *out += share / (shares[0] + shares[1]) * made;
            }
        }
        out.extend(row.iter().map(|&value| value as f32));
    }
    out
}

/// Sums of 64 and 32 products in f32.
const CLOSE: Tolerance = Tolerance {
    abs: 2e-5,
    rel: 1e-5,
};

#[test]
fn experts_give_what_plain_loops_give() {
    let expected = by_hand(9);
    for device in all_devices() {
        let mut found = run(&device, TensorType::F32, 0..9, Given::Chosen);
        must(check_close(&found, &expected, CLOSE), &device.description());
        let all = run(&device, TensorType::F32, 0..9, Given::All);
        assert_eq!(bits(&all), bits(&found), "{}", device.description());
        found[N_EMBD + 3] += 1e-4;
        must_fail(check_close(&found, &expected, CLOSE), "one sum off by 1e-4");
    }
}

/// Few rows meet experts as dot products, many on matrix cores, in whatever form their weights have.
#[test]
fn experts_of_every_type_are_as_near_as_their_matrices() {
    for device in devices() {
        for tensor_type in TYPES {
            if tensor_type.block_len() > N_FF {
                continue;
            }
            let expected = run(&Device::reference(), tensor_type, 0..40, Given::All);
            let largest = expected
                .iter()
                .fold(0.0, |largest: f32, x| largest.max(x.abs()));
            // Activations have 7 bits, in blocks of 32; two products follow one another.
            let tolerance = Tolerance {
                abs: 0.02 * largest,
                rel: 0.0,
            };
            for rows in [0..3, 0..40] {
                let found = run(&device, tensor_type, rows.clone(), Given::Chosen);
                let expected = &expected[..found.len()];
                must(
                    check_close(&found, expected, tolerance),
                    &(device.description(), tensor_type, rows),
                );
            }
        }
    }
}

/// A row's experts, their weights and their sum do not depend on the rows beside it.
#[test]
fn a_row_is_the_same_in_any_company() {
    let invariant = |device: &Device| match device {
        Device::Hip(hip) => hip.is_batch_invariant(),
        Device::Reference | Device::Cpu(_) => true,
    };
    for device in all_devices().into_iter().filter(invariant) {
        for tensor_type in [TensorType::F32, TensorType::Q8_0] {
            let together = run(&device, tensor_type, 0..40, Given::Chosen);
            for row in [0, 1, 17, 39] {
                let alone = run(&device, tensor_type, row..row + 1, Given::Chosen);
                assert_eq!(
                    bits(&alone),
                    bits(&together[row * N_EMBD..][..N_EMBD]),
                    "row {row}, {tensor_type}, {}",
                    device.description()
                );
            }
        }
    }
}

/// What one row of logits is turned into: each expert's share of a sum in which expert `e` gives `e + 1`.
fn shares(
    device: &Device,
    params: RoutingParams,
    logits: &[f32; N_EXPERTS],
    bias: Option<[f32; N_EXPERTS]>,
) -> Vec<(u32, f32)> {
    let mut routing = routing(device, 1, params);
    let bias = bias.map(|bias| tensor(device, &[N_EXPERTS], &bias));
    let logits = tensor(device, &[1, N_EXPERTS], logits);
    ops::route(LAYER, &logits, bias.as_ref(), &mut routing).expect("shapes agree");
    routing.choices(LAYER, 0).expect("a row was routed")
}

#[test]
fn weights_follow_the_scoring() {
    let logits = [0.0, 2.0, 1.0, 2.0, -1.0, 0.5];
    let check = |params, bias, expected: [(u32, f32); 2]| {
        for device in all_devices() {
            let found = shares(&device, params, &logits, bias);
            assert_eq!(found.len(), 2);
            for ((found, share), (expert, wanted)) in found.into_iter().zip(expected) {
                assert_eq!(found, expert, "{params:?}, {}", device.description());
                assert!(
                    (share - wanted).abs() < 1e-6,
                    "{params:?}: {share} {wanted}"
                );
            }
        }
    };
    let sum: f32 = logits.iter().map(|logit: &f32| logit.exp()).sum();
    let part = 2_f32.exp() / sum;
    check(PARAMS, None, [(1, 0.5), (3, 0.5)]);
    let whole = RoutingParams {
        normalised: false,
        scale: 2.0,
        ..PARAMS
    };
    check(whole, None, [(1, 2.0 * part), (3, 2.0 * part)]);
    let of_chosen = RoutingParams {
        scoring: Scoring::SoftmaxOfChosen,
        normalised: false,
        ..PARAMS
    };
    check(of_chosen, Some([0.0, 0.0, 3.0, 0.0, 0.0, 0.0]), {
        // Expert 2 ranks first by the bias; the bias is no part of its weight.
        let first = 1.0 / (1.0 + 1_f32.exp());
        [(2, first), (1, 1.0 - first)]
    });
    let sigmoid = RoutingParams {
        scoring: Scoring::Sigmoid,
        normalised: false,
        ..PARAMS
    };
    let of_two = 1.0 / (1.0 + (-2_f32).exp());
    check(sigmoid, None, [(1, of_two), (3, of_two)]);
    // The bias counts against shares of all, not against what they are before they are divided.
    let raised = 1.0 / (1.0 + 1_f32.exp());
    let bias = [0.0, 0.0, 0.3, 0.0, 0.0, 0.0];
    check(PARAMS, Some(bias), [(2, raised), (1, 1.0 - raised)]);
}

/// Each layer keeps its choice until the next step, so that all of them can be asked for at once.
#[test]
fn layers_keep_their_choices() {
    for device in all_devices() {
        let mut routing = routing(&device, 2, PARAMS);
        let mut logits = [0.0; 2 * N_EXPERTS];
        for layer in [0, 2] {
            logits[layer] = 4.0;
            logits[N_EXPERTS + layer + 1] = 4.0;
            let logits = tensor(&device, &[2, N_EXPERTS], &logits);
            ops::route(layer, &logits, None, &mut routing).expect("shapes agree");
        }
        routing.bring_all().expect("the device works");
        let mut chosen = |layer| routing.chosen(layer).expect("the device works");
        assert_eq!(chosen(0), [0, 1], "{}", device.description());
        assert_eq!(chosen(1), [], "no row was routed there");
        assert_eq!(chosen(2), [0, 1, 2, 3], "{}", device.description());
        let error = routing.chosen(3).expect_err("there are three");
        assert_eq!(
            error.to_string(),
            "routing: layer 3 at entry 0 is out of range, there are 3"
        );
    }
}

#[test]
fn what_is_missing_is_said() {
    for device in all_devices() {
        what_is_missing_is_said_on(&device);
    }
}

fn what_is_missing_is_said_on(device: &Device) {
    let mut routing = routing(device, 1, PARAMS);
    let logits = tensor(device, &[1, N_EXPERTS], &[0.0, 5.0, 0.0, 4.0, 0.0, 0.0]);
    ops::route(LAYER, &logits, None, &mut routing).expect("shapes agree");
    assert_eq!(routing.chosen(LAYER).expect("the device works"), [1, 3]);
    let stack = Stack::new(device, TensorType::F32);
    let x = tensor(device, &[1, N_EMBD], &hidden(1));
    let mut out = zeros(device, &[1, N_EMBD]);
    let missing = stack.networks(|expert| expert != 3);
    let mut run = |networks: &[_]| {
        let activation = Activation::Silu;
        ops::experts(LAYER, &mut routing, networks, activation, &x, &mut out)
    };
    refused(run(&missing), "experts: expert 3 is needed and not there");
    refused(run(&missing[1..]), "experts: 5 networks, expected 6");
    assert_eq!(out.to_f32().expect("readable"), [0.0; N_EMBD]);
    refused(
        ops::route(N_LAYERS, &logits, None, &mut routing),
        "routing: layer 3 at entry 0 is out of range, there are 3",
    );
    let two = tensor(device, &[2, N_EXPERTS], &[0.0; 2 * N_EXPERTS]);
    refused(
        ops::route(LAYER, &two, None, &mut routing),
        "no memory for shape [2, 6]",
    );
    let size = RoutingSize {
        n_layers: 1,
        max_rows: 1,
        n_experts: 1,
        n_embd: 1,
        n_ff: 1,
    };
    let error = Routing::new(device, size, PARAMS).expect_err("two of one");
    assert!(
        error.to_string().contains("number of experts used 2"),
        "{error}"
    );
}
