//! What this machine can do at most, measured: what kernels are held against.

use std::hint::black_box;
use std::time::Instant;

use super::Cpu;
use super::simd::{Kernel, Simd};
use crate::buffer::Buffer;

/// Bytes that each thread reads in one pass: many times what a cache holds.
const READ_BYTES: usize = 128 << 20;
/// Rounds of a loop that touches no memory.
const ROUNDS: usize = 200_000;
/// Sums that do not wait for each other.
const SUMS: usize = 12;
const PASSES: usize = 5;

/// Rates of all threads of a device together.
#[derive(Debug, Clone, Copy)]
pub struct Roofline {
    /// Bytes read from memory, per second.
    pub read_bytes: f64,
    /// Products of bytes that are added up, per second: the arithmetic of quantised types.
    pub byte_products: f64,
    /// Products of f32 numbers that are added up, per second.
    pub float_products: f64,
}

impl Cpu {
    /// Measures for about a second, with this device's threads and instructions.
    ///
    /// # Panics
    /// Where the machine does not have the memory to read.
    #[must_use]
    pub fn roofline(&self) -> Roofline {
        let threads = self.workers.threads().get();
        let numbers: Vec<Buffer<i32>> = (0..threads)
            .map(|_| {
                let mut numbers = Buffer::zeros(READ_BYTES / 4).expect("memory for a measurement");
                // Pages that nobody wrote are all the same page.
                numbers.as_mut_slice().fill(1);
                numbers
            })
            .collect();
        let per_second = |count: usize, pass: &dyn Fn()| {
            let seconds = (0..PASSES).map(|_| {
                let begun = Instant::now();
                pass();
                begun.elapsed().as_secs_f64()
            });
            count as f64 / seconds.fold(f64::INFINITY, f64::min)
        };
        let each_thread = |task: &(dyn Fn(usize) + Sync)| {
            self.workers.for_each(0..threads, usize::MAX, task);
        };
        let lanes = self.isa.run(Lanes);
        Roofline {
            read_bytes: per_second(threads * READ_BYTES, &|| {
                each_thread(&|thread| {
                    black_box(self.isa.run(Read(numbers[thread].as_slice())));
                });
            }),
            byte_products: per_second(threads * ROUNDS * SUMS * lanes * 4, &|| {
                each_thread(&|_| {
                    black_box(self.isa.run(ByteProducts));
                });
            }),
            float_products: per_second(threads * ROUNDS * SUMS * lanes, &|| {
                each_thread(&|_| {
                    black_box(self.isa.run(FloatProducts));
                });
            }),
        }
    }
}

struct Lanes;

impl Kernel for Lanes {
    type Output = usize;

    fn run<S: Simd>(self, _: S) -> usize {
        S::LANES
    }
}

struct Read<'a>(&'a [i32]);

impl Kernel for Read<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        let mut sums = [simd.splat_i32(0); 8];
        for eight in S::chunks(self.0).0.as_chunks::<8>().0 {
            for (sum, chunk) in sums.iter_mut().zip(eight) {
                *sum = simd.add_i32(*sum, simd.load_i32(chunk));
            }
        }
        sums.into_iter().map(|sum| simd.sum(simd.to_f32(sum))).sum()
    }
}

struct ByteProducts;

impl Kernel for ByteProducts {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        let w = simd.splat_i32(black_box(0x0102_0304));
        let x = black_box([1, 2, 3, 4]);
        let mut sums = [simd.splat_i32(0); SUMS];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = simd.dot_quads::<false>(*sum, w, x);
            }
        }
        sums.into_iter().map(|sum| simd.sum(simd.to_f32(sum))).sum()
    }
}

struct FloatProducts;

impl Kernel for FloatProducts {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        let (w, x) = (simd.splat(black_box(0.5)), simd.splat(black_box(0.25)));
        let mut sums = [simd.splat(0.0); SUMS];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = simd.mul_add(w, x, *sum);
            }
        }
        sums.into_iter().map(|sum| simd.sum(sum)).sum()
    }
}
