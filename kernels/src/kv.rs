//! The paged key and value store, and who reads what from it.

use gguf::TensorType;
use half::f16;
use memmap2::MmapMut;

use crate::hip::KvMemory;
use crate::{Device, OpError, layout};

/// Rows of keys and values are padded to a multiple of this many numbers, so that kernels need no tail.
pub(crate) const ROW_MULTIPLE: usize = 32;

/// Size of a [`KvStore`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvShape {
    /// Layers that have attention.
    pub n_layers: usize,
    /// Blocks, shared by all sequences; block `b` stands for the same positions in every layer.
    pub n_blocks: usize,
    /// Positions in a block.
    pub block_len: usize,
    /// Heads of keys and values.
    pub n_kv_heads: usize,
    /// Elements of a head of keys, and of a head of queries.
    pub head_dim_k: usize,
    /// Elements of a head of values, and of a head of the output.
    pub head_dim_v: usize,
    /// How numbers are kept.
    pub kv_type: KvType,
}

/// How a store keeps its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvType {
    /// IEEE half precision: half of the memory and of what attention reads.
    F16,
    /// As they are computed.
    F32,
}

impl KvType {
    /// Bytes of a number.
    #[must_use]
    pub fn number_bytes(self) -> usize {
        match self {
            KvType::F16 => 2,
            KvType::F32 => 4,
        }
    }

    /// As `--kv-type` spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            KvType::F16 => "f16",
            KvType::F32 => "f32",
        }
    }
}

impl KvShape {
    /// Memory of one block over all layers. `None` if that does not fit into an address.
    #[must_use]
    pub fn block_bytes(&self) -> Option<usize> {
        let per_layer = self
            .layer_block_len(self.head_dim_k)?
            .checked_add(self.layer_block_len(self.head_dim_v)?)?;
        per_layer
            .checked_mul(self.kv_type.number_bytes())?
            .checked_mul(self.n_layers)
    }

    /// Numbers of one block of one layer, for heads of `head_dim` elements.
    pub(crate) fn layer_block_len(&self, head_dim: usize) -> Option<usize> {
        head_dim
            .checked_next_multiple_of(ROW_MULTIPLE)?
            .checked_mul(self.block_len)?
            .checked_mul(self.n_kv_heads)
    }

    fn as_vec(self) -> Vec<usize> {
        vec![
            self.n_layers,
            self.n_blocks,
            self.block_len,
            self.n_kv_heads,
            self.head_dim_k,
            self.head_dim_v,
        ]
    }
}

/// Keys and values of all layers in blocks.
///
/// Blocks belong to nobody here: who may write which is the caller's business. Fresh blocks hold zeros.
#[derive(Debug)]
pub struct KvStore {
    device: Device,
    shape: KvShape,
    /// In memory that the processor reaches; else empty.
    layers: Vec<KvLayer>,
    /// In a GPU's memory.
    memory: Option<KvMemory>,
}

/// One layer's blocks: keys and values are `[n_blocks, n_kv_heads, block_len, padded head_dim]`, so that a head reads its positions in one stream.
#[derive(Debug)]
pub(crate) struct KvLayer {
    /// Numbers of the store's type, as bytes. Maps of their own: an allocator clears what it hands out a second time, and with that takes memory for all of it.
    keys: MmapMut,
    values: MmapMut,
}

impl KvStore {
    /// Allocates the store; in memory of the processor, blocks take physical memory when they are first written.
    ///
    /// # Errors
    /// [`OpError::Memory`] or [`OpError::Hip`] if there is no such memory, [`OpError::Shape`] if a block would be empty; both with the shape's fields in their order.
    pub fn new(device: &Device, shape: KvShape) -> Result<KvStore, OpError> {
        if [
            shape.block_len,
            shape.n_kv_heads,
            shape.head_dim_k,
            shape.head_dim_v,
        ]
        .contains(&0)
        {
            return Err(OpError::Shape {
                op: "kv store",
                operand: "shape",
                expected: Vec::new(),
                found: shape.as_vec(),
            });
        }
        let no_memory = || OpError::Memory {
            shape: shape.as_vec(),
        };
        let memory = match device {
            Device::Reference | Device::Cpu(_) => None,
            Device::Hip(hip) => Some(KvMemory::zeros(hip, &shape)?.ok_or_else(no_memory)?),
        };
        let map = |head_dim| -> Option<MmapMut> {
            let bytes = shape
                .layer_block_len(head_dim)?
                .checked_mul(shape.n_blocks)?
                .checked_mul(shape.kv_type.number_bytes())?;
            MmapMut::map_anon(bytes).ok()
        };
        let layer = || -> Option<KvLayer> {
            Some(KvLayer {
                keys: map(shape.head_dim_k)?,
                values: map(shape.head_dim_v)?,
            })
        };
        let host_layers = if memory.is_some() { 0 } else { shape.n_layers };
        let layers = (0..host_layers)
            .map(|_| layer().ok_or_else(no_memory))
            .collect::<Result<_, _>>()?;
        Ok(KvStore {
            device: device.clone(),
            shape,
            layers,
            memory,
        })
    }

    /// The size that was asked for.
    #[must_use]
    pub fn shape(&self) -> &KvShape {
        &self.shape
    }

    /// The device that the store lives on.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The store in a GPU's memory.
    pub(crate) fn memory(&self) -> Option<&KvMemory> {
        self.memory.as_ref()
    }

    pub(crate) fn layer(&self, layer: usize) -> &KvLayer {
        &self.layers[layer]
    }

    pub(crate) fn layer_mut(&mut self, layer: usize) -> &mut KvLayer {
        &mut self.layers[layer]
    }
}

impl KvShape {
    /// Numbers between the keys of two positions of a head.
    pub(crate) fn key_stride(&self) -> usize {
        self.head_dim_k.next_multiple_of(ROW_MULTIPLE)
    }

    /// Numbers between the values of two positions of a head.
    pub(crate) fn value_stride(&self) -> usize {
        self.head_dim_v.next_multiple_of(ROW_MULTIPLE)
    }

    /// Index of a position among all rows of a layer: times the stride it is where the row begins.
    pub(crate) fn row_index(&self, block: usize, kv_head: usize, offset: usize) -> usize {
        (block * self.n_kv_heads + kv_head) * self.block_len + offset
    }
}

impl KvLayer {
    /// The key of one position, padded with zeros, as bytes of the store's type.
    pub(crate) fn key(&self, shape: &KvShape, row_index: usize) -> &[u8] {
        row(&self.keys, shape.key_bytes(), row_index)
    }

    /// The value of one position, padded with zeros, as bytes of the store's type.
    pub(crate) fn value(&self, shape: &KvShape, row_index: usize) -> &[u8] {
        row(&self.values, shape.value_bytes(), row_index)
    }

    /// Writes one row's keys and values of all heads to a place, a block and an offset in it. `k`: `[n_kv_heads * head_dim_k]`, `v`: `[n_kv_heads * head_dim_v]`.
    pub(crate) fn write(
        &mut self,
        shape: &KvShape,
        (block, offset): (usize, usize),
        k: &[f32],
        v: &[f32],
    ) {
        let heads = k
            .chunks_exact(shape.head_dim_k)
            .zip(v.chunks_exact(shape.head_dim_v));
        for (kv_head, (key, value)) in heads.enumerate() {
            let row_index = shape.row_index(block, kv_head, offset);
            let (key_bytes, value_bytes) = (shape.key_bytes(), shape.value_bytes());
            let keys = &mut self.keys[row_index * key_bytes..][..key_bytes];
            shape.kv_type.pack(key, keys);
            let values = &mut self.values[row_index * value_bytes..][..value_bytes];
            shape.kv_type.pack(value, values);
        }
    }
}

fn row(rows: &[u8], row_bytes: usize, row_index: usize) -> &[u8] {
    &rows[row_index * row_bytes..][..row_bytes]
}

impl KvShape {
    fn key_bytes(&self) -> usize {
        self.key_stride() * self.kv_type.number_bytes()
    }

    fn value_bytes(&self) -> usize {
        self.value_stride() * self.kv_type.number_bytes()
    }
}

impl KvType {
    /// Writes numbers to the beginning of a row; f16 rounds to the nearest, ties to even.
    fn pack(self, numbers: &[f32], row: &mut [u8]) {
        match self {
            KvType::F16 => {
                for (&number, bytes) in numbers.iter().zip(row.as_chunks_mut().0) {
                    *bytes = f16::from_f32(number).to_le_bytes();
                }
            }
            KvType::F32 => {
                for (&number, bytes) in numbers.iter().zip(row.as_chunks_mut().0) {
                    *bytes = number.to_le_bytes();
                }
            }
        }
    }

    /// The numbers of a row.
    pub(crate) fn unpack(self, row: &[u8], numbers: &mut Vec<f32>) {
        let tensor_type = match self {
            KvType::F16 => TensorType::F16,
            KvType::F32 => TensorType::F32,
        };
        let unpack = layout::unpack(tensor_type).expect("types of one number per element are read");
        numbers.resize(row.len() / self.number_bytes(), 0.0);
        unpack(row, numbers);
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// Pages of this process in memory.
    fn resident_pages() -> usize {
        let counts = std::fs::read_to_string("/proc/self/statm").expect("Linux has it");
        let resident = counts.split(' ').nth(1).expect("its second number");
        resident.parse().expect("a number")
    }

    #[test]
    fn blocks_that_nobody_wrote_take_no_memory() {
        let shape = KvShape {
            n_layers: 40,
            n_blocks: 1000,
            block_len: 32,
            n_kv_heads: 4,
            head_dim_k: 64,
            head_dim_v: 64,
            kv_type: KvType::F16,
        };
        let bytes = shape.block_bytes().expect("small") * shape.n_blocks;
        // What was given back may be handed out again.
        drop(KvStore::new(&Device::reference(), shape).expect("it fits"));
        let before = resident_pages();
        let store = KvStore::new(&Device::reference(), shape).expect("it fits");
        let pages = resident_pages().saturating_sub(before);
        drop(store);
        // Pages are 4 KiB at least; tests beside this one have some of their own.
        let all = bytes / 4096;
        assert!(pages < all / 4, "{pages} of {all} pages are in memory");
    }
}
