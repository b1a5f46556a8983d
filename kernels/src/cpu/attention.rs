//! Attention over the paged store.
//!
//! A context is cut every [`SPLIT_LEN`] positions. Each split has its own softmax: its largest score, the sum of its exponentials, and its weighted sum of values. Splits are combined in
//! index order. Where the cuts are depends on positions alone, and nothing within a split depends on which blocks hold it, so a row's result is the same however its prompt was chunked. A window
//! cuts the first split short. A sink is one more split: a score without a value.

use super::Cpu;
use super::formats::float::accumulate as accumulate_floats;
use super::simd::{Kernel, Simd, exp};
use crate::buffer::Buffer;
use crate::operands::AttentionJob;

/// Positions of a split.
const SPLIT_LEN: usize = 256;
/// Keys whose scores are computed together.
const KEY_GROUP: usize = 4;
/// Vectors of the output whose sums fit into registers.
const VALUE_GROUP: usize = 8;

/// `out[r, h] = Σ_p softmax_p(scale · q[r, h] · k[p, kv(h)]) · v[p, kv(h)]`
///
/// `out`: `[rows, n_heads * head_dim_v]`. A task is one row with the heads that share a head of keys and values.
pub(super) fn attention(cpu: &Cpu, job: AttentionJob, out: &mut [f32]) {
    let group_len = job.n_heads / job.shape.n_kv_heads;
    let out_len = group_len * job.shape.head_dim_v;
    if out.is_empty() {
        return;
    }
    let positions = (0..job.rows.n_rows()).map(|row| job.context(row).len());
    let work =
        positions.sum::<usize>() * job.n_heads * (job.shape.head_dim_k + job.shape.head_dim_v);
    let tasks = out.chunks_exact_mut(out_len).enumerate();
    cpu.workers.for_each(tasks, work, |(index, out)| {
        cpu.isa.run(Group {
            job,
            row: index / job.shape.n_kv_heads,
            kv_head: index % job.shape.n_kv_heads,
            scratch: &mut cpu.attention.take(),
            out,
        });
    });
}

/// Scratch of one task.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Numbers of the rows of the store that hold the split's positions.
    row_indices: Vec<usize>,
    /// Queries of the group's heads, padded like the keys.
    queries: Buffer<f32>,
    /// Scores of one head in a split, then their exponentials: `[SPLIT_LEN]`.
    scores: Buffer<f32>,
    /// Weighted sum of values in a split, padded like the values.
    split: Buffer<f32>,
    /// The same over the splits so far, for each head.
    totals: Buffer<f32>,
    /// Of each head.
    softmaxes: Vec<Softmax>,
}

/// A softmax over the positions so far.
#[derive(Debug, Clone, Copy)]
struct Softmax {
    /// The largest score: exponentials are relative to it.
    largest: f32,
    /// Sum of the exponentials.
    sum: f32,
}

/// The heads of one row that share a head of keys and values.
struct Group<'a> {
    job: AttentionJob<'a>,
    row: usize,
    kv_head: usize,
    scratch: &'a mut Scratch,
    /// `[group_len * head_dim_v]`
    out: &'a mut [f32],
}

impl Kernel for Group<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Group {
            job,
            row,
            kv_head,
            scratch,
            out,
        } = self;
        let (key_stride, value_stride) = (job.shape.key_stride(), job.shape.value_stride());
        let group_len = job.n_heads / job.shape.n_kv_heads;
        let context = job.context(row);

        let queries = scratch.queries.at_least(group_len * key_stride);
        queries.fill(0.0);
        for (head, query) in (kv_head * group_len..).zip(queries.chunks_exact_mut(key_stride)) {
            query[..job.shape.head_dim_k].copy_from_slice(job.query(row, head));
        }
        let totals = scratch.totals.at_least(group_len * value_stride);
        let split = scratch.split.at_least(value_stride);
        let scores = scratch.scores.at_least(SPLIT_LEN);
        let row_indices = &mut scratch.row_indices;
        scratch.softmaxes.clear();

        let cuts = (context.start / SPLIT_LEN * SPLIT_LEN..context.end).step_by(SPLIT_LEN);
        for (number, cut) in cuts.enumerate() {
            let positions = cut.max(context.start)..(cut + SPLIT_LEN).min(context.end);
            job.row_indices(row, kv_head, positions, row_indices);
            let heads = queries
                .chunks_exact(key_stride)
                .zip(totals.chunks_exact_mut(value_stride));
            for (head, (query, total)) in heads.enumerate() {
                let scores = &mut scores[..row_indices.len()];
                score(simd, &job, query, row_indices, scores);
                let softmax = exponentials(simd, scores);
                if number == 0 {
                    weighted_sum(simd, &job, row_indices, scores, total);
                    scratch.softmaxes.push(softmax);
                } else {
                    weighted_sum(simd, &job, row_indices, scores, split);
                    combine(simd, &mut scratch.softmaxes[head], total, softmax, split);
                }
            }
        }
        if let Some(sinks) = job.sinks {
            split.fill(0.0);
            let heads = totals.chunks_exact_mut(value_stride).enumerate();
            for (head, total) in heads {
                let sink = Softmax {
                    largest: sinks.get(kv_head * group_len + head),
                    sum: 1.0,
                };
                combine(simd, &mut scratch.softmaxes[head], total, sink, split);
            }
        }
        let outs = out.chunks_exact_mut(job.shape.head_dim_v);
        for ((out, total), softmax) in outs
            .zip(totals.chunks_exact(value_stride))
            .zip(&scratch.softmaxes)
        {
            for (out, &total) in out.iter_mut().zip(total) {
                *out = total / softmax.sum;
            }
        }
    }
}

/// Adds a split to the splits before it.
#[inline(always)]
fn combine<S: Simd>(
    simd: S,
    so_far: &mut Softmax,
    total: &mut [f32],
    next: Softmax,
    split: &[f32],
) {
    let largest = if next.largest > so_far.largest {
        next.largest
    } else {
        so_far.largest
    };
    let factor = exp_one(simd, so_far.largest - largest);
    let next_factor = exp_one(simd, next.largest - largest);
    for (total, &split) in total.iter_mut().zip(split) {
        *total = *total * factor + split * next_factor;
    }
    *so_far = Softmax {
        largest,
        sum: so_far.sum * factor + next.sum * next_factor,
    };
}

/// `scores[p] = scale · query · key[p]`
#[inline(always)]
fn score<S: Simd>(
    simd: S,
    job: &AttentionJob,
    query: &[f32],
    row_indices: &[usize],
    scores: &mut [f32],
) {
    for (rows, scores) in row_indices
        .chunks(KEY_GROUP)
        .zip(scores.chunks_mut(KEY_GROUP))
    {
        // The last group may be short: it is filled with its last key, whose score is not kept again.
        let mut keys = [job.layer.key(&job.shape, rows[rows.len() - 1]); KEY_GROUP];
        for (key, &row_index) in keys.iter_mut().zip(rows) {
            *key = job.layer.key(&job.shape, row_index);
        }
        let mut sums = [[simd.splat(0.0)]; KEY_GROUP];
        accumulate_floats(simd, keys, [query], &mut sums);
        let [[a], [b], [c], [d]] = sums;
        for (score, sum) in scores.iter_mut().zip(simd.sum_of_each([a, b, c, d])) {
            *score = job.score(sum);
        }
    }
}

/// `scores[p] = exp(scores[p] - largest)`
#[inline(always)]
fn exponentials<S: Simd>(simd: S, scores: &mut [f32]) -> Softmax {
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
    Softmax { largest, sum }
}

/// `out[i] = Σ_p weights[p] · value[p][i]`, positions in order.
#[inline(always)]
fn weighted_sum<S: Simd>(
    simd: S,
    job: &AttentionJob,
    row_indices: &[usize],
    weights: &[f32],
    out: &mut [f32],
) {
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
fn weighted_group<S: Simd, const N: usize>(
    simd: S,
    job: &AttentionJob,
    row_indices: &[usize],
    weights: &[f32],
    first: usize,
    out: &mut [S::Chunk<f32>],
) -> usize {
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
