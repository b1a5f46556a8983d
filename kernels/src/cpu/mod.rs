//! The processor: instructions chosen once, a pool of threads, scratch memory.

#![allow(
    clippy::needless_range_loop,
    reason = "kernels count: chains of iterators are not always inlined into functions as large as kernels become, and then every operation is a call"
)]

mod activation;
mod arch;
mod attention;
mod formats;
mod matmul;
mod norm;
mod roofline;
mod rows;
mod rowwise;
mod scratch;
mod simd;
mod workers;

use std::num::NonZeroUsize;

use gguf::TensorType;

use crate::DeviceError;
use crate::buffer::Buffer;
use crate::index::RowPlace;
use crate::operands::{Activations, AttentionJob, Matrix, Product, Vector};
use crate::ops::Activation;
use crate::rope::RopeTable;
use arch::Isa;
use matmul::Prepared;
use rows::Rows;
use scratch::Shelf;
use workers::Workers;

pub use roofline::Roofline;

/// The processor as a device: made through [`Device::cpu`](crate::Device::cpu).
#[derive(Debug)]
pub struct Cpu {
    isa: Isa,
    workers: Workers,
    /// Prepared activations of a product.
    activations: Shelf<Rows>,
    /// Weight rows of a task, unpacked to f32.
    tiles: Shelf<Rows>,
    /// Quantised weight rows of a task, unpacked and interleaved.
    quantised_tiles: Shelf<matmul::Tile>,
    /// Cosines and sines of a row.
    angles: Shelf<Buffer<f32>>,
    /// Gates and what they are to let through.
    gates: Shelf<Buffer<f32>>,
    /// Scores and sums of a head.
    attention: Shelf<attention::Scratch>,
}

impl Cpu {
    pub(crate) fn detect(threads: NonZeroUsize) -> Result<Cpu, DeviceError> {
        Ok(Cpu::new(Isa::detect(), Workers::new(threads)?))
    }

    pub(crate) fn pinned(threads: NonZeroUsize) -> Result<Cpu, DeviceError> {
        Ok(Cpu::new(Isa::detect(), Workers::pinned(threads)?))
    }

    pub(crate) fn portable(threads: NonZeroUsize) -> Result<Cpu, DeviceError> {
        Ok(Cpu::new(Isa::Portable, Workers::new(threads)?))
    }

    pub(crate) fn each(threads: NonZeroUsize) -> Result<Vec<Cpu>, DeviceError> {
        let available = Isa::available().into_iter();
        available
            .map(|isa| Ok(Cpu::new(isa, Workers::new(threads)?)))
            .collect()
    }

    fn new(isa: Isa, workers: Workers) -> Cpu {
        Cpu {
            isa,
            workers,
            activations: Shelf::new(),
            tiles: Shelf::new(),
            quantised_tiles: Shelf::new(),
            angles: Shelf::new(),
            gates: Shelf::new(),
            attention: Shelf::new(),
        }
    }

    pub(crate) fn description(&self) -> String {
        format!("cpu: {}, {}", self.isa.name(), self.workers.description())
    }

    pub(crate) fn supports(tensor_type: TensorType) -> bool {
        matmul::supported(tensor_type)
    }

    /// Products with the same activations, which are prepared once for all that want them in the same form.
    pub(crate) fn matmul(&self, x: Activations, products: Vec<Product>) {
        let mut prepared = Prepared::new(self, x);
        for product in products {
            matmul::matmul(self, product, &mut prepared);
        }
    }

    /// `out = activation(gate · x) · (up · x)`
    pub(crate) fn gated(
        &self,
        x: Activations,
        linears: [(Matrix, Option<Vector>); 2],
        activation: Activation,
        out: &mut [f32],
    ) {
        let mut scratch = self.gates.take();
        let (gates, ups) = scratch.at_least(2 * out.len()).split_at_mut(out.len());
        let [gate, up] = linears;
        let gate = Product::replacing(gate.0, gate.1, gates);
        let up = Product::replacing(up.0, up.1, ups);
        self.matmul(x, vec![gate, up]);
        rowwise::activate(self, gates, ups, activation, out);
    }

    pub(crate) fn rms_norm(&self, x: Activations, weight: Vector, eps: f32, out: &mut [f32]) {
        rowwise::rms_norm(self, x, weight, eps, out);
    }

    pub(crate) fn add(&self, x: &mut [f32], y: &[f32]) {
        rowwise::add(self, x, y);
    }

    pub(crate) fn activate(
        &self,
        gate: &[f32],
        up: &[f32],
        activation: Activation,
        out: &mut [f32],
    ) {
        rowwise::activate(self, gate, up, activation, out);
    }

    pub(crate) fn rope(
        &self,
        x: &mut [f32],
        places: &[RowPlace],
        table: &RopeTable,
        n_heads: usize,
    ) {
        rowwise::rope(self, x, places, table, n_heads);
    }

    pub(crate) fn head_norm(&self, x: &mut [f32], weight: Vector, eps: f32) {
        norm::head_norm(self, x, weight, eps);
    }

    pub(crate) fn layer_norm(
        &self,
        x: Activations,
        weight: Vector,
        bias: Option<Vector>,
        eps: f32,
        out: &mut [f32],
    ) {
        norm::layer_norm(self, x, weight, bias, eps, out);
    }

    pub(crate) fn activate_alone(&self, x: &mut [f32], activation: Activation) {
        rowwise::activate_alone(self, x, activation);
    }

    /// Does the same to pieces of `x`, wherever they are cut.
    pub(crate) fn in_place(&self, x: &mut [f32], f: impl Fn(&mut [f32]) + Sync) {
        rowwise::in_place(self, x, f);
    }

    pub(crate) fn attention(&self, job: AttentionJob, out: &mut [f32]) {
        attention::attention(self, job, out);
    }
}
