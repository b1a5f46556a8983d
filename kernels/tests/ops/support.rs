//! Devices, random operands, and the comparison that the tests rely on.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, LazyLock};

use gguf::TensorType;
use half::{bf16, f16};
use kernels::{
    Device, HipOptions, KvShape, KvStore, KvType, OpError, Owner, Picks, RopeKind, RopeParams,
    RopeScaling, RopeTable, RowIndex, RowPlace, StepRows, Tensor, ops,
};

/// Devices whose answers are compared with the reference's: each instruction set that this machine has, and the best with several threads. With `HEARTH_HIP_LIBRARY` set, as by `just test-hip`, the
/// GPU alone: as it usually runs, and batch-invariant.
pub(crate) fn devices() -> Vec<Device> {
    static GPU: LazyLock<Vec<Device>> = LazyLock::new(|| {
        let Some(library) = std::env::var_os("HEARTH_HIP_LIBRARY") else {
            return Vec::new();
        };
        let open = |batch_invariant| {
            let options = HipOptions {
                library: Some(library.clone().into()),
                ordinal: 0,
                batch_invariant,
            };
            Device::hip(&options).expect("the library has a GPU")
        };
        vec![open(false), open(true)]
    });
    if GPU.is_empty() {
        processors()
    } else {
        GPU.clone()
    }
}

pub(crate) fn is_gpu(device: &Device) -> bool {
    matches!(device, Device::Hip(_))
}

/// The processor, in the ways that tests use it.
pub(crate) fn processors() -> Vec<Device> {
    let threads = |n| NonZeroUsize::new(n).expect("not zero");
    let mut devices = Device::cpu_each(threads(1)).expect("no thread to start");
    devices.push(Device::cpu(threads(3)).expect("threads start"));
    devices
}

/// The reference and all that are compared with it.
pub(crate) fn all_devices() -> Vec<Device> {
    [vec![Device::reference()], devices()].concat()
}

/// A refusal, in the words that people see.
#[track_caller]
pub(crate) fn refused(outcome: Result<(), OpError>, words: &str) {
    assert_eq!(
        outcome.map_err(|error| error.to_string()),
        Err(words.to_owned())
    );
}

/// Deterministic numbers: a linear congruential generator, so that a case's seed says how to run it again.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn bits(&mut self) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as u32
    }

    /// Below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.bits() as usize % limit
    }

    /// Between -1 and 1.
    pub(crate) fn number(&mut self) -> f32 {
        (self.bits() >> 8) as f32 / (1 << 23) as f32 - 1.0
    }

    pub(crate) fn numbers(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.number()).collect()
    }

    /// Numbers in some order, each once.
    pub(crate) fn shuffled(&mut self, len: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..u32::try_from(len).expect("small")).collect();
        for i in (1..len).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }
}

/// The tensor types that every device takes.
pub(crate) const TYPES: [TensorType; 16] = [
    TensorType::F32,
    TensorType::F16,
    TensorType::BF16,
    TensorType::Q4_0,
    TensorType::Q4_1,
    TensorType::Q5_0,
    TensorType::Q5_1,
    TensorType::Q8_0,
    TensorType::Q2_K,
    TensorType::Q3_K,
    TensorType::Q4_K,
    TensorType::Q5_K,
    TensorType::Q6_K,
    TensorType::IQ4_NL,
    TensorType::IQ4_XS,
    TensorType::MXFP4,
];

/// Whether weights of this type meet activations that were quantised to int8 on the cpu device.
pub(crate) fn is_quantised(tensor_type: TensorType) -> bool {
    tensor_type.block_len() > 1
}

/// Where a block of the type has f16 factors, and how large they are so that elements are about 1.
fn factors(tensor_type: TensorType) -> (&'static [usize], f32) {
    match tensor_type {
        TensorType::Q4_0 => (&[0], 1.0 / 8.0),
        TensorType::Q4_1 => (&[0, 2], 1.0 / 8.0),
        TensorType::Q5_0 => (&[0], 1.0 / 16.0),
        TensorType::Q5_1 => (&[0, 2], 1.0 / 16.0),
        TensorType::Q8_0 | TensorType::IQ4_NL => (&[0], 1.0 / 128.0),
        TensorType::Q2_K => (&[80, 82], 1.0 / 32.0),
        TensorType::Q3_K => (&[108], 1.0 / 128.0),
        TensorType::Q4_K | TensorType::Q5_K => (&[0, 2], 1.0 / 1024.0),
        TensorType::Q6_K => (&[208], 1.0 / 4096.0),
        TensorType::IQ4_XS => (&[0], 1.0 / 4096.0),
        other => panic!("{other} has no f16 factors"),
    }
}

/// Random weights as a file has them. Quantised types get random bytes, every one of which means something, around sensible factors.
pub(crate) fn packed(tensor_type: TensorType, len: usize, random: &mut Random) -> Vec<u8> {
    let mut numbers = || random.numbers(len).into_iter();
    match tensor_type {
        TensorType::F32 => return numbers().flat_map(f32::to_le_bytes).collect(),
        TensorType::F16 => {
            return numbers()
                .flat_map(|n| f16::from_f32(n).to_le_bytes())
                .collect();
        }
        TensorType::BF16 => {
            return numbers()
                .flat_map(|n| bf16::from_f32(n).to_le_bytes())
                .collect();
        }
        _ => {}
    }
    let n_bytes = len / tensor_type.block_len() * tensor_type.block_bytes();
    let mut bytes: Vec<u8> = (0..n_bytes)
        .map(|_| random.bits().to_le_bytes()[3])
        .collect();
    for block in bytes.chunks_exact_mut(tensor_type.block_bytes()) {
        if tensor_type == TensorType::MXFP4 {
            block[0] = 120 + block[0] % 6;
            continue;
        }
        let (places, size) = factors(tensor_type);
        for &place in places {
            let factor = f16::from_f32(random.number() * size);
            block[place..place + 2].copy_from_slice(&factor.to_le_bytes());
        }
    }
    bytes
}

/// A view of `bytes` that begins `offset` bytes into its owner, so that alignment is whatever it is.
pub(crate) fn view(
    device: &Device,
    tensor_type: TensorType,
    shape: &[usize],
    bytes: &[u8],
    offset: usize,
) -> Tensor {
    let mut memory = vec![0xff; offset];
    memory.extend_from_slice(bytes);
    let range = offset..memory.len();
    let owner: Owner = Arc::new(memory);
    Tensor::from_owner(device, tensor_type, shape, owner, range).expect("the bytes fit the shape")
}

/// A random weight as a view that is not aligned.
pub(crate) fn weight(
    device: &Device,
    tensor_type: TensorType,
    shape: &[usize],
    random: &mut Random,
) -> Tensor {
    let bytes = packed(tensor_type, shape.iter().product(), random);
    view(device, tensor_type, shape, &bytes, 1 + random.below(7))
}

/// Activations on a device.
pub(crate) fn tensor(device: &Device, shape: &[usize], numbers: &[f32]) -> Tensor {
    Tensor::from_f32(device, shape, numbers).expect("the numbers fit the shape")
}

pub(crate) fn zeros(device: &Device, shape: &[usize]) -> Tensor {
    Tensor::zeros(device, shape).expect("small")
}

/// A store of one short block, where it does not matter.
pub(crate) const NO_STORE: KvShape = KvShape {
    n_layers: 1,
    n_blocks: 1,
    block_len: 1,
    n_kv_heads: 1,
    head_dim_k: 1,
    head_dim_v: 1,
    kv_type: KvType::F32,
};

/// An index of tokens, all of them at the first position of their sequence.
pub(crate) fn tokens(
    device: &Device,
    n_vocab: usize,
    ids: &[u32],
    logit_rows: &[u32],
) -> Result<RowIndex, OpError> {
    let place = RowPlace {
        table: 0,
        position: 0,
    };
    let rows = StepRows {
        ids,
        places: &vec![place; ids.len()],
        tables: &[&[0]],
        logit_rows,
    };
    RowIndex::of(device, n_vocab, NO_STORE, rows)
}

/// An index of places in the sequences of a store.
pub(crate) fn placed(
    device: &Device,
    kv: KvShape,
    tables: &[&[u32]],
    places: &[RowPlace],
) -> Result<RowIndex, OpError> {
    let rows = StepRows {
        ids: &vec![0; places.len()],
        places,
        tables,
        logit_rows: &[],
    };
    RowIndex::of(device, 1, kv, rows)
}

/// The places of a sequence's positions from `first` on.
pub(crate) fn positions(table: usize, first: usize, len: usize) -> Vec<RowPlace> {
    let number = |n| u32::try_from(n).expect("small");
    (first..first + len)
        .map(|position| RowPlace {
            table: number(table),
            position: number(position),
        })
        .collect()
}

/// Turns nothing.
pub(crate) fn no_rope() -> RopeTable {
    let params = RopeParams {
        dims: 0,
        base: 1.0,
        kind: RopeKind::Halves,
        scaling: RopeScaling::None,
        attn_factor: 1.0,
    };
    RopeTable::new(params, None).expect("dims are even")
}

/// Rotates the same numbers as queries and as keys: `x` is `[positions.len(), n_heads * head_dim]`.
pub(crate) fn roped(
    device: &Device,
    x: &[f32],
    positions: &[u32],
    rope: &RopeTable,
    n_heads: usize,
) -> [Tensor; 2] {
    let cols = x.len() / positions.len();
    let kv = KvShape {
        block_len: 1 << 17,
        n_kv_heads: n_heads,
        head_dim_k: cols / n_heads,
        ..NO_STORE
    };
    let mut store = KvStore::new(device, kv).expect("what is not written takes no memory");
    let places: Vec<RowPlace> = positions
        .iter()
        .map(|&position| RowPlace { table: 0, position })
        .collect();
    let rows = placed(device, kv, &[&[0]], &places).expect("places exist");
    let shape = [positions.len(), cols];
    let (mut q, mut k) = (tensor(device, &shape, x), tensor(device, &shape, x));
    let mut v = zeros(device, &[positions.len(), n_heads]);
    ops::rope_and_write(&rows, rope, [&mut q, &mut k, &mut v], &mut store, 0)
        .expect("shapes agree");
    [q, k]
}

/// Writes keys and values as they are.
pub(crate) fn write_kv(rows: &RowIndex, store: &mut KvStore, layer: usize, [k, v]: [&[f32]; 2]) {
    let (shape, device) = (*store.shape(), store.device().clone());
    let n_rows = rows.n_rows();
    let (k_len, v_len) = (
        shape.n_kv_heads * shape.head_dim_k,
        shape.n_kv_heads * shape.head_dim_v,
    );
    let mut q = zeros(&device, &[n_rows, k_len]);
    let mut k = tensor(&device, &[n_rows, k_len], k);
    let mut v = tensor(&device, &[n_rows, v_len], v);
    ops::rope_and_write(rows, &no_rope(), [&mut q, &mut k, &mut v], store, layer)
        .expect("shapes agree");
}

/// The most likely token of each row.
pub(crate) fn picked(logits: &Tensor) -> Vec<u32> {
    let rows = logits.shape()[0];
    let mut picks = Picks::new(logits.device(), rows).expect("small");
    ops::argmax(logits, &mut picks).expect("as many rows");
    picks.read(rows).expect("chosen").to_vec()
}

/// How far a result may be from the reference's: `abs + rel · scale`, where the scale of an element is what the caller says, or its own magnitude.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tolerance {
    pub(crate) abs: f32,
    pub(crate) rel: f32,
}

/// The first element that is further off than it may be.
#[derive(Debug, PartialEq)]
pub(crate) struct Mismatch {
    pub(crate) index: usize,
    pub(crate) found: f32,
    pub(crate) expected: f32,
    pub(crate) allowed: f32,
}

/// Compares element by element; NaN never passes.
pub(crate) fn compare(
    found: &[f32],
    expected: &[f32],
    allowed: impl Fn(usize) -> f32,
) -> Result<(), Mismatch> {
    assert_eq!(found.len(), expected.len(), "number of elements");
    for (index, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let allowed = allowed(index);
        let close = (found - expected).abs() <= allowed;
        if !close {
            return Err(Mismatch {
                index,
                found,
                expected,
                allowed,
            });
        }
    }
    Ok(())
}

/// Compares with a tolerance relative to each expected element.
pub(crate) fn check_close(
    found: &[f32],
    expected: &[f32],
    tolerance: Tolerance,
) -> Result<(), Mismatch> {
    compare(found, expected, |index| {
        tolerance.abs + tolerance.rel * expected[index].abs()
    })
}

/// Panics with the case if a comparison failed.
#[track_caller]
pub(crate) fn must(outcome: Result<(), Mismatch>, case: &dyn fmt::Debug) {
    if let Err(mismatch) = outcome {
        panic!("{mismatch:?} in {case:?}");
    }
}

/// Panics if a comparison passed: what was planted was not seen.
#[track_caller]
pub(crate) fn must_fail(outcome: Result<(), Mismatch>, planted: &str) {
    assert!(outcome.is_err(), "{planted} went unseen");
}

pub(crate) fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|n| n.to_bits()).collect()
}
