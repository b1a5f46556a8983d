//! Every operation on the processor beside what the machine can do at most: `just bench-kernels`.
//!
//! Each case first holds its answer against the reference device. Rates are bytes of weights (or of keys and values) for single rows, products (a multiplication and an addition each) for many; the
//! roofline that is printed first says what there was to be had in this run.

#![allow(
    missing_docs,
    clippy::print_stdout,
    reason = "criterion's macros make undocumented functions; a bench prints"
)]

use std::num::NonZeroUsize;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use kernels::ops::AttentionParams;
use kernels::{
    Activation, Device, KvShape, KvStore, KvType, RopeKind, RopeParams, RopeScaling, RopeTable,
    RowIndex, Tensor, ops,
};
use support::{Random, TYPES, packed, placed, positions, tensor, view, zeros};

#[allow(dead_code, reason = "shared with the tests")]
#[path = "../tests/ops/support.rs"]
mod support;

/// Inputs of the products, and outputs of those of many rows.
const N_IN: usize = 2048;
const N_OUT: usize = 8192;
/// Outputs of the products of few rows: weights come from memory, not from a cache.
const N_OUT_STREAMED: usize = 65_536;
/// Rows of a prefill.
const ROWS: usize = 128;

fn device() -> Device {
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    Device::cpu(threads).expect("threads start")
}

fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200));
    group.measurement_time(Duration::from_secs(1));
    group
}

/// Asserts that results are within `share` of the largest expected magnitude.
fn assert_close(found: &Tensor, expected: &Tensor, share: f32, what: &str) {
    let (found, expected) = (
        found.to_f32().expect("readable"),
        expected.to_f32().expect("readable"),
    );
    let largest = expected
        .iter()
        .fold(0.0, |largest: f32, n| largest.max(n.abs()));
    for (found, expected) in found.iter().zip(&expected) {
        assert!(
            (found - expected).abs() <= share * largest,
            "{what}: {found}, expected {expected}"
        );
    }
}

fn roofline(_: &mut Criterion) {
    let device = device();
    println!("{}", device.description());
    let Device::Cpu(cpu) = &device else {
        unreachable!("it was made as one");
    };
    let roofline = cpu.roofline();
    println!(
        "roofline: reads {:.1} GB/s; {:.0} G products of bytes per second, {:.0} G of f32",
        roofline.read_bytes / 1e9,
        roofline.byte_products / 1e9,
        roofline.float_products / 1e9
    );
}

fn products(criterion: &mut Criterion) {
    let (device, reference) = (device(), Device::reference());
    for (name, rows) in [
        ("product, 1 row", 1),
        ("product, 8 rows", 8),
        ("product, many rows", ROWS),
    ] {
        let mut group = group(criterion, name);
        let n_out = if rows == ROWS { N_OUT } else { N_OUT_STREAMED };
        for tensor_type in TYPES {
            let mut random = Random::new(1);
            let bytes = packed(tensor_type, N_IN * n_out, &mut random);
            let numbers = random.numbers(rows * N_IN);
            let on = |device: &Device| {
                let weight = view(device, tensor_type, &[n_out, N_IN], &bytes, 2);
                (
                    weight,
                    tensor(device, &[rows, N_IN], &numbers),
                    zeros(device, &[rows, n_out]),
                )
            };
            let (weight, x, mut out) = on(&device);
            ops::matmul(&weight, &x, &mut out).expect("shapes agree");
            if rows == 1 {
                let (weight, x, mut expected) = on(&reference);
                ops::matmul(&weight, &x, &mut expected).expect("shapes agree");
                assert_close(&out, &expected, 0.02, tensor_type.name());
            }
            group.throughput(if rows == ROWS {
                Throughput::Elements((rows * N_IN * n_out) as u64)
            } else {
                Throughput::Bytes(bytes.len() as u64)
            });
            group.bench_function(tensor_type.name(), |bencher| {
                bencher.iter(|| ops::matmul(&weight, &x, &mut out).expect("shapes agree"));
            });
        }
        group.finish();
    }
}

/// A sequence in a store with keys and values for all of its positions.
struct Context {
    shape: KvShape,
    store: KvStore,
    table: Vec<u32>,
}

const N_HEADS: usize = 32;
const HEAD_DIM: usize = 64;

impl Context {
    fn new(device: &Device, len: usize) -> Context {
        let shape = KvShape {
            n_layers: 1,
            n_blocks: len.div_ceil(32),
            block_len: 32,
            n_kv_heads: 8,
            head_dim_k: HEAD_DIM,
            head_dim_v: HEAD_DIM,
            kv_type: KvType::F16,
        };
        let mut store = KvStore::new(device, shape).expect("small");
        let table = Random::new(3).shuffled(shape.n_blocks);
        let rows = placed(device, shape, &[&table], &positions(0, 0, len)).expect("they fit");
        let mut random = Random::new(4);
        let width = shape.n_kv_heads * HEAD_DIM;
        let mut q = zeros(device, &[len, N_HEADS * HEAD_DIM]);
        let mut k = tensor(device, &[len, width], &random.numbers(len * width));
        let mut v = tensor(device, &[len, width], &random.numbers(len * width));
        ops::rope_and_write(&rows, &rope(), [&mut q, &mut k, &mut v], &mut store, 0)
            .expect("shapes agree");
        Context {
            shape,
            store,
            table,
        }
    }

    fn rows(&self, device: &Device, first: usize, len: usize) -> RowIndex {
        placed(
            device,
            self.shape,
            &[&self.table],
            &positions(0, first, len),
        )
        .expect("they fit")
    }

    fn attend(&self, rows: &RowIndex, q: &Tensor, out: &mut Tensor) {
        ops::attention(rows, q, &self.store, 0, AttentionParams::scaled(0.125), out)
            .expect("shapes agree");
    }
}

fn rope() -> RopeTable {
    let params = RopeParams {
        dims: HEAD_DIM,
        base: 1e4,
        kind: RopeKind::Interleaved,
        scaling: RopeScaling::None,
        attn_factor: 1.0,
    };
    RopeTable::new(params, None).expect("dims are even")
}

fn attention(criterion: &mut Criterion) {
    let (device, reference) = (device(), Device::reference());
    let mut group = group(criterion, "attention");
    for (name, len, asking) in [("1 row of 1024", 1024, 1), ("all rows of 512", 512, 512)] {
        let (ours, truth) = (Context::new(&device, len), Context::new(&reference, len));
        let width = N_HEADS * HEAD_DIM;
        let numbers = Random::new(5).numbers(asking * width);
        let q = tensor(&device, &[asking, width], &numbers);
        let mut out = zeros(&device, &[asking, width]);
        let rows = ours.rows(&device, len - asking, asking);
        ours.attend(&rows, &q, &mut out);
        let mut expected = zeros(&reference, &[asking, width]);
        truth.attend(
            &truth.rows(&reference, len - asking, asking),
            &tensor(&reference, &[asking, width], &numbers),
            &mut expected,
        );
        assert_close(&out, &expected, 1e-3, name);
        let pairs: usize = (len - asking..len).map(|position| position + 1).sum();
        group.throughput(Throughput::Elements(
            (pairs * N_HEADS * 2 * HEAD_DIM) as u64,
        ));
        group.bench_function(name, |bencher| {
            bencher.iter(|| ours.attend(&rows, &q, &mut out))
        });
    }
    group.finish();
}

fn rowwise(criterion: &mut Criterion) {
    let (device, reference) = (device(), Device::reference());
    let mut group = group(criterion, "rowwise, many rows");
    let numbers = Random::new(6).numbers(ROWS * N_IN);
    let on = |device: &Device| {
        (
            tensor(device, &[ROWS, N_IN], &numbers),
            tensor(device, &[N_IN], &numbers[..N_IN]),
            zeros(device, &[ROWS, N_IN]),
        )
    };
    let (x, weight, mut out) = on(&device);
    let (true_x, true_weight, mut expected) = on(&reference);
    group.throughput(Throughput::Bytes((ROWS * N_IN * 8) as u64));
    ops::rms_norm(&x, &weight, 1e-5, &mut out).expect("shapes agree");
    ops::rms_norm(&true_x, &true_weight, 1e-5, &mut expected).expect("shapes agree");
    assert_close(&out, &expected, 1e-5, "rms_norm");
    group.bench_function("rms_norm", |bencher| {
        bencher.iter(|| ops::rms_norm(&x, &weight, 1e-5, &mut out).expect("shapes agree"));
    });
    ops::activate(&x, &x, &mut out, Activation::Silu).expect("shapes agree");
    ops::activate(&true_x, &true_x, &mut expected, Activation::Silu).expect("shapes agree");
    assert_close(&out, &expected, 1e-5, "activate");
    group.bench_function("activate", |bencher| {
        bencher.iter(|| ops::activate(&x, &x, &mut out, Activation::Silu).expect("shapes agree"));
    });
    ops::add(&mut out, &x).expect("shapes agree");
    ops::add(&mut expected, &true_x).expect("shapes agree");
    assert_close(&out, &expected, 1e-5, "add");
    group.bench_function("add", |bencher| {
        bencher.iter(|| ops::add(&mut out, &x).expect("shapes agree"));
    });
    group.finish();
}

criterion_group!(benches, roofline, products, attention, rowwise);
criterion_main!(benches);
