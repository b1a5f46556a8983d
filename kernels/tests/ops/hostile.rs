//! Values that no honest file holds: nothing panics, and what is not a number does not come out as one.

use gguf::TensorType;
use kernels::{
    Activation, AttentionParams, Device, KvShape, KvStore, KvType, RopeKind, RopeParams,
    RopeScaling, RopeTable, RowPlace, Tensor, ops,
};

use crate::support::{
    Random, all_devices, placed, positions, roped, tensor, tokens, view, write_kv, zeros,
};

const ODD: [f32; 10] = [
    f32::NAN,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::MAX,
    f32::MIN,
    f32::MIN_POSITIVE,
    1e-45,
    -0.0,
    0.0,
    1.0,
];

/// `rows` rows of odd values in changing order.
fn odd(device: &Device, rows: usize, cols: usize, seed: u64) -> Tensor {
    let mut random = Random::new(seed);
    let numbers: Vec<f32> = (0..rows * cols)
        .map(|_| ODD[random.below(ODD.len())])
        .collect();
    tensor(device, &[rows, cols], &numbers)
}

#[test]
fn any_bytes_may_be_weights() {
    for device in all_devices() {
        for tensor_type in crate::support::TYPES {
            for (seed, rows) in [1, 2, 9].into_iter().enumerate() {
                let mut random = Random::new(seed as u64);
                let len = tensor_type.row_bytes(256).expect("whole blocks") * 19;
                let bytes: Vec<u8> = (0..len).map(|_| random.bits().to_le_bytes()[0]).collect();
                let weight = view(&device, tensor_type, &[19, 256], &bytes, 1);
                let mut out = zeros(&device, &[rows, 19]);
                ops::matmul(&weight, &odd(&device, rows, 256, 1), &mut out).expect("shapes agree");
                ops::matmul(
                    &weight,
                    &tensor(&device, &[rows, 256], &random.numbers(rows * 256)),
                    &mut out,
                )
                .expect("shapes agree");
                let mut embedded = zeros(&device, &[2, 256]);
                let rows = tokens(&device, 19, &[18, 0], &[]).expect("ids exist");
                ops::embed(&rows, &weight, &mut embedded).expect("shapes agree");
            }
        }
    }
}

#[test]
fn an_activation_that_is_no_number_spoils_its_row_only() {
    for device in all_devices() {
        for tensor_type in crate::support::TYPES {
            for spoilt in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut random = Random::new(3);
                let weight = crate::support::weight(&device, tensor_type, &[5, 256], &mut random);
                let mut x = random.numbers(6 * 256);
                x[2 * 256 + 40] = spoilt;
                let mut out = zeros(&device, &[6, 5]);
                ops::matmul(&weight, &tensor(&device, &[6, 256], &x), &mut out)
                    .expect("shapes agree");
                for (row, values) in out.to_f32().expect("readable").chunks(5).enumerate() {
                    let finite = values.iter().all(|value| value.is_finite());
                    let spoilt_row = row == 2 && values.iter().all(|value| !value.is_finite());
                    assert!(
                        if row == 2 { spoilt_row } else { finite },
                        "{} {tensor_type} {spoilt} row {row}: {values:?}",
                        device.description()
                    );
                }
            }
        }
    }
}

#[test]
fn odd_values_pass_through_rowwise_operations() {
    for device in all_devices() {
        for cols in [1, 8, 37] {
            let mut x = odd(&device, 4, cols, 5);
            let mut out = zeros(&device, &[4, cols]);
            let weight = tensor(
                &device,
                &[cols],
                &odd(&device, 1, cols, 6).to_f32().expect("readable"),
            );
            ops::rms_norm(&x, &weight, 0.0, &mut out).expect("shapes agree");
            ops::activate(&x, &odd(&device, 4, cols, 7), &mut out, Activation::Silu)
                .expect("shapes agree");
            ops::add(&mut x, &out).expect("shapes agree");
            let params = RopeParams {
                dims: cols - cols % 2,
                base: f32::NAN,
                kind: RopeKind::Halves,
                scaling: RopeScaling::Linear { factor: 0.0 },
                attn_factor: 1.0,
            };
            let table = RopeTable::new(params, None).expect("dims are even");
            roped(
                &device,
                &x.to_f32().expect("readable"),
                &[0, 1, 100_000, 7],
                &table,
                1,
            );
        }
    }
}

#[test]
fn odd_scores_end_in_something() {
    let shape = KvShape {
        n_layers: 1,
        n_blocks: 2,
        block_len: 200,
        n_kv_heads: 1,
        head_dim_k: 3,
        head_dim_v: 3,
        kv_type: KvType::F32,
    };
    for device in all_devices() {
        let mut store = KvStore::new(&device, shape).expect("small");
        let rows =
            |places: &[RowPlace]| placed(&device, shape, &[&[0, 1]], places).expect("places exist");
        let [k, v] = [1, 2].map(|seed| odd(&device, 300, 3, seed).to_f32().expect("readable"));
        write_kv(&rows(&positions(0, 0, 300)), &mut store, 0, [&k, &v]);
        let mut out = zeros(&device, &[2, 3]);
        let rows = rows(&[3, 299].map(|position| RowPlace { table: 0, position }));
        for soft_cap in [None, Some(2.0), Some(f32::NAN)] {
            let sinks = odd(&device, 1, 1, 4).to_f32().expect("readable");
            let sinks = tensor(&device, &[1], &sinks);
            let params = AttentionParams {
                soft_cap,
                sinks: Some(&sinks),
                ..AttentionParams::scaled(1.0)
            };
            let q = odd(&device, 2, 3, 3);
            ops::attention(&rows, &q, &store, 0, params, &mut out).expect("shapes agree");
        }
    }
}

/// Every score is as small as it gets, so that a softmax that does not take the largest off divides zero by zero.
#[test]
fn large_scores_neither_overflow_nor_vanish() {
    let shape = KvShape {
        n_layers: 1,
        n_blocks: 1,
        block_len: 600,
        n_kv_heads: 1,
        head_dim_k: 1,
        head_dim_v: 1,
        kv_type: KvType::F32,
    };
    for device in all_devices() {
        let mut store = KvStore::new(&device, shape).expect("small");
        let rows = |first, len| {
            placed(&device, shape, &[&[0]], &positions(0, first, len)).expect("places exist")
        };
        write_kv(&rows(0, 600), &mut store, 0, [&[1.0; 600], &[1.0; 600]]);
        for score in [-1e30, -1e4, 1e4, 1e30] {
            let mut out = zeros(&device, &[1, 1]);
            let (rows, q) = (rows(599, 1), tensor(&device, &[1, 1], &[score]));
            let params = AttentionParams::scaled(1.0);
            ops::attention(&rows, &q, &store, 0, params, &mut out).expect("shapes agree");
            assert!(
                (out.to_f32().expect("readable")[0] - 1.0).abs() < 1e-6,
                "{} {score}: {:?}",
                device.description(),
                out.to_f32().expect("readable")
            );
        }
    }
}

#[test]
fn zeros_stay_zeros_where_a_block_has_no_scale() {
    for device in all_devices() {
        let weight = view(&device, TensorType::Q8_0, &[1, 32], &[0; 34], 0);
        let mut out = tensor(&device, &[1, 1], &[7.0]);
        ops::matmul(&weight, &zeros(&device, &[1, 32]), &mut out).expect("shapes agree");
        assert_eq!(out.to_f32().expect("readable"), [0.0]);
    }
}
