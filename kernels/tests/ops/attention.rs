//! Attention through the paged store against the reference.

use std::num::NonZeroUsize;

use kernels::{AttentionParams, Device, KvShape, KvStore, KvType, Tensor, ops};

use crate::support::{
    Random, compare, devices, is_gpu, must, must_fail, placed, positions, tensor, write_kv, zeros,
};

/// Sequences of given lengths in one store; the last rows of each ask.
#[derive(Debug, Clone)]
struct Case {
    n_heads: usize,
    shape: KvShape,
    /// Positions of each sequence, and how many of its last ones ask.
    sequences: Vec<(usize, usize)>,
    seed: u64,
    window: Option<usize>,
    soft_cap: Option<f32>,
    sinks: bool,
}

impl Case {
    /// Keys, values and queries are the same on each device; blocks are handed out in random order.
    fn run(&self, device: &Device) -> Tensor {
        let (shape, mut random) = (self.shape, Random::new(self.seed));
        let mut free = random.shuffled(shape.n_blocks);
        let tables: Vec<Vec<u32>> = self
            .sequences
            .iter()
            .map(|&(len, _)| free.split_off(free.len() - len.div_ceil(shape.block_len)))
            .collect();
        let tables: Vec<&[u32]> = tables.iter().map(Vec::as_slice).collect();
        let mut store = KvStore::new(device, shape).expect("small");
        let mut asking = Vec::new();
        for (table, &(len, last)) in self.sequences.iter().enumerate() {
            let places = positions(table, 0, len);
            let rows = placed(device, shape, &tables, &places).expect("places exist");
            let k = random.numbers(len * shape.n_kv_heads * shape.head_dim_k);
            let v = random.numbers(len * shape.n_kv_heads * shape.head_dim_v);
            write_kv(&rows, &mut store, shape.n_layers - 1, [&k, &v]);
            asking.extend_from_slice(&places[len - last..]);
        }
        let rows = placed(device, shape, &tables, &asking).expect("places exist");
        let q_len = self.n_heads * shape.head_dim_k;
        let queries = random.numbers(asking.len() * q_len);
        let queries: Vec<f32> = queries.iter().map(|n| 4.0 * n).collect();
        let sinks = tensor(device, &[self.n_heads], &random.numbers(self.n_heads));
        let params = AttentionParams {
            scale: 1.0 / (shape.head_dim_k as f32).sqrt(),
            window: self.window.and_then(NonZeroUsize::new),
            soft_cap: self.soft_cap,
            sinks: self.sinks.then_some(&sinks),
        };
        let q = tensor(device, &[asking.len(), q_len], &queries);
        let mut out = zeros(device, &[asking.len(), self.n_heads * shape.head_dim_v]);
        let layer = shape.n_layers - 1;
        ops::attention(&rows, &q, &store, layer, params, &mut out).expect("shapes agree");
        out
    }
}

impl Case {
    /// The case over a store that keeps its numbers in another way.
    fn keeping(mut self, kv_type: KvType) -> Case {
        self.shape.kv_type = kv_type;
        self
    }
}

/// A store in f16 gives other numbers than one in f32, or it would not save anything.
#[test]
fn rounding_keys_and_values_is_seen() {
    for device in devices() {
        let case = cases().remove(2);
        let run = |kv_type| case.clone().keeping(kv_type).run(&device).to_f32();
        let (half, full) = (
            run(KvType::F16).expect("readable"),
            run(KvType::F32).expect("readable"),
        );
        must_fail(compare(&half, &full, |_| ALLOWED), "the rounding to f16");
        must(
            compare(&half, &full, |_| 1e-2),
            &(device.description(), case.clone()),
        );
    }
}

/// Heads from one to grouped, head lengths from 1 to beyond a group of vectors, contexts on either side of a split.
fn plain_cases() -> Vec<Case> {
    let shape = |n_blocks, block_len, n_kv_heads, head_dim_k, head_dim_v| KvShape {
        n_layers: 2,
        n_blocks,
        block_len,
        n_kv_heads,
        head_dim_k,
        head_dim_v,
        kv_type: KvType::F32,
    };
    let case = Case {
        n_heads: 1,
        shape: shape(1, 1, 1, 1, 1),
        sequences: Vec::new(),
        seed: 0,
        window: None,
        soft_cap: None,
        sinks: false,
    };
    vec![
        Case {
            n_heads: 1,
            shape: shape(1, 1, 1, 1, 1),
            sequences: vec![(1, 1)],
            seed: 1,
            ..case.clone()
        },
        Case {
            n_heads: 4,
            shape: shape(40, 7, 2, 9, 5),
            sequences: vec![(3, 3), (50, 2), (7, 1)],
            seed: 2,
            ..case.clone()
        },
        Case {
            n_heads: 6,
            shape: shape(20, 32, 2, 64, 64),
            sequences: vec![(255, 1), (256, 2)],
            seed: 3,
            ..case.clone()
        },
        Case {
            n_heads: 3,
            shape: shape(9, 100, 3, 80, 96),
            sequences: vec![(257, 3), (513, 2)],
            seed: 4,
            ..case.clone()
        },
        Case {
            n_heads: 8,
            shape: shape(50, 16, 1, 128, 128),
            sequences: vec![(769, 1)],
            seed: 5,
            ..case.clone()
        },
        Case {
            n_heads: 2,
            shape: shape(3, 300, 1, 31, 33),
            sequences: vec![(300, 300), (4, 4)],
            seed: 6,
            ..case.clone()
        },
    ]
}

/// The plain cases, then windows within a split, across a cut and longer than any context; each with another feature beside it.
fn cases() -> Vec<Case> {
    let plain = plain_cases();
    let with = |window, soft_cap, sinks| {
        plain.iter().map(move |case| Case {
            window,
            soft_cap,
            sinks,
            ..case.clone()
        })
    };
    let featured: Vec<Case> = with(Some(5), None, true)
        .chain(with(Some(256), Some(3.0), false))
        .chain(with(Some(10_000), None, false))
        .chain(with(None, Some(2.0), true))
        .collect();
    [plain, featured].concat()
}

/// Weights of a softmax sum to one and values are within 1, so errors of scores (a few 1e-6 of at most 4 · sqrt(128)) and of sums over at most 769 positions stay below this.
const ALLOWED: f32 = 2e-5;
/// A GPU multiplies queries and weights as f16 with keys and values that are kept so: each is 2^-11 of itself off, a score of at most 4 · sqrt(128) as much, and signs differ.
const ALLOWED_IN_HALVES: f32 = 1e-3;

#[test]
fn attention_matches_reference() {
    for device in devices() {
        for (case, kv_type) in cases()
            .into_iter()
            .flat_map(|case| [KvType::F32, KvType::F16].map(|kv_type| (case.clone(), kv_type)))
        {
            // Both round keys and values in the same way when they are written.
            let case = case.keeping(kv_type);
            let (found, expected) = (
                case.run(&device).to_f32().expect("readable"),
                case.run(&Device::reference()).to_f32().expect("readable"),
            );
            let in_halves = is_gpu(&device) && kv_type == KvType::F16;
            let allowed = if in_halves {
                ALLOWED_IN_HALVES
            } else {
                ALLOWED
            };
            must(
                compare(&found, &expected, |_| allowed),
                &(device.description(), case),
            );
        }
    }
}

/// The first case has one position: nothing in it can be mixed up.
#[test]
fn planted_faults_in_attention_are_seen() {
    let device = &devices()[1];
    for case in cases().into_iter().filter(|case| case.shape.n_blocks > 1) {
        let expected = case.run(&Device::reference()).to_f32().expect("readable");
        let mut found = case.run(device).to_f32().expect("readable");
        found.swap(0, 1);
        must_fail(
            compare(&found, &expected, |_| ALLOWED),
            "two elements exchanged",
        );
        // Other contents of the store, as if blocks were mixed up.
        let other = Case {
            seed: case.seed + 100,
            ..case
        };
        must_fail(
            compare(
                &other.run(device).to_f32().expect("readable"),
                &expected,
                |_| ALLOWED,
            ),
            "keys and values of another sequence",
        );
    }
}

#[test]
fn a_parameter_that_is_lost_is_seen() {
    for device in devices() {
        let case = &cases()[1];
        let expected = case.run(&Device::reference()).to_f32().expect("readable");
        let lost = |what: &str, other: Case| {
            let found = other.run(&device).to_f32().expect("readable");
            must_fail(compare(&found, &expected, |_| ALLOWED), what);
        };
        let window = Some(49);
        lost(
            "a window one position too short",
            Case {
                window,
                ..case.clone()
            },
        );
        let soft_cap = Some(4.0);
        lost(
            "a soft cap",
            Case {
                soft_cap,
                ..case.clone()
            },
        );
        let sinks = true;
        lost(
            "sinks",
            Case {
                sinks,
                ..case.clone()
            },
        );
    }
}

/// One position too few at a place with a thousandth of the weight must not hide in the tolerance.
#[test]
fn a_missing_position_is_seen() {
    let shape = KvShape {
        n_layers: 1,
        n_blocks: 8,
        block_len: 128,
        n_kv_heads: 1,
        head_dim_k: 8,
        head_dim_v: 8,
        kv_type: KvType::F32,
    };
    for device in devices() {
        let mut store = KvStore::new(&device, shape).expect("small");
        let table: Vec<u32> = (0..8).collect();
        let rows = |first, len| {
            placed(&device, shape, &[&table], &positions(0, first, len)).expect("places exist")
        };
        let mut v = vec![0.0; 8000];
        v[7992..].fill(1.0);
        write_kv(&rows(0, 1000), &mut store, 0, [&vec![0.0; 8000], &v]);
        let ask = |position| {
            let mut out = zeros(&device, &[1, 8]);
            let (rows, q) = (rows(position, 1), zeros(&device, &[1, 8]));
            let params = AttentionParams::scaled(1.0);
            ops::attention(&rows, &q, &store, 0, params, &mut out).expect("shapes agree");
            out.to_f32().expect("readable")
        };
        must(
            compare(&ask(999), &[1e-3; 8], |_| 1e-8),
            &device.description(),
        );
        must_fail(
            compare(&ask(998), &[1e-3; 8], |_| ALLOWED),
            "a missing position",
        );
    }
}
