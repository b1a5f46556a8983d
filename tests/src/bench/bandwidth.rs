//! How fast the processor reads memory.

use std::hint::black_box;
use std::time::Instant;

/// Bytes read by each thread at a time: many times what a cache holds.
const BYTES: usize = 256 << 20;

/// Gigabytes per second that `threads` threads read together when they do nothing else: the best of a few passes.
#[must_use]
pub fn gigabytes_per_second(threads: usize) -> f64 {
    const PASSES: usize = 4;
    let memory: Vec<Vec<u64>> = (0..threads).map(|_| vec![1; BYTES / 8]).collect();
    let mut best: f64 = 0.0;
    for _ in 0..PASSES {
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for part in &memory {
                scope.spawn(|| black_box(sum(part)));
            }
        });
        let bytes = (threads * BYTES) as f64;
        best = best.max(bytes / 1e9 / begun.elapsed().as_secs_f64());
    }
    best
}

/// Several sums at once: one addition after the other would be slower than memory.
fn sum(numbers: &[u64]) -> u64 {
    let mut sums = [0_u64; 32];
    for chunk in numbers.as_chunks::<32>().0 {
        for (sum, &number) in sums.iter_mut().zip(chunk) {
            *sum = sum.wrapping_add(number);
        }
    }
    sums.into_iter().fold(0, u64::wrapping_add)
}
