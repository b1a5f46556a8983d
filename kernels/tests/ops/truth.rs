//! The reference device against numbers worked out by hand: everything else is compared with it.

use kernels::{
    Activation, AttentionRows, Device, KvShape, KvSlot, KvStore, RopeKind, RopeParams, RopeScaling,
    RopeTable, RowPlace, Tensor, ops,
};

use crate::support::{Tolerance, check_close, must, tensor, zeros};

fn check(found: &Tensor, expected: &[f32]) {
    must(
        check_close(
            &found.to_f32(),
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
    ops::embed(&table, &[2, 0, 2], &mut out).expect("ids exist");
    check(&out, &[4.0, 5.0, 0.0, 1.0, 4.0, 5.0]);
    let mut last = zeros(&device, &[1, 2]);
    ops::gather_rows(&out, &[1], &mut last).expect("the row exists");
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
    ops::add_bias(&mut x, &tensor(&device, &[2], &[10.0, 20.0])).expect("shapes agree");
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
        let mut x = tensor(
            &device,
            &[2, 5],
            &[numbers, &[1.0, 2.0, 3.0, 4.0, 5.0]].concat(),
        );
        ops::rope(&mut x, &[2, 0], &table, 1).expect("shapes agree");
        x
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
    };
    let mut store = KvStore::new(&device, shape).expect("small");
    let k = tensor(&device, &[3, 1], &[0.0, 0.0, 2.0_f32.ln()]);
    let v = tensor(&device, &[3, 2], &[1.0, 10.0, 3.0, 30.0, 8.0, 0.0]);
    let slots = [(2, 0), (2, 1), (0, 0)].map(|(block, offset)| KvSlot { block, offset });
    ops::kv_write(&mut store, 0, &k, &v, &slots).expect("slots exist");
    // Two heads share the keys; the second asks with a query twice as large.
    let q = tensor(&device, &[3, 2], &[1.0, 2.0, 1.0, 2.0, 1.0, 2.0]);
    let mut out = zeros(&device, &[3, 4]);
    let rows = [0, 1, 2].map(|position| RowPlace { table: 0, position });
    ops::attention(
        &q,
        &store,
        0,
        AttentionRows {
            tables: &[&[2, 0]],
            rows: &rows,
        },
        1.0,
        &mut out,
    )
    .expect("places exist");
    let expected = [
        [1.0, 10.0, 1.0, 10.0],
        [2.0, 20.0, 2.0, 20.0],
        [20.0 / 4.0, 10.0, 36.0 / 6.0, 40.0 / 6.0],
    ];
    check(&out, expected.as_flattened());
}
