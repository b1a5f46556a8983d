//! Attention over the paged store.
//!
//! A context is cut every [`SPLIT_LEN`] positions. Each split has its own softmax: its largest score, the sum of its exponentials, and its weighted sum of values. Splits are combined in
//! index order. Where the cuts are depends on positions alone, and nothing within a split depends on which blocks hold it, so a row's result is the same however its prompt was chunked.

use super::Cpu;
use super::formats::accumulate_floats;
use super::simd::{Kernel, Simd, exp};
use crate::buffer::Buffer;
use crate::operands::AttentionJob;

/// Positions of a split.
const SPLIT_LEN: usize = 256;
/// Keys whose scores are computed together.
const KEY_GROUP: usize = 4;
/// Vectors of the output whose sums fit into registers.
const VALUE_GROUP: usize = 8;

/// out[r, h] = Σ_p softmax_p(scale · q[r, h] · k[p, kv(h)]) · v[p, kv(h)]
///
/// `out`: `[rows, n_heads * head_dim_v]`. A task is one row with the heads that share a head of keys and values.
pub(super) fn attention(cpu: &Cpu, job: AttentionJob, out: &mut [f32]) {
    let group_len = job.n_heads / job.shape.n_kv_heads;
    let out_len = group_len * job.shape.head_dim_v;
    if out.is_empty() {
        return;
    }
    let positions = job.rows.rows.iter().map(|place| place.position as usize + 1);
    let work = positions.sum::<usize>() * job.n_heads * (job.shape.head_dim_k + job.shape.head_dim_v);
    let tasks = out.chunks_exact_mut(out_len);
    let indices = 0..tasks.len();
    cpu.workers.for_each(indices.zip(tasks), work, |(index, out)| {
        let (row, kv_head) = (index / job.shape.n_kv_heads, index % job.shape.n_kv_heads);
        let mut scratch = cpu.attention.take();
        for (head, out) in (kv_head * group_len..).zip(out.chunks_exact_mut(job.shape.head_dim_v)) {
            cpu.isa.run(Head { job, row, head, scratch: &mut scratch, out });
        }
    });
}

/// Scratch of one task.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Numbers of the rows of the store that hold the split's positions.
    row_indices: Vec<usize>,
    /// One head's query, padded like the keys.
    query: Buffer<f32>,
    /// Scores of a split, then their exponentials: `[SPLIT_LEN]`.
    scores: Buffer<f32>,
    /// Weighted sums of values, padded like the values: of the splits so far, and of one split.
    sums: Buffer<f32>,
}

/// One head of one row.
struct Head<'a> {
    job: AttentionJob<'a>,
    row: usize,
    head: usize,
    scratch: &'a mut Scratch,
    out: &'a mut [f32],
}

impl Kernel for Head<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Head { job, row, head, scratch, out } = self;
        let Scratch { row_indices, query, scores, sums } = scratch;
        let (key_stride, value_stride) = (job.shape.key_stride(), job.shape.value_stride());
        let query = query.at_least(key_stride);
        query.fill(0.0);
        query[..job.shape.head_dim_k].copy_from_slice(job.query(row, head));
        let (total, split) = sums.at_least(2 * value_stride).split_at_mut(value_stride);
        let (_, n_positions) = job.context(row);

        // Exponentials are relative to the largest score so far.
        let (mut largest, mut weight) = (f32::NEG_INFINITY, 0.0);
        for first in (0..n_positions).step_by(SPLIT_LEN) {
            job.row_indices(row, head, first..(first + SPLIT_LEN).min(n_positions), row_indices);
            let scores = &mut scores.at_least(SPLIT_LEN)[..row_indices.len()];
            score(simd, &job, query, row_indices, scores);
            let (split_largest, split_weight) = exponentials(simd, scores);
            weighted_sum(simd, &job, row_indices, scores, split);
            if first == 0 {
                (largest, weight) = (split_largest, split_weight);
                total.copy_from_slice(split);
                continue;
            }
            let both = if split_largest > largest { split_largest } else { largest };
            let (factor, split_factor) = (exp_one(simd, largest - both), exp_one(simd, split_largest - both));
            for (total, &split) in total.iter_mut().zip(&*split) {
                *total = *total * factor + split * split_factor;
            }
            (largest, weight) = (both, weight * factor + split_weight * split_factor);
        }
        for (out, &total) in out.iter_mut().zip(&*total) {
            *out = total / weight;
        }
    }
}

/// scores[p] = scale · query · key[p]
#[inline(always)]
fn score<S: Simd>(simd: S, job: &AttentionJob, query: &[f32], row_indices: &[usize], scores: &mut [f32]) {
    let (groups, rest) = row_indices.as_chunks::<KEY_GROUP>();
    let (score_groups, rest_scores) = scores.as_chunks_mut::<KEY_GROUP>();
    for (group, scores) in groups.iter().zip(score_groups) {
        let mut keys = [[].as_slice(); KEY_GROUP];
        for (key, &row_index) in keys.iter_mut().zip(group) {
            *key = job.layer.key(&job.shape, row_index);
        }
        let mut sums = [[simd.splat(0.0)]; KEY_GROUP];
        accumulate_floats(simd, keys, [query], &mut sums);
        for (score, [sum]) in scores.iter_mut().zip(sums) {
            *score = job.scale * simd.sum(sum);
        }
    }
    for (&row_index, score) in rest.iter().zip(rest_scores) {
        let mut sums = [[simd.splat(0.0)]];
        accumulate_floats(simd, [job.layer.key(&job.shape, row_index)], [query], &mut sums);
        *score = job.scale * simd.sum(sums[0][0]);
    }
}

/// scores[p] = exp(scores[p] - largest). Returns the largest score and the sum of the exponentials.
#[inline(always)]
fn exponentials<S: Simd>(simd: S, scores: &mut [f32]) -> (f32, f32) {
    let mut largest = f32::NEG_INFINITY;
    for &score in &*scores {
        largest = if score > largest { score } else { largest };
    }
    let mut sum = simd.splat(0.0);
    let (chunks, tail) = S::chunks_mut(scores);
    for chunk in chunks {
        let exponentials = exp(simd, simd.sub(simd.load(chunk), simd.splat(largest)));
        sum = simd.add(sum, exponentials);
        simd.store(exponentials, chunk);
    }
    let mut sum = simd.sum(sum);
    for score in tail {
        *score = exp_one(simd, *score - largest);
        sum += *score;
    }
    (largest, sum)
}

/// out[i] = Σ_p weights[p] · value[p][i], positions in order.
#[inline(always)]
fn weighted_sum<S: Simd>(simd: S, job: &AttentionJob, row_indices: &[usize], weights: &[f32], out: &mut [f32]) {
    let (out, _) = S::chunks_mut(out);
    let mut first = 0;
    while first < out.len() {
        first += if out.len() - first >= VALUE_GROUP {
            weighted_group::<S, VALUE_GROUP>(simd, job, row_indices, weights, first, out)
        } else {
            weighted_group::<S, 1>(simd, job, row_indices, weights, first, out)
        };
    }
}

/// `N` vectors of the output, from the one numbered `first`. Returns `N`.
#[inline(always)]
fn weighted_group<S: Simd, const N: usize>(simd: S, job: &AttentionJob, row_indices: &[usize], weights: &[f32], first: usize, out: &mut [S::Chunk<f32>]) -> usize {
    let mut sums = [simd.splat(0.0); N];
    for (&row_index, &weight) in row_indices.iter().zip(weights) {
        let weight = simd.splat(weight);
        let (value, _) = S::chunks(job.layer.value(&job.shape, row_index));
        for (sum, value) in sums.iter_mut().zip(&value[first..first + N]) {
            *sum = simd.mul_add(weight, simd.load(value), *sum);
        }
    }
    for (out, sum) in out[first..first + N].iter_mut().zip(sums) {
        simd.store(sum, out);
    }
    N
}

#[inline(always)]
fn exp_one<S: Simd>(simd: S, x: f32) -> f32 {
    let mut chunk = S::partial(&[]);
    simd.store(exp(simd, simd.splat(x)), &mut chunk);
    chunk.as_ref()[0]
}
