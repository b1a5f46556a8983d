//! Operands that do not fit are refused with what is wrong, and nothing is written then.

use std::num::NonZeroUsize;

use gguf::TensorType;
use kernels::{
    Activation, AttentionParams, Device, KvShape, KvStore, KvType, Linear, OpError, Picks,
    RopeKind, RopeParams, RopeScaling, RopeTable, RowIndex, RowPlace, StepRows, Tensor, ops,
};

use crate::support::{
    all_devices, no_rope, picked, placed, positions, refused, tensor, tokens, view, zeros,
};

fn embedded(ids: &[u32], table: &Tensor, out: &mut Tensor) -> Result<(), OpError> {
    ops::embed(&tokens(table.device(), 4, ids, &[])?, table, out)
}

#[test]
fn matrices_are_checked() {
    for device in all_devices() {
        let table = zeros(&device, &[4, 32]);
        let mut out = zeros(&device, &[2, 32]);
        refused(
            embedded(&[3, 4], &table, &mut out),
            "row index: token id 4 at entry 1 is out of range, there are 4",
        );
        refused(
            embedded(&[3], &table, &mut out),
            "embed: out has shape [2, 32], expected [1, 32]",
        );
        refused(
            embedded(&[3], &zeros(&device, &[32]), &mut out),
            "embed: table has shape [32], expected [0, 0]",
        );

        refused(
            embedded(&[2, 1], &zeros(&device, &[3, 32]), &mut out),
            "embed: the row index was made for n_vocab = 4, found 3",
        );
        let x = zeros(&device, &[2, 32]);
        refused(
            ops::matmul(&table, &x, &mut out),
            "matmul: out has shape [2, 32], expected [2, 4]",
        );
        refused(
            ops::matmul(&table, &zeros(&device, &[2, 31]), &mut out),
            "matmul: x has shape [2, 31], expected [2, 32]",
        );
        let unknown = view(&device, TensorType::TQ2_0, &[4, 256], &[0; 4 * 66], 0);
        refused(
            ops::matmul(
                &unknown,
                &zeros(&device, &[2, 256]),
                &mut zeros(&device, &[2, 4]),
            ),
            "matmul: weight is TQ2_0, which this device does not take here",
        );
        refused(
            embedded(&[0, 0], &unknown, &mut zeros(&device, &[2, 256])),
            "embed: table is TQ2_0, which this device does not take here",
        );

        let gathered = |ids: &[u32], logit_rows: &[u32], out: &mut Tensor| {
            ops::gather_rows(&tokens(&device, 4, ids, logit_rows)?, &x, out)
        };
        refused(
            gathered(&[0, 0], &[0, 2], &mut out),
            "row index: logit row 2 at entry 1 is out of range, there are 2",
        );
        refused(
            gathered(&[0, 0], &[0], &mut out),
            "gather_rows: out has shape [2, 32], expected [1, 32]",
        );
        refused(
            gathered(&[0], &[0, 0], &mut out),
            "gather_rows: x has shape [2, 32], expected [1, 32]",
        );
        assert_eq!(out.to_f32().expect("readable"), [0.0; 64]);
    }
}

#[test]
fn rows_and_elements_are_checked() {
    for device in all_devices() {
        let (x, mut out) = (zeros(&device, &[2, 32]), zeros(&device, &[2, 32]));
        let narrow = zeros(&device, &[2, 31]);
        refused(
            ops::rms_norm(&x, &zeros(&device, &[31]), 1e-5, &mut out),
            "rms_norm: weight has shape [31], expected [32]",
        );
        refused(
            ops::rms_norm(&narrow, &zeros(&device, &[31]), 1e-5, &mut out),
            "rms_norm: out has shape [2, 32], expected [2, 31]",
        );
        let half = view(&device, TensorType::F16, &[32], &[0; 64], 0);
        refused(
            ops::rms_norm(&x, &half, 1e-5, &mut out),
            "rms_norm: weight is F16, which this device does not take here",
        );
        refused(
            ops::add(&mut out, &narrow),
            "add: x has shape [2, 32], expected [2, 31]",
        );
        refused(
            ops::activate(&x, &narrow, &mut out, Activation::Silu),
            "activate: up has shape [2, 31], expected [2, 32]",
        );
        let mut three = zeros(&device, &[3, 32]);
        refused(
            ops::activate(&x, &x, &mut three, Activation::Silu),
            "activate: out has shape [3, 32], expected [2, 32]",
        );
    }
}

#[test]
fn activations_must_own_their_memory() {
    for device in all_devices() {
        let mut seen = view(&device, TensorType::F32, &[2, 32], &[0; 256], 0);
        let own = zeros(&device, &[2, 32]);
        refused(
            ops::add(&mut seen, &own),
            "add: x is a view, activations must own their memory",
        );
        refused(
            ops::matmul(&own, &seen, &mut zeros(&device, &[2, 2])),
            "matmul: x is a view, activations must own their memory",
        );
        refused(
            seen.set_rows(1),
            "set_rows: tensor is a view, activations must own their memory",
        );
    }
}

/// Where one of several products is refused, none is computed.
#[test]
fn products_are_checked_before_any_is_computed() {
    for device in all_devices() {
        let (weight, x) = (
            tensor(&device, &[4, 32], &[1.0; 128]),
            tensor(&device, &[2, 32], &[1.0; 64]),
        );
        let biased = |bias| Linear {
            weight: &weight,
            bias: Some(bias),
        };
        let (mut a, mut b) = (zeros(&device, &[2, 4]), zeros(&device, &[2, 5]));
        refused(
            ops::matmul_each(
                &x,
                [
                    (Linear::from(&weight), &mut a),
                    (Linear::from(&weight), &mut b),
                ],
            ),
            "matmul_each: out has shape [2, 5], expected [2, 4]",
        );
        let long = zeros(&device, &[5]);
        refused(
            ops::matmul_add(biased(&long), &x, &mut a),
            "matmul_add: bias has shape [5], expected [4]",
        );
        let half = view(&device, TensorType::F16, &[4], &[0; 8], 0);
        refused(
            ops::matmul(biased(&half), &x, &mut a),
            "matmul: bias is F16, which this device does not take here",
        );
        let other = zeros(&device, &[3, 32]);
        refused(
            ops::gated(
                Linear::from(&weight),
                Linear::from(&other),
                Activation::Silu,
                &x,
                &mut a,
            ),
            "gated: up has shape [3, 32], expected [4, 32]",
        );
        refused(
            ops::gated(
                Linear::from(&weight),
                Linear::from(&weight),
                Activation::Silu,
                &x,
                &mut b,
            ),
            "gated: out has shape [2, 5], expected [2, 4]",
        );
        let mut picks = Picks::new(&device, 1).expect("small");
        refused(ops::argmax(&a, &mut picks), "argmax: 2 rows, expected 1");
        refused(picks.read(2).map(|_| ()), "picks: 2 rows, expected 1");
        assert_eq!(
            a.to_f32().expect("readable"),
            [0.0; 8],
            "nothing was written"
        );
    }
}

#[test]
fn rope_tables_are_checked() {
    let params = RopeParams {
        dims: 8,
        base: 1e4,
        kind: RopeKind::Halves,
        scaling: RopeScaling::None,
        attn_factor: 1.0,
    };
    let odd = RopeTable::new(RopeParams { dims: 7, ..params }, None);
    assert!(
        matches!(
            odd,
            Err(OpError::Shape {
                operand: "dims",
                ..
            })
        ),
        "{odd:?}"
    );
    let short = RopeTable::new(params, Some(&[1.0; 3]));
    assert!(
        matches!(
            short,
            Err(OpError::Shape {
                operand: "factors",
                ..
            })
        ),
        "{short:?}"
    );
}

const SHAPE: KvShape = KvShape {
    n_layers: 2,
    n_blocks: 3,
    block_len: 4,
    n_kv_heads: 2,
    head_dim_k: 8,
    head_dim_v: 6,
    kv_type: KvType::F32,
};

#[test]
fn keys_and_values_are_checked() {
    let wide = RopeParams {
        dims: 10,
        base: 1e4,
        kind: RopeKind::Halves,
        scaling: RopeScaling::None,
        attn_factor: 1.0,
    };
    let wide = RopeTable::new(wide, None).expect("dims are even");
    for device in all_devices() {
        let rows = placed(&device, SHAPE, &[&[0]], &positions(0, 0, 1)).expect("the place exists");
        let mut store = KvStore::new(&device, SHAPE).expect("small");
        let mut write = |rope: &RopeTable, layer, widths: [usize; 3]| {
            let [mut q, mut k, mut v] = widths.map(|width| zeros(&device, &[1, width]));
            ops::rope_and_write(&rows, rope, [&mut q, &mut k, &mut v], &mut store, layer)
        };
        let rope = no_rope();
        refused(
            write(&rope, 2, [32, 16, 12]),
            "rope_and_write: layer 2 at entry 0 is out of range, there are 2",
        );
        refused(
            write(&rope, 0, [24, 16, 12]),
            "rope_and_write: q has shape [1, 24], expected [1, 16]",
        );
        refused(
            write(&rope, 0, [32, 12, 12]),
            "rope_and_write: k has shape [1, 12], expected [1, 16]",
        );
        refused(
            write(&rope, 0, [32, 16, 16]),
            "rope_and_write: v has shape [1, 16], expected [1, 12]",
        );
        refused(
            write(&wide, 0, [32, 16, 12]),
            "rope_and_write: q has shape [1, 32], expected [1, 40]",
        );
    }
}

#[test]
fn indices_are_checked_when_they_are_set() {
    for device in all_devices() {
        let place = |table, position| [RowPlace { table, position }];
        let set = |tables: &[&[u32]], places: &[RowPlace]| {
            placed(&device, SHAPE, tables, places).map(|_| ())
        };
        refused(
            set(&[&[0]], &place(1, 0)),
            "row index: table 1 at entry 0 is out of range, there are 1",
        );
        refused(
            set(&[&[0, 1]], &place(0, 8)),
            "row index: position 8 at entry 0 is out of range, there are 8",
        );
        refused(
            set(&[&[0]], &place(0, u32::MAX)),
            "row index: position 4294967295 at entry 0 is out of range, there are 4",
        );
        refused(
            set(&[&[]], &place(0, 0)),
            "row index: position 0 at entry 0 is out of range, there are 0",
        );
        refused(
            set(&[&[0], &[0, 3]], &place(0, 0)),
            "row index: block 3 at entry 1 is out of range, there are 3",
        );

        let mut index = tokens(&device, 4, &[1, 2], &[1]).expect("ids exist");
        let two = [place(0, 0), place(0, 0)].concat();
        let mut set = |ids: &[u32], places: &[RowPlace], logit_rows: &[u32]| {
            index.set(StepRows {
                ids,
                places,
                tables: &[&[0]],
                logit_rows,
            })
        };
        refused(
            set(&[0; 3], &[two.as_slice(), &two].concat()[..3], &[]),
            "row index: 3 rows, expected 2",
        );
        refused(
            set(&[0; 2], &two, &[0, 1]),
            "row index: 2 logit rows, expected 1",
        );
        refused(
            set(&[0; 2], &two[..1], &[]),
            "row index: 1 places, expected 2",
        );
        assert_eq!(index.n_rows(), 2, "the rows are as they were");
    }
}

#[test]
fn contexts_are_checked() {
    for device in all_devices() {
        let store = KvStore::new(&device, SHAPE).expect("small");
        let mut out = tensor(&device, &[1, 24], &[7.0; 24]);
        let mut ask = |kv: KvShape, n_rows, layer, q: usize, sinks: Option<&Tensor>| {
            let rows = placed(&device, kv, &[&[0]], &positions(0, 0, n_rows))?;
            let params = AttentionParams {
                sinks,
                ..AttentionParams::scaled(1.0)
            };
            let q = zeros(&device, &[1, q]);
            ops::attention(&rows, &q, &store, layer, params, &mut out)
        };
        refused(
            ask(SHAPE, 1, 2, 32, None),
            "attention: layer 2 at entry 0 is out of range, there are 2",
        );
        refused(
            ask(SHAPE, 2, 0, 32, None),
            "attention: q has shape [1, 32], expected [2, 32]",
        );
        refused(
            ask(SHAPE, 1, 0, 24, None),
            "attention: q has shape [1, 24], expected [1, 16]",
        );
        refused(
            ask(SHAPE, 1, 0, 16, None),
            "attention: out has shape [1, 24], expected [1, 12]",
        );
        refused(
            ask(SHAPE, 1, 0, 32, Some(&zeros(&device, &[3]))),
            "attention: sinks has shape [3], expected [4]",
        );
        let larger = KvShape {
            n_blocks: 4,
            ..SHAPE
        };
        refused(
            ask(larger, 1, 0, 32, None),
            "attention: the row index was made for n_blocks = 4, found 3",
        );
        let other = KvShape {
            block_len: 5,
            ..SHAPE
        };
        refused(
            ask(other, 1, 0, 32, None),
            "attention: the row index was made for block_len = 5, found 4",
        );
        assert_eq!(
            out.to_f32().expect("readable"),
            [7.0; 24],
            "nothing was written"
        );
    }
}

#[test]
fn devices_do_not_mix() {
    let two = NonZeroUsize::new(2).expect("not zero");
    let (cpu, other) = (
        Device::cpu(two).expect("threads start"),
        Device::cpu(two).expect("threads start"),
    );
    assert!(
        cpu.same_as(&cpu.clone()) && !cpu.same_as(&other) && !cpu.same_as(&Device::reference())
    );
    let weight = zeros(&cpu, &[4, 32]);
    let mut out = zeros(&cpu, &[1, 4]);
    for stranger in [&other, &Device::reference()] {
        let outcome = ops::matmul(&weight, &zeros(stranger, &[1, 32]), &mut out);
        assert!(
            matches!(
                outcome,
                Err(OpError::Device {
                    op: "matmul",
                    operand: "x",
                    ..
                })
            ),
            "{outcome:?}"
        );
        let outcome = ops::add(&mut out, &zeros(stranger, &[1, 4]));
        assert!(
            matches!(
                outcome,
                Err(OpError::Device {
                    op: "add",
                    operand: "x",
                    ..
                })
            ),
            "{outcome:?}"
        );
    }
}

#[test]
fn no_rows_are_fine_everywhere() {
    for device in all_devices() {
        let (x, mut y) = (zeros(&device, &[0, 32]), zeros(&device, &[0, 32]));
        let weight = zeros(&device, &[32, 32]);
        let linear = Linear::from(&weight);
        let mut rows = RowIndex::of(&device, 32, SHAPE, NO_ROWS).expect("nothing is wrong");
        rows.set(NO_ROWS).expect("nothing is wrong");
        ops::embed(&rows, &weight, &mut y).expect("embed");
        ops::matmul(&weight, &x, &mut y).expect("matmul");
        ops::matmul_add(&weight, &x, &mut y).expect("matmul_add");
        ops::matmul_each(&x, [(linear, &mut y)]).expect("matmul_each");
        ops::gated(linear, linear, Activation::Silu, &x, &mut y).expect("gated");
        ops::rms_norm(&x, &zeros(&device, &[32]), 1e-5, &mut y).expect("rms_norm");
        ops::add(&mut y, &x).expect("add");
        ops::activate(&x, &x, &mut zeros(&device, &[0, 32]), Activation::Silu).expect("activate");
        ops::gather_rows(&rows, &x, &mut y).expect("gather_rows");
        assert!(picked(&y).is_empty());
        let mut store = KvStore::new(&device, SHAPE).expect("small");
        let [mut q, mut k, mut v] = [32, 16, 12].map(|width| zeros(&device, &[0, width]));
        let qkv = [&mut q, &mut k, &mut v];
        ops::rope_and_write(&rows, &no_rope(), qkv, &mut store, 0).expect("rope_and_write");
        let params = AttentionParams::scaled(1.0);
        let mut out = zeros(&device, &[0, 24]);
        ops::attention(&rows, &q, &store, 0, params, &mut out).expect("attention");
    }
}

const NO_ROWS: StepRows<'static> = StepRows {
    ids: &[],
    places: &[],
    tables: &[],
    logit_rows: &[],
};
