//! A row's result is the same bits alone and in any company: rows beside it, threads, cuts of a prompt, blocks that hold its context.

use std::num::NonZeroUsize;

use gguf::TensorType;
use kernels::{
    Activation, AttentionParams, Device, KvShape, KvStore, KvType, Linear, RopeKind, RopeParams,
    RopeScaling, RopeTable, RowIndex, RowPlace, StepRows, Tensor, ops,
};
use proptest::prelude::*;

use crate::support::{Random, TYPES, bits, tensor, weight, zeros};

/// The instruction sets of this machine, each with one thread and with several.
fn families() -> Vec<Vec<Device>> {
    let threads = [1, 2, 5].map(|n| NonZeroUsize::new(n).expect("not zero"));
    let by_threads = threads.map(|n| Device::cpu_each(n).expect("threads start"));
    let family = |isa: usize| by_threads.iter().map(|each| each[isa].clone()).collect();
    (0..by_threads[0].len()).map(family).collect()
}

const HEADS: usize = 4;
const KV_HEADS: usize = 2;

/// A small layer of random weights: everything that happens to a row between two residual streams.
struct Layer {
    embedding: Tensor,
    norm: Tensor,
    bias: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attended: Tensor,
    gate: Tensor,
    up: Tensor,
    down: Tensor,
    rope: RopeTable,
    window: Option<NonZeroUsize>,
    n_embd: usize,
    head_dim: usize,
}

/// A run of a prompt: `len` rows of sequence `sequence`, from its next position on.
#[derive(Debug, Clone, Copy)]
struct Run {
    sequence: usize,
    len: usize,
}

impl Layer {
    fn random(device: &Device, tensor_type: TensorType, head_dim: usize, seed: u64) -> Layer {
        let mut random = Random::new(seed);
        let (n_embd, n_ff) = (HEADS * head_dim, 3 * HEADS * head_dim);
        let mut matrix = |rows, cols| weight(device, tensor_type, &[rows, cols], &mut random);
        let (q, k, v) = (
            matrix(n_embd, n_embd),
            matrix(KV_HEADS * head_dim, n_embd),
            matrix(KV_HEADS * head_dim, n_embd),
        );
        let (attended, gate, up, down) = (
            matrix(n_embd, n_embd),
            matrix(n_ff, n_embd),
            matrix(n_ff, n_embd),
            matrix(n_embd, n_ff),
        );
        let embedding = matrix(50, n_embd);
        let mut vector = || weight(device, TensorType::F32, &[n_embd], &mut random);
        let (norm, bias) = (vector(), vector());
        let params = RopeParams {
            dims: head_dim,
            base: 1e4,
            kind: RopeKind::Interleaved,
            scaling: RopeScaling::None,
            attn_factor: 1.0,
        };
        let rope = RopeTable::new(params, None).expect("dims are even");
        Layer {
            embedding,
            norm,
            bias,
            q,
            k,
            v,
            attended,
            gate,
            up,
            down,
            rope,
            // Half of the layers look back a little further than a split.
            window: NonZeroUsize::new(270).filter(|_| seed.is_multiple_of(2)),
            n_embd,
            head_dim,
        }
    }

    fn device(&self) -> &Device {
        self.norm.device()
    }

    fn normed(&self, x: &Tensor) -> Tensor {
        let mut out = zeros(self.device(), x.shape());
        ops::rms_norm(x, &self.norm, 1e-5, &mut out).expect("shapes agree");
        out
    }

    /// One batch through the layer. Returns the rows' residual stream: `[rows, n_embd]`.
    fn forward(
        &self,
        store: &mut KvStore,
        tables: &[&[u32]],
        ids: &[u32],
        places: &[RowPlace],
    ) -> Tensor {
        let step = StepRows {
            ids,
            places,
            tables,
            logit_rows: &[],
        };
        let rows = RowIndex::of(self.device(), 50, *store.shape(), step).expect("places exist");
        let mut x = zeros(self.device(), &[ids.len(), self.n_embd]);
        ops::embed(&rows, &self.embedding, &mut x).expect("shapes agree");
        let normed = self.normed(&x);
        let kv_len = KV_HEADS * self.head_dim;
        let [mut q, mut k, mut v] =
            [self.n_embd, kv_len, kv_len].map(|len| zeros(self.device(), &[ids.len(), len]));
        let [wq, wk, wv] = [&self.q, &self.k, &self.v].map(Linear::from);
        ops::matmul_each(&normed, [(wq, &mut q), (wk, &mut k), (wv, &mut v)])
            .expect("shapes agree");
        let qkv = [&mut q, &mut k, &mut v];
        ops::rope_and_write(&rows, &self.rope, qkv, store, 0).expect("shapes agree");
        let mut attended = zeros(self.device(), &[ids.len(), self.n_embd]);
        let params = AttentionParams {
            window: self.window,
            ..AttentionParams::scaled(1.0 / (self.head_dim as f32).sqrt())
        };
        ops::attention(&rows, &q, store, 0, params, &mut attended).expect("shapes agree");
        ops::matmul_add(self.biased(&self.attended), &attended, &mut x).expect("shapes agree");
        let normed = self.normed(&x);
        let mut activated = zeros(self.device(), &[ids.len(), 3 * self.n_embd]);
        let [gate, up] = [&self.gate, &self.up].map(Linear::from);
        ops::gated(gate, up, Activation::Silu, &normed, &mut activated).expect("shapes agree");
        ops::matmul_add(&self.down, &activated, &mut x).expect("shapes agree");
        x
    }

    fn biased<'a>(&'a self, weight: &'a Tensor) -> Linear<'a> {
        Linear {
            weight,
            bias: Some(&self.bias),
        }
    }

    /// Runs prompts in the given batches and returns the bits of every row of every sequence, by position. Blocks are handed out in an order that the seed says.
    fn run(
        &self,
        prompts: &[Vec<u32>],
        batches: &[Vec<Run>],
        block_len: usize,
        seed: u64,
    ) -> Vec<Vec<u32>> {
        let blocks_of = |prompt: &Vec<u32>| prompt.len().div_ceil(block_len);
        let n_blocks = prompts.iter().map(blocks_of).sum();
        let shape = KvShape {
            n_layers: 1,
            n_blocks,
            block_len,
            n_kv_heads: KV_HEADS,
            head_dim_k: self.head_dim,
            head_dim_v: self.head_dim,
            // Both ways of keeping numbers have their turn.
            kv_type: if self.head_dim == 32 {
                KvType::F32
            } else {
                KvType::F16
            },
        };
        let mut store = KvStore::new(self.device(), shape).expect("small");
        let mut free = Random::new(seed).shuffled(n_blocks);
        let tables: Vec<Vec<u32>> = prompts
            .iter()
            .map(|prompt| free.split_off(free.len() - blocks_of(prompt)))
            .collect();
        let tables: Vec<&[u32]> = tables.iter().map(Vec::as_slice).collect();
        let mut results = vec![Vec::new(); prompts.len()];
        let mut done = vec![0; prompts.len()];
        for batch in batches {
            let (mut ids, mut places) = (Vec::new(), Vec::new());
            for run in batch {
                let positions = done[run.sequence]..done[run.sequence] + run.len;
                ids.extend_from_slice(&prompts[run.sequence][positions.clone()]);
                let table = u32::try_from(run.sequence).expect("few");
                places.extend(positions.map(|position| RowPlace {
                    table,
                    position: u32::try_from(position).expect("small"),
                }));
                done[run.sequence] += run.len;
            }
            let x = self
                .forward(&mut store, &tables, &ids, &places)
                .to_f32()
                .expect("readable");
            for (place, row) in places.iter().zip(x.chunks_exact(self.n_embd)) {
                results[place.table as usize].extend(bits(row));
            }
        }
        results
    }
}

/// Cuts prompts into runs and mixes them into batches, each sequence in order.
fn random_batches(prompts: &[Vec<u32>], seed: u64) -> Vec<Vec<Run>> {
    let mut random = Random::new(seed);
    let mut left: Vec<usize> = prompts.iter().map(Vec::len).collect();
    let mut batches = Vec::new();
    while left.iter().any(|&len| len > 0) {
        let mut batch = Vec::new();
        for (sequence, left) in left.iter_mut().enumerate() {
            let longest = [1, 3, 40, 300][random.below(4)];
            let len = (1 + random.below(longest)).min(*left);
            if len > 0 && random.below(4) > 0 {
                batch.push(Run { sequence, len });
                *left -= len;
            }
        }
        batches.push(batch);
    }
    batches
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn company_chunks_blocks_and_threads_change_no_bit(seed in any::<u64>(), lens in prop::collection::vec(1_usize..300, 1..4), type_index in 0..TYPES.len(), wide in any::<bool>()) {
        let mut random = Random::new(seed);
        let prompts: Vec<Vec<u32>> = lens.iter().map(|&len| (0..len).map(|_| random.bits() % 50).collect()).collect();
        let head_dim = match (TYPES[type_index].block_len(), wide) { (256, _) => 64, (_, true) => 32, _ => 8 };
        for devices in families() {
            let layer = Layer::random(&devices[0], TYPES[type_index], head_dim, seed);
            let alone: Vec<Vec<u32>> = prompts.iter().map(|prompt| {
                let tokens = vec![vec![Run { sequence: 0, len: 1 }]; prompt.len()];
                layer.run(std::slice::from_ref(prompt), &tokens, 16, 1).remove(0)
            }).collect();
            let whole: Vec<Vec<Run>> = vec![prompts.iter().enumerate().map(|(sequence, prompt)| Run { sequence, len: prompt.len() }).collect()];
            for (index, device) in devices.iter().enumerate() {
                let layer = Layer::random(device, TYPES[type_index], head_dim, seed);
                let together = layer.run(&prompts, &whole, 7, seed);
                prop_assert!(together == alone, "{}: all in one batch", device.description());
                let mixed = layer.run(&prompts, &random_batches(&prompts, seed ^ index as u64), 32, !seed);
                prop_assert!(mixed == alone, "{}: mixed batches", device.description());
            }
        }
    }

    #[test]
    fn products_change_no_bit(seed in any::<u64>(), rows in 1_usize..80, n_out in 1_usize..70, n_in in 1_usize..2200, type_index in 0..TYPES.len()) {
        let tensor_type = TYPES[type_index];
        let n_in = n_in.next_multiple_of(tensor_type.block_len());
        for devices in families() {
            let product = |device: &Device, rows: usize, x: &[f32]| {
                let weight = weight(device, tensor_type, &[n_out, n_in], &mut Random::new(seed));
                let mut out = zeros(device, &[rows, n_out]);
                ops::matmul(&weight, &tensor(device, &[rows, n_in], x), &mut out).expect("shapes agree");
                bits(&out.to_f32().expect("readable"))
            };
            let x = Random::new(!seed).numbers(rows * n_in);
            let alone: Vec<u32> = x.chunks_exact(n_in).flat_map(|row| product(&devices[0], 1, row)).collect();
            for device in &devices {
                prop_assert!(product(device, rows, &x) == alone, "{}", device.description());
            }
        }
    }
}

/// Chunks that end just before, at and just after where attention cuts a context.
#[test]
fn chunks_around_a_split_change_no_bit() {
    let prompt: Vec<u32> = (0..520).map(|i| i * 7 % 50).collect();
    for devices in families() {
        let layer = Layer::random(&devices[1], TensorType::F32, 8, 5);
        let run = |lens: &[usize]| {
            let batches: Vec<Vec<Run>> = lens
                .iter()
                .map(|&len| vec![Run { sequence: 0, len }])
                .collect();
            layer.run(
                std::slice::from_ref(&prompt),
                &batches,
                48,
                lens.len() as u64,
            )
        };
        let whole = run(&[520]);
        for lens in [[255, 1, 264], [256, 256, 8], [257, 255, 8], [1, 512, 7]] {
            assert!(
                run(&lens) == whole,
                "{} {lens:?}",
                layer.device().description()
            );
        }
    }
}

/// The comparison above can fail: another order of tokens, and another token far back, are seen.
#[test]
fn another_prompt_changes_bits() {
    let devices = &families()[0];
    let layer = Layer::random(&devices[0], TensorType::F16, 8, 1);
    let run = |prompt: &[u32]| {
        layer.run(
            &[prompt.to_vec()],
            &[vec![Run {
                sequence: 0,
                len: prompt.len(),
            }]],
            16,
            1,
        )
    };
    assert_ne!(run(&[1, 2, 3, 4]), run(&[1, 2, 4, 3]));
    assert_ne!(run(&[1, 2, 3])[0], run(&[7, 2, 3])[0]);
}
