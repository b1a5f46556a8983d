//! Experts of a step in device memory: which ones each row goes to, where their matrices lie, and what comes of them.

use std::ops::Range;
use std::sync::Arc;

use super::{Activations, Hip, HipError, Memory, Pinned, View};
use crate::routing::RoutingSize;

/// Matrices of an expert: gate, up, down.
pub(crate) const MATRICES: usize = 3;

/// Memory of a [`Routing`](crate::Routing) on a GPU.
///
/// # Where the host looks
/// Kernels find an expert by the choice and by a table of addresses, both in device memory, so a step that has all experts there asks nobody. A step that has to have some brought asks for the
/// choice, which waits for the device.
#[derive(Debug)]
pub(crate) struct RoutingMemory {
    hip: Arc<Hip>,
    size: RoutingSize,
    /// `[n_layers, slots of the step]` u32: the expert of each slot.
    ids: View,
    /// `[n_layers, slots of the step]` f32: what it counts.
    weights: View,
    /// `[max_slots]` u32, `[n_experts + 1]` u32: slots expert by expert, of the layer that runs.
    order: [View; 2],
    /// `[max_slots, n_ff]`
    hidden: Activations,
    /// `[max_slots, n_embd]` f32.
    made: View,
    /// `[n_layers, 2 * MATRICES, n_experts]` u64: addresses of matrices, then of biases. An expert that was not there yet has 0.
    tables: View,
    /// What `tables` holds.
    addresses: Vec<u64>,
    /// For what goes there and comes back. Lost with a copy that failed, and made again.
    pinned: Option<Pinned>,
}

/// The tables of one layer.
#[derive(Debug)]
pub(super) struct Tables {
    /// `[n_experts]` u64 for each matrix.
    pub(super) matrices: [View; MATRICES],
    /// The same for its bias.
    pub(super) biases: [View; MATRICES],
}

impl RoutingMemory {
    pub(crate) fn new(
        hip: &Arc<Hip>,
        size: RoutingSize,
        n_used: usize,
    ) -> Result<RoutingMemory, HipError> {
        let max_slots = size.max_rows * n_used;
        let words = size.n_layers * max_slots;
        let addresses = vec![0; size.n_layers * 2 * MATRICES * size.n_experts];
        // Kernels write these before others read them.
        let room = |len| Ok(View::whole(&Memory::allocate(hip.gpu(), len)?));
        Ok(RoutingMemory {
            size,
            ids: room(words * size_of::<u32>())?,
            weights: room(words * size_of::<f32>())?,
            order: [
                room(max_slots * size_of::<u32>())?,
                room((size.n_experts + 1) * size_of::<u32>())?,
            ],
            hidden: Activations::zeros(hip, max_slots, size.n_ff)?,
            made: room(max_slots * size.n_embd * size_of::<f32>())?,
            tables: hip.zeros(addresses.len() * size_of::<u64>())?,
            addresses,
            pinned: None,
            hip: hip.clone(),
        })
    }

    /// The experts of a layer's slots, in a step of `slots` slots.
    pub(super) fn ids(&self, layer: usize, slots: usize) -> Result<View, HipError> {
        self.ids.slice(slots_of(layer..layer + 1, slots))
    }

    /// What they count.
    pub(super) fn weights(&self, layer: usize, slots: usize) -> Result<View, HipError> {
        self.weights.slice(slots_of(layer..layer + 1, slots))
    }

    /// Lists of slots, expert by expert, and where each expert's begins.
    pub(super) fn order(&self) -> [&View; 2] {
        let [order, first] = &self.order;
        [order, first]
    }

    /// The inner halves of the slots, and what comes of them.
    pub(super) fn halves(&mut self) -> (&mut Activations, &View) {
        (&mut self.hidden, &self.made)
    }

    /// Writes addresses of a layer's matrices and biases where they are not what they were: `entries` are pairs of a place in the layer's tables, `[2 * MATRICES, n_experts]`, and an address.
    /// Once they have been written, a step that uses the same matrices writes nothing.
    pub(super) fn enter(
        &mut self,
        layer: usize,
        entries: impl Iterator<Item = (usize, u64)>,
    ) -> Result<Tables, HipError> {
        let n_experts = self.size.n_experts;
        let len = 2 * MATRICES * n_experts;
        let place = layer * len..(layer + 1) * len;
        let addresses = &mut self.addresses[place.clone()];
        let mut changed = false;
        for (entry, address) in entries {
            changed |= std::mem::replace(&mut addresses[entry], address) != address;
        }
        let size = size_of::<u64>();
        let tables = self.tables.slice(place.start * size..place.end * size)?;
        if changed {
            let sent = self.send(layer, &tables);
            if sent.is_err() {
                // What is there now is unknown: no address is 1.
                self.addresses[place].fill(1);
            }
            sent?;
        }
        let table = |index: usize| {
            let start = index * n_experts * size;
            tables.slice(start..start + n_experts * size)
        };
        Ok(Tables {
            matrices: [table(0)?, table(1)?, table(2)?],
            biases: [table(3)?, table(4)?, table(5)?],
        })
    }

    fn send(&mut self, layer: usize, tables: &View) -> Result<(), HipError> {
        let len = 2 * MATRICES * self.size.n_experts;
        let addresses = &self.addresses[layer * len..][..len];
        let bytes: &[u8] = bytemuck::cast_slice(addresses);
        let mut pinned = pinned(&self.hip, self.pinned.take(), bytes.len())?;
        pinned.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
        let flying = self.hip.stream().upload(pinned, 0..bytes.len(), tables)?;
        self.pinned = Some(flying.wait()?);
        Ok(())
    }

    /// Brings the experts of the slots of some layers to the host, behind all that was enqueued.
    pub(crate) fn read_ids(
        &mut self,
        layers: Range<usize>,
        slots: usize,
        to: &mut [u32],
    ) -> Result<(), HipError> {
        let ids = self.ids.slice(slots_of(layers, slots))?;
        self.read(&ids, bytemuck::cast_slice_mut(to))
    }

    /// As [`RoutingMemory::read_ids`], what they count.
    pub(crate) fn read_weights(
        &mut self,
        layers: Range<usize>,
        slots: usize,
        to: &mut [f32],
    ) -> Result<(), HipError> {
        let weights = self.weights.slice(slots_of(layers, slots))?;
        self.read(&weights, bytemuck::cast_slice_mut(to))
    }

    fn read(&mut self, from: &View, to: &mut [u8]) -> Result<(), HipError> {
        if from.is_empty() {
            return Ok(());
        }
        let pinned = pinned(&self.hip, self.pinned.take(), from.len())?;
        let range = 0..from.len();
        let pinned = self.hip.stream().download(from, pinned, range)?.wait()?;
        to.copy_from_slice(&pinned.bytes()[..from.len()]);
        self.pinned = Some(pinned);
        Ok(())
    }
}

/// A buffer of at least `len` bytes: the one that was used before, where it is long enough.
fn pinned(hip: &Hip, before: Option<Pinned>, len: usize) -> Result<Pinned, HipError> {
    match before.filter(|pinned| pinned.len() >= len) {
        Some(pinned) => Ok(pinned),
        None => Pinned::allocate(hip.gpu(), len),
    }
}

/// Bytes of the slots of some layers, a word of 4 each, in a step of `slots` slots.
fn slots_of(layers: Range<usize>, slots: usize) -> Range<usize> {
    let layer_bytes = slots * size_of::<u32>();
    layers.start * layer_bytes..layers.end * layer_bytes
}
