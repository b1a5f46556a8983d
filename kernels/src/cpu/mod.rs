//! The processor: instructions chosen once, a pool of threads, scratch memory.

mod arch;
mod attention;
mod formats;
mod matmul;
mod rows;
mod rowwise;
mod scratch;
mod simd;
mod workers;

use std::num::NonZeroUsize;

use gguf::TensorType;

use crate::DeviceError;
use crate::buffer::Buffer;
use crate::operands::{Activations, AttentionJob, Matrix, Vector};
use crate::ops::Activation;
use crate::rope::RopeTable;
use arch::Isa;
use rows::Rows;
use scratch::Shelf;
use workers::Workers;

/// The processor as a device: made through [`Device::cpu`](crate::Device::cpu).
#[derive(Debug)]
pub struct Cpu {
    isa: Isa,
    workers: Workers,
    /// Prepared activations of a product.
    activations: Shelf<Rows>,
    /// Unpacked weight rows of a task.
    tiles: Shelf<Rows>,
    /// Cosines and sines of a row.
    angles: Shelf<Buffer<f32>>,
    /// Scores and sums of a head.
    attention: Shelf<attention::Scratch>,
}

impl Cpu {
    pub(crate) fn detect(threads: NonZeroUsize) -> Result<Cpu, DeviceError> {
        Cpu::new(Isa::detect(), threads)
    }

    pub(crate) fn portable(threads: NonZeroUsize) -> Result<Cpu, DeviceError> {
        Cpu::new(Isa::Portable, threads)
    }

    fn new(isa: Isa, threads: NonZeroUsize) -> Result<Cpu, DeviceError> {
        Ok(Cpu {
            isa,
            workers: Workers::new(threads)?,
            activations: Shelf::new(),
            tiles: Shelf::new(),
            angles: Shelf::new(),
            attention: Shelf::new(),
        })
    }

    pub(crate) fn description(&self) -> String {
        let threads = self.workers.threads();
        format!(
            "cpu: {}, {threads} {}",
            self.isa.name(),
            if threads.get() == 1 {
                "thread"
            } else {
                "threads"
            }
        )
    }

    pub(crate) fn supports(tensor_type: TensorType) -> bool {
        matmul::supported(tensor_type)
    }

    pub(crate) fn matmul(&self, weight: Matrix, x: Activations, out: &mut [f32]) {
        matmul::matmul(self, weight, x, out);
    }

    pub(crate) fn rms_norm(&self, x: Activations, weight: Vector, eps: f32, out: &mut [f32]) {
        rowwise::rms_norm(self, x, weight, eps, out);
    }

    pub(crate) fn add_bias(&self, x: &mut [f32], bias: Vector) {
        rowwise::add_bias(self, x, bias);
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

    pub(crate) fn rope(&self, x: &mut [f32], positions: &[u32], table: &RopeTable, n_heads: usize) {
        rowwise::rope(self, x, positions, table, n_heads);
    }

    pub(crate) fn attention(&self, job: AttentionJob, out: &mut [f32]) {
        attention::attention(self, job, out);
    }
}
