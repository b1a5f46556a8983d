//! The reference device against numbers worked out by hand: everything else is compared with it.

use kernels::{
    Activation, AttentionParams, Device, KvShape, KvStore, KvType, Linear, RopeKind, RopeParams,
    RopeScaling, RopeTable, Tensor, ops,
};

use crate::support::{
    Tolerance, check_close, must, picked, placed, positions, roped, tensor, tokens, write_kv, zeros,
};

fn check(found: &Tensor, expected: &[f32]) {
    must(
        check_close(
            &found.to_f32().expect("readable"),
            expected,
            Tolerance {
                abs: 1e-6,
                rel: 1e-6,
            },
        ),
        found,
    );
}

#[test]
fn matmul_is_rows_times_rows() {
    let device = Device::reference();
    let weight = tensor(&device, &[2, 3], &[1.0, 2.0, 3.0, 0.0, -1.0, 0.5]);
    let x = tensor(&device, &[2, 3], &[1.0, 1.0, 1.0, 4.0, 0.0, 2.0]);
    let mut out = zeros(&device, &[2, 2]);
    ops::matmul(&weight, &x, &mut out).expect("shapes agree");
    check(&out, &[6.0, -0.5, 10.0, 1.0]);
}

#[test]
fn embed_and_gather_copy_rows() {
    let device = Device::reference();
    let table = tensor(&device, &[3, 2], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    let mut out = zeros(&device, &[3, 2]);
    let rows = tokens(&device, 3, &[2, 0, 2], &[1]).expect("ids exist");
    ops::embed(&rows, &table, &mut out).expect("shapes agree");
    check(&out, &[4.0, 5.0, 0.0, 1.0, 4.0, 5.0]);
    let mut last = zeros(&device, &[1, 2]);
    ops::gather_rows(&rows, &out, &mut last).expect("shapes agree");
    check(&last, &[0.0, 1.0]);
}

#[test]
fn rms_norm_divides_by_the_root_of_the_mean_square() {
    let device = Device::reference();
    let x = tensor(&device, &[2, 2], &[3.0, 4.0, 0.0, 0.0]);
    let weight = tensor(&device, &[2], &[1.0, 10.0]);
    let mut out = zeros(&device, &[2, 2]);
    // The mean of 9 and 16 is 12.5; with 3.5 on top the root is 4.
    ops::rms_norm(&x, &weight, 3.5, &mut out).expect("shapes agree");
    check(&out, &[0.75, 10.0, 0.0, 0.0]);
}

#[test]
fn elementwise_operations() {
    let device = Device::reference();
    let mut x = tensor(&device, &[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    let ten = tensor(&device, &[2, 2], &[10.0, 20.0, 10.0, 20.0]);
    ops::add(&mut x, &ten).expect("shapes agree");
    check(&x, &[11.0, 22.0, 13.0, 24.0]);
    let y = tensor(&device, &[2, 2], &[1.0, -1.0, 0.0, 0.5]);
    ops::add(&mut x, &y).expect("shapes agree");
    check(&x, &[12.0, 21.0, 13.0, 24.5]);
    let gate = tensor(&device, &[2, 2], &[0.0, 100.0, -100.0, 1.0]);
    let mut out = zeros(&device, &[2, 2]);
    ops::activate(&gate, &x, &mut out, Activation::Silu).expect("shapes agree");
    check(&out, &[0.0, 2100.0, 0.0, 24.5 / (1.0 + (-1.0_f32).exp())]);
}

#[test]
fn rope_turns_pairs_by_the_position() {
    let device = Device::reference();
    // With base 1 every pair turns by one radian per position.
    let params = |kind| RopeParams {
        dims: 4,
        base: 1.0,
        kind,
        scaling: RopeScaling::None,
        attn_factor: 1.0,
    };
    let (cos, sin) = (2.0_f32.cos(), 2.0_f32.sin());
    let turned = |kind, factors: Option<&[f32]>, numbers: &[f32]| {
        let table = RopeTable::new(params(kind), factors).expect("dims are even");
        let x = [numbers, &[1.0, 2.0, 3.0, 4.0, 5.0]].concat();
        let [q, _] = roped(&device, &x, &[2, 0], &table, 1);
        q
    };
    let same = [1.0, 2.0, 3.0, 4.0, 5.0];
    let interleaved = turned(RopeKind::Interleaved, None, &[1.0, 0.0, 0.0, 1.0, 7.0]);
    check(
        &interleaved,
        &[&[cos, sin, -sin, cos, 7.0], same.as_slice()].concat(),
    );
    let halves = turned(RopeKind::Halves, None, &[1.0, 0.0, 0.0, 1.0, 7.0]);
    check(
        &halves,
        &[&[cos, -sin, sin, cos, 7.0], same.as_slice()].concat(),
    );
    let slower = turned(
        RopeKind::Interleaved,
        Some(&[1.0, 2.0]),
        &[1.0, 0.0, 1.0, 0.0, 7.0],
    );
    check(
        &slower,
        &[
            &[cos, sin, 1.0_f32.cos(), 1.0_f32.sin(), 7.0],
            same.as_slice(),
        ]
        .concat(),
    );
}

#[test]
fn rope_frequencies_fall_and_scale() {
    let params = RopeParams {
        dims: 8,
        base: 10_000.0,
        kind: RopeKind::Halves,
        scaling: RopeScaling::None,
        attn_factor: 1.0,
    };
    let plain = RopeTable::new(params, None).expect("dims are even");
    must(
        check_close(
            plain.inverse_frequencies(),
            &[1.0, 0.1, 0.01, 0.001],
            Tolerance {
                abs: 0.0,
                rel: 2e-7,
            },
        ),
        &plain,
    );
    let linear = RopeTable::new(
        RopeParams {
            scaling: RopeScaling::Linear { factor: 4.0 },
            ..params
        },
        None,
    )
    .expect("dims are even");
    must(
        check_close(
            linear.inverse_frequencies(),
            &[0.25, 0.025, 0.0025, 0.00025],
            Tolerance {
                abs: 0.0,
                rel: 2e-7,
            },
        ),
        &linear,
    );
}

#[test]
fn attention_averages_what_it_may_see() {
    let device = Device::reference();
    let shape = KvShape {
        n_layers: 1,
        n_blocks: 3,
        block_len: 2,
        n_kv_heads: 1,
        head_dim_k: 1,
        head_dim_v: 2,
        kv_type: KvType::F32,
    };
    let rows = placed(&device, shape, &[&[2, 0]], &positions(0, 0, 3)).expect("places exist");
    let mut store = KvStore::new(&device, shape).expect("small");
    let k = [0.0, 0.0, 2.0_f32.ln()];
    let v = [1.0, 10.0, 3.0, 30.0, 8.0, 0.0];
    write_kv(&rows, &mut store, 0, [&k, &v]);
    // Two heads share the keys; the second asks with a query twice as large.
    let q = tensor(&device, &[3, 2], &[1.0, 2.0, 1.0, 2.0, 1.0, 2.0]);
    let attended = |params| {
        let mut out = zeros(&device, &[3, 4]);
        ops::attention(&rows, &q, &store, 0, params, &mut out).expect("shapes agree");
        out
    };
    let plain = AttentionParams::scaled(1.0);
    let expected = [
        [1.0, 10.0, 1.0, 10.0],
        [2.0, 20.0, 2.0, 20.0],
        [20.0 / 4.0, 10.0, 36.0 / 6.0, 40.0 / 6.0],
    ];
    check(&attended(plain), expected.as_flattened());

    let window = std::num::NonZeroUsize::new(2);
    let expected = [
        [1.0, 10.0, 1.0, 10.0],
        [2.0, 20.0, 2.0, 20.0],
        [19.0 / 3.0, 10.0, 35.0 / 5.0, 30.0 / 5.0],
    ];
    let windowed = AttentionParams { window, ..plain };
    check(&attended(windowed), expected.as_flattened());

    // A sink of score ln 3 weighs as much as three positions of score 0; the second head's weighs nothing.
    let sinks = tensor(&device, &[2], &[3.0_f32.ln(), f32::NEG_INFINITY]);
    let expected = [
        [1.0 / 4.0, 10.0 / 4.0, 1.0, 10.0],
        [4.0 / 5.0, 40.0 / 5.0, 2.0, 20.0],
        [20.0 / 7.0, 40.0 / 7.0, 36.0 / 6.0, 40.0 / 6.0],
    ];
    let sunk = AttentionParams {
        sinks: Some(&sinks),
        ..plain
    };
    check(&attended(sunk), expected.as_flattened());

    // The third position's scores ln 2 and 2 ln 2 become cap · tanh(score / cap): near the cap's 0.1 both weigh e^0.1, to the seventh decimal.
    let capped = AttentionParams {
        soft_cap: Some(0.1),
        ..plain
    };
    let weight = |score: f32| (0.1 * (score / 0.1).tanh()).exp();
    let last = |weight: f32| [(4.0 + 8.0 * weight) / (2.0 + weight), 40.0 / (2.0 + weight)];
    let expected = [
        [1.0, 10.0, 1.0, 10.0],
        [2.0, 20.0, 2.0, 20.0],
        [last(weight(2.0_f32.ln())), last(weight(4.0_f32.ln()))]
            .concat()
            .try_into()
            .expect("four numbers"),
    ];
    check(&attended(capped), expected.as_flattened());
}

#[test]
fn products_take_biases_and_residuals() {
    let device = Device::reference();
    let weight = tensor(&device, &[2, 2], &[1.0, 2.0, 0.0, -1.0]);
    let bias = tensor(&device, &[2], &[10.0, 20.0]);
    let linear = Linear {
        weight: &weight,
        bias: Some(&bias),
    };
    let x = tensor(&device, &[1, 2], &[3.0, 4.0]);
    let mut out = tensor(&device, &[1, 2], &[100.0, 200.0]);
    ops::matmul_add(linear, &x, &mut out).expect("shapes agree");
    check(&out, &[121.0, 216.0]);
    ops::matmul(linear, &x, &mut out).expect("shapes agree");
    check(&out, &[21.0, 16.0]);
    let mut plain = zeros(&device, &[1, 2]);
    let both = [(linear, &mut out), (Linear::from(&weight), &mut plain)];
    ops::matmul_each(&x, both).expect("shapes agree");
    check(&out, &[21.0, 16.0]);
    check(&plain, &[11.0, -4.0]);
    let mut out = zeros(&device, &[1, 2]);
    let (gate, up) = (Linear::from(&weight), linear);
    ops::gated(gate, up, Activation::Silu, &x, &mut out).expect("shapes agree");
    let silu = |x: f32| x / (1.0 + (-x).exp());
    check(&out, &[silu(11.0) * 21.0, silu(-4.0) * 16.0]);
}

#[test]
fn argmax_is_the_first_of_the_largest() {
    let device = Device::reference();
    let nan = f32::NAN;
    let logits = [
        [1.0, 3.0, 3.0, nan],
        [nan, -5.0, -7.0, -5.0],
        [nan, f32::NEG_INFINITY, nan, nan],
        [0.0, f32::INFINITY, 1.0, f32::INFINITY],
    ];
    let logits = tensor(&device, &[4, 4], logits.as_flattened());
    assert_eq!(picked(&logits), [1, 1, 0, 1]);
}
