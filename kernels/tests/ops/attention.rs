//! Attention through the paged store against the reference.

use kernels::{AttentionRows, Device, KvShape, KvSlot, KvStore, RowPlace, Tensor, ops};

use crate::support::{Random, compare, devices, must, must_fail, tensor, zeros};

/// Sequences of given lengths in one store; the last rows of each ask.
#[derive(Debug, Clone)]
struct Case {
    n_heads: usize,
    shape: KvShape,
    /// Positions of each sequence, and how many of its last ones ask.
    sequences: Vec<(usize, usize)>,
    seed: u64,
}

impl Case {
    /// Keys, values and queries are the same on each device; blocks are handed out in random order.
    fn run(&self, device: &Device) -> Tensor {
        let (shape, mut random) = (self.shape, Random::new(self.seed));
        let mut free = random.shuffled(shape.n_blocks);
        let mut store = KvStore::new(device, shape).expect("small");
        let (mut tables, mut places) = (Vec::new(), Vec::new());
        for &(len, asking) in &self.sequences {
            let table: Vec<u32> = (0..len.div_ceil(shape.block_len))
                .map(|_| free.pop().expect("enough blocks"))
                .collect();
            let slots: Vec<KvSlot> = (0..len)
                .map(|position| slot(&table, position, shape.block_len))
                .collect();
            let k = tensor(
                device,
                &[len, shape.n_kv_heads * shape.head_dim_k],
                &random.numbers(len * shape.n_kv_heads * shape.head_dim_k),
            );
            let v = tensor(
                device,
                &[len, shape.n_kv_heads * shape.head_dim_v],
                &random.numbers(len * shape.n_kv_heads * shape.head_dim_v),
            );
            ops::kv_write(&mut store, shape.n_layers - 1, &k, &v, &slots).expect("slots exist");
            let table_index = u32::try_from(tables.len()).expect("few");
            places.extend((len - asking..len).map(|position| RowPlace {
                table: table_index,
                position: u32::try_from(position).expect("small"),
            }));
            tables.push(table);
        }
        let tables: Vec<&[u32]> = tables.iter().map(Vec::as_slice).collect();
        let q_len = self.n_heads * shape.head_dim_k;
        let queries: Vec<f32> = random
            .numbers(places.len() * q_len)
            .iter()
            .map(|n| 4.0 * n)
            .collect();
        let mut out = zeros(device, &[places.len(), self.n_heads * shape.head_dim_v]);
        let scale = 1.0 / (shape.head_dim_k as f32).sqrt();
        let rows = AttentionRows {
            tables: &tables,
            rows: &places,
        };
        ops::attention(
            &tensor(device, &[places.len(), q_len], &queries),
            &store,
            shape.n_layers - 1,
            rows,
            scale,
            &mut out,
        )
        .expect("places exist");
        out
    }
}

fn slot(table: &[u32], position: usize, block_len: usize) -> KvSlot {
    KvSlot {
        block: table[position / block_len],
        offset: u32::try_from(position % block_len).expect("small"),
    }
}

/// Heads from one to grouped, head lengths from 1 to beyond a group of vectors, contexts on either side of a split.
fn cases() -> Vec<Case> {
    let shape = |n_blocks, block_len, n_kv_heads, head_dim_k, head_dim_v| KvShape {
        n_layers: 2,
        n_blocks,
        block_len,
        n_kv_heads,
        head_dim_k,
        head_dim_v,
    };
    vec![
        Case {
            n_heads: 1,
            shape: shape(1, 1, 1, 1, 1),
            sequences: vec![(1, 1)],
            seed: 1,
        },
        Case {
            n_heads: 4,
            shape: shape(40, 7, 2, 9, 5),
            sequences: vec![(3, 3), (50, 2), (7, 1)],
            seed: 2,
        },
        Case {
            n_heads: 6,
            shape: shape(20, 32, 2, 64, 64),
            sequences: vec![(255, 1), (256, 2)],
            seed: 3,
        },
        Case {
            n_heads: 3,
            shape: shape(9, 100, 3, 80, 96),
            sequences: vec![(257, 3), (513, 2)],
            seed: 4,
        },
        Case {
            n_heads: 8,
            shape: shape(50, 16, 1, 128, 128),
            sequences: vec![(769, 1)],
            seed: 5,
        },
        Case {
            n_heads: 2,
            shape: shape(3, 300, 1, 31, 33),
            sequences: vec![(300, 300), (4, 4)],
            seed: 6,
        },
    ]
}

/// Weights of a softmax sum to one and values are within 1, so errors of scores (a few 1e-6 of at most 4 · sqrt(128)) and of sums over at most 769 positions stay below this.
const ALLOWED: f32 = 2e-5;

#[test]
fn attention_matches_reference() {
    for device in devices() {
        for case in cases() {
            let (found, expected) = (
                case.run(&device).to_f32(),
                case.run(&Device::reference()).to_f32(),
            );
            must(
                compare(&found, &expected, |_| ALLOWED),
                &(device.description(), case),
            );
        }
    }
}

#[test]
fn planted_faults_in_attention_are_seen() {
    let device = &devices()[1];
    for case in cases().into_iter().skip(1) {
        let expected = case.run(&Device::reference()).to_f32();
        let mut found = case.run(device).to_f32();
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
            compare(&other.run(device).to_f32(), &expected, |_| ALLOWED),
            "keys and values of another sequence",
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
    };
    for device in devices() {
        let mut store = KvStore::new(&device, shape).expect("small");
        let table: Vec<u32> = (0..8).collect();
        let slots: Vec<KvSlot> = (0..1000)
            .map(|position| slot(&table, position, 128))
            .collect();
        let k = zeros(&device, &[1000, 8]);
        let mut v = vec![0.0; 8000];
        v[7992..].fill(1.0);
        ops::kv_write(&mut store, 0, &k, &tensor(&device, &[1000, 8], &v), &slots)
            .expect("slots exist");
        let ask = |position| {
            let mut out = zeros(&device, &[1, 8]);
            let rows = AttentionRows {
                tables: &[&table],
                rows: &[RowPlace { table: 0, position }],
            };
            ops::attention(&zeros(&device, &[1, 8]), &store, 0, rows, 1.0, &mut out)
                .expect("the place exists");
            out.to_f32()
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
