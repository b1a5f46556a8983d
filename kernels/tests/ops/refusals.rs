//! Operands that do not fit are refused with what is wrong, and nothing is written then.

use std::num::NonZeroUsize;

use gguf::TensorType;
use kernels::{
    Activation, AttentionRows, Device, KvShape, KvSlot, KvStore, OpError, RopeKind, RopeParams,
    RopeScaling, RopeTable, RowPlace, ops,
};

use crate::support::{all_devices, refused, tensor, view, zeros};

#[test]
fn matrices_are_checked() {
    for device in all_devices() {
        let table = zeros(&device, &[4, 32]);
        let mut out = zeros(&device, &[2, 32]);
        refused(
            ops::embed(&table, &[3, 4], &mut out),
            "embed: token id 4 at entry 1 is out of range, there are 4",
        );
        refused(
            ops::embed(&table, &[3], &mut out),
            "embed: out has shape [2, 32], expected [1, 32]",
        );
        refused(
            ops::embed(&zeros(&device, &[32]), &[3], &mut out),
            "embed: table has shape [32], expected [0, 0]",
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
            ops::embed(&unknown, &[0, 0], &mut zeros(&device, &[2, 256])),
            "embed: table is TQ2_0, which this device does not take here",
        );

        refused(
            ops::gather_rows(&x, &[0, 2], &mut out),
            "gather_rows: row 2 at entry 1 is out of range, there are 2",
        );
        refused(
            ops::gather_rows(&x, &[0], &mut out),
            "gather_rows: out has shape [2, 32], expected [1, 32]",
        );
        assert_eq!(out.to_f32(), [0.0; 64]);
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
            ops::add_bias(&mut out, &half),
            "add_bias: bias is F16, which this device does not take here",
        );
        refused(
            ops::add_bias(&mut out, &zeros(&device, &[2, 32])),
            "add_bias: bias has shape [2, 32], expected [32]",
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

#[test]
fn rope_is_checked() {
    let params = RopeParams {
        dims: 8,
        base: 1e4,
        kind: RopeKind::Halves,
        scaling: RopeScaling::None,
        attn_factor: 1.0,
    };
    let table = RopeTable::new(params, None).expect("dims are even");
    for device in all_devices() {
        let mut x = zeros(&device, &[2, 32]);
        refused(
            ops::rope(&mut x, &[0], &table, 4),
            "rope: 1 positions, expected 2",
        );
        refused(
            ops::rope(&mut x, &[0, 1], &table, 5),
            "rope: x has shape [2, 32], expected [2, 40]",
        );
        refused(
            ops::rope(&mut x, &[0, 1], &table, 8),
            "rope: x has shape [2, 32], expected [2, 64]",
        );
        refused(
            ops::rope(&mut x, &[0, 1], &table, 0),
            "rope: x has shape [2, 32], expected [2, 0]",
        );
        refused(
            ops::rope(&mut x, &[0, 1], &table, usize::MAX),
            &format!("rope: x has shape [2, 32], expected [2, {}]", usize::MAX),
        );
    }
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
};

#[test]
fn slots_are_checked() {
    for device in all_devices() {
        let mut store = KvStore::new(&device, SHAPE).expect("small");
        let (k, v) = (zeros(&device, &[1, 16]), zeros(&device, &[1, 12]));
        let slot = |block, offset| [KvSlot { block, offset }];
        refused(
            ops::kv_write(&mut store, 2, &k, &v, &slot(0, 0)),
            "kv_write: layer 2 at entry 0 is out of range, there are 2",
        );
        refused(
            ops::kv_write(&mut store, 0, &k, &v, &slot(3, 0)),
            "kv_write: block 3 at entry 0 is out of range, there are 3",
        );
        refused(
            ops::kv_write(&mut store, 0, &k, &v, &slot(0, 4)),
            "kv_write: offset 4 at entry 0 is out of range, there are 4",
        );
        refused(
            ops::kv_write(&mut store, 0, &k, &v, &[]),
            "kv_write: 0 slots, expected 1",
        );
        refused(
            ops::kv_write(&mut store, 0, &v, &v, &slot(0, 0)),
            "kv_write: k has shape [1, 12], expected [1, 16]",
        );
        refused(
            ops::kv_write(&mut store, 0, &k, &k, &slot(0, 0)),
            "kv_write: v has shape [1, 16], expected [1, 12]",
        );
    }
}

#[test]
fn contexts_are_checked() {
    for device in all_devices() {
        let store = KvStore::new(&device, SHAPE).expect("small");
        let q = zeros(&device, &[1, 32]);
        let mut out = tensor(&device, &[1, 24], &[7.0; 24]);
        let mut ask = |layer, tables: &[&[u32]], table, position| {
            ops::attention(
                &q,
                &store,
                layer,
                AttentionRows {
                    tables,
                    rows: &[RowPlace { table, position }],
                },
                1.0,
                &mut out,
            )
        };
        refused(
            ask(2, &[&[0]], 0, 0),
            "attention: layer 2 at entry 0 is out of range, there are 2",
        );
        refused(
            ask(0, &[&[0]], 1, 0),
            "attention: table 1 at entry 0 is out of range, there are 1",
        );
        refused(
            ask(0, &[&[0, 1]], 0, 8),
            "attention: position 8 at entry 0 is out of range, there are 8",
        );
        refused(
            ask(0, &[&[0]], 0, u32::MAX),
            "attention: position 4294967295 at entry 0 is out of range, there are 4",
        );
        refused(
            ask(0, &[&[]], 0, 0),
            "attention: position 0 at entry 0 is out of range, there are 0",
        );
        refused(
            ask(0, &[&[0], &[0, 3]], 0, 0),
            "attention: block 3 at entry 1 is out of range, there are 3",
        );
        let none = AttentionRows {
            tables: &[],
            rows: &[],
        };
        refused(
            ops::attention(&q, &store, 0, none, 1.0, &mut out),
            "attention: 0 places, expected 1",
        );
        let odd = zeros(&device, &[1, 24]);
        refused(
            ops::attention(&odd, &store, 0, none, 1.0, &mut out),
            "attention: q has shape [1, 24], expected [1, 16]",
        );
        refused(
            ops::attention(&zeros(&device, &[1, 16]), &store, 0, none, 1.0, &mut out),
            "attention: out has shape [1, 24], expected [1, 12]",
        );
        assert_eq!(out.to_f32(), [7.0; 24], "nothing was written");
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
    let table = RopeTable::new(
        RopeParams {
            dims: 8,
            base: 1e4,
            kind: RopeKind::Halves,
            scaling: RopeScaling::None,
            attn_factor: 1.0,
        },
        None,
    );
    let table = table.expect("dims are even");
    for device in all_devices() {
        let (x, mut y) = (zeros(&device, &[0, 32]), zeros(&device, &[0, 32]));
        let weight = zeros(&device, &[32, 32]);
        ops::embed(&weight, &[], &mut y).expect("embed");
        ops::matmul(&weight, &x, &mut y).expect("matmul");
        ops::rms_norm(&x, &zeros(&device, &[32]), 1e-5, &mut y).expect("rms_norm");
        ops::add(&mut y, &x).expect("add");
        ops::add_bias(&mut y, &zeros(&device, &[32])).expect("add_bias");
        ops::activate(&x, &x, &mut zeros(&device, &[0, 32]), Activation::Silu).expect("activate");
        ops::rope(&mut y, &[], &table, 4).expect("rope");
        ops::gather_rows(&weight, &[], &mut y).expect("gather_rows");
        let mut store = KvStore::new(&device, SHAPE).expect("small");
        ops::kv_write(
            &mut store,
            0,
            &zeros(&device, &[0, 16]),
            &zeros(&device, &[0, 12]),
            &[],
        )
        .expect("kv_write");
        let none = AttentionRows {
            tables: &[],
            rows: &[],
        };
        ops::attention(
            &zeros(&device, &[0, 32]),
            &store,
            0,
            none,
            1.0,
            &mut zeros(&device, &[0, 24]),
        )
        .expect("attention");
    }
}
