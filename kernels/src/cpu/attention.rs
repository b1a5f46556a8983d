//! Attention over the paged store.
//!
//! A context is cut every [`SPLIT_LEN`] positions. Each split has its own softmax: its largest score, the sum of its exponentials, and its weighted sum of values. Splits are combined in
//! index order. Where the cuts are depends on positions alone, and nothing within a split depends on which blocks hold it, so a row's result is the same however its prompt was chunked. A window
//! cuts the first split short. A sink is one more split: a score without a value.
//!
//! Heads that share keys and values look at them together: each is read, and turned into f32, once for [`HEAD_GROUP`] heads.

use std::marker::PhantomData;

use super::Cpu;
use super::formats::float::{Element, elements};
use super::formats::{F16, F32};
use super::simd::{Kernel, Simd, exp};
use crate::KvType;
use crate::buffer::Buffer;
use crate::operands::AttentionJob;

/// Positions of a split.
const SPLIT_LEN: usize = 256;
/// Keys whose scores are computed together.
const KEY_GROUP: usize = 4;
/// Heads that look at a key or a value while it is in registers.
const HEAD_GROUP: usize = 4;
/// Vectors of the output of each head of a group whose sums fit into registers.
const VALUE_GROUP: usize = 2;

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
        let group = Group {
            job,
            row: index / job.shape.n_kv_heads,
            kv_head: index % job.shape.n_kv_heads,
            scratch: &mut cpu.attention.take(),
            out,
        };
        match job.shape.kv_type {
            KvType::F16 => cpu.isa.run(Typed(group, PhantomData::<F16>)),
            KvType::F32 => cpu.isa.run(Typed(group, PhantomData::<F32>)),
        }
    });
}

/// Scratch of one task.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Numbers of the rows of the store that hold the split's positions.
    row_indices: Vec<usize>,
    /// Queries of the group's heads, padded like the keys.
    queries: Buffer<f32>,
    /// Scores of each head in a split, then their exponentials: `[group_len, SPLIT_LEN]`.
    scores: Buffer<f32>,
    /// Weighted sum of values in a split for each head, padded like the values.
    split: Buffer<f32>,
    /// The same over the splits so far.
    totals: Buffer<f32>,
    /// Of each head, in the split.
    split_softmaxes: Vec<Softmax>,
    /// Of each head, over the splits so far.
    softmaxes: Vec<Softmax>,
}

/// A softmax over some positions.
#[derive(Debug, Clone, Copy)]
struct Softmax {
    /// The largest score: exponentials are relative to it.
    largest: f32,
    /// Sum of the exponentials.
    sum: f32,
}

/// Nothing seen yet: whatever is combined with it stays as it is.
const NOTHING: Softmax = Softmax {
    largest: f32::NEG_INFINITY,
    sum: 0.0,
};

/// The heads of one row that share a head of keys and values.
struct Group<'a> {
    job: AttentionJob<'a>,
    row: usize,
    kv_head: usize,
    scratch: &'a mut Scratch,
    /// `[group_len * head_dim_v]`
    out: &'a mut [f32],
}

/// A group over a store that keeps its numbers as `E`.
struct Typed<'a, E>(Group<'a>, PhantomData<E>);

impl<E: Element> Kernel for Typed<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Group {
            job,
            row,
            kv_head,
            scratch,
            out,
        } = self.0;
        let (key_stride, value_stride) = (job.shape.key_stride(), job.shape.value_stride());
        let group_len = job.n_heads / job.shape.n_kv_heads;
        let context = job.context(row);

        let queries = scratch.queries.at_least(group_len * key_stride);
        queries.fill(0.0);
        for (head, query) in (kv_head * group_len..).zip(queries.chunks_exact_mut(key_stride)) {
            query[..job.shape.head_dim_k].copy_from_slice(job.query(row, head));
        }
        let totals = scratch.totals.at_least(group_len * value_stride);
        let split = scratch.split.at_least(group_len * value_stride);
        let scores = scratch.scores.at_least(group_len * SPLIT_LEN);
        let (rows, softmaxes) = (&mut scratch.row_indices, &mut scratch.softmaxes);
        let next = &mut scratch.split_softmaxes;
        totals.fill(0.0);
        softmaxes.clear();
        softmaxes.resize(group_len, NOTHING);

        let cuts = (context.start / SPLIT_LEN * SPLIT_LEN..context.end).step_by(SPLIT_LEN);
        for cut in cuts {
            let positions = cut.max(context.start)..(cut + SPLIT_LEN).min(context.end);
            job.row_indices(row, kv_head, positions, rows);
            score::<E, S>(simd, &job, queries, rows, scores);
            next.clear();
            let heads = scores[..group_len * SPLIT_LEN].chunks_exact_mut(SPLIT_LEN);
            for scores in heads {
                next.push(exponentials(simd, &mut scores[..rows.len()]));
            }
            weighted_sum::<E, S>(simd, &job, rows, scores, split);
            let heads = totals
                .chunks_exact_mut(value_stride)
                .zip(split.chunks_exact(value_stride));
            for (((total, split), so_far), &next) in heads.zip(&mut *softmaxes).zip(&*next) {
                combine(simd, so_far, total, next, split);
            }
        }
        if let Some(sinks) = job.sinks {
            let heads = totals.chunks_exact_mut(value_stride).zip(&mut *softmaxes);
            for (head, (total, so_far)) in heads.enumerate() {
                let sink = Softmax {
                    largest: sinks.get(kv_head * group_len + head),
                    sum: 1.0,
                };
                split[..value_stride].fill(0.0);
                combine(simd, so_far, total, sink, &split[..value_stride]);
            }
        }
        let outs = out.chunks_exact_mut(job.shape.head_dim_v);
        for ((out, total), softmax) in outs.zip(totals.chunks_exact(value_stride)).zip(softmaxes) {
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

/// `scores[h][p] = scale · queries[h] · key[p]`
#[inline(always)]
fn score<E: Element, S: Simd>(
    simd: S,
    job: &AttentionJob,
    queries: &[f32],
    rows: &[usize],
    scores: &mut [f32],
) {
    let stride = job.shape.key_stride();
    let mut heads = queries.chunks_exact(HEAD_GROUP * stride);
    let mut head = 0;
    for queries in &mut heads {
        let queries = std::array::from_fn(|h| &queries[h * stride..][..stride]);
        score_heads::<E, S, HEAD_GROUP>(simd, job, queries, rows, &mut scores[head * SPLIT_LEN..]);
        head += HEAD_GROUP;
    }
    for query in heads.remainder().chunks_exact(stride) {
        score_heads::<E, S, 1>(simd, job, [query], rows, &mut scores[head * SPLIT_LEN..]);
        head += 1;
    }
}

#[inline(always)]
fn score_heads<E: Element, S: Simd, const H: usize>(
    simd: S,
    job: &AttentionJob,
    queries: [&[f32]; H],
    rows: &[usize],
    scores: &mut [f32],
) {
    let key =
        |row_index: usize| S::chunks(elements::<E::Packed>(job.layer.key(&job.shape, row_index))).0;
    let queries = queries.map(|query| S::chunks(query).0);
    let n_vectors = queries[0].len();
    for (group, rows) in rows.chunks(KEY_GROUP).enumerate() {
        // The last group may be short: it is filled with its last key, whose score is not kept again.
        let keys: [&[S::Chunk<E::Packed>]; KEY_GROUP] =
            std::array::from_fn(|k| &key(rows[k.min(rows.len() - 1)])[..n_vectors]);
        let mut sums = [[simd.splat(0.0); KEY_GROUP]; H];
        for vector in 0..n_vectors {
            let mut key_vectors = [simd.splat(0.0); KEY_GROUP];
            for k in 0..KEY_GROUP {
                key_vectors[k] = E::load(simd, &keys[k][vector]);
            }
            for h in 0..H {
                let query = simd.load(&queries[h][vector]);
                for k in 0..KEY_GROUP {
                    sums[h][k] = simd.mul_add(key_vectors[k], query, sums[h][k]);
                }
            }
        }
        for (sums, scores) in sums.iter().zip(scores.chunks_mut(SPLIT_LEN)) {
            let scores = &mut scores[group * KEY_GROUP..][..rows.len()];
            for (score, sum) in scores.iter_mut().zip(simd.sum_of_each(*sums)) {
                *score = job.score(sum);
            }
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

/// `out[h][i] = Σ_p weights[h][p] · value[p][i]`, positions in order.
#[inline(always)]
fn weighted_sum<E: Element, S: Simd>(
    simd: S,
    job: &AttentionJob,
    rows: &[usize],
    weights: &[f32],
    out: &mut [f32],
) {
    let stride = job.shape.value_stride();
    let group_len = job.n_heads / job.shape.n_kv_heads;
    let mut head = 0;
    while head < group_len {
        let (weights, out) = (&weights[head * SPLIT_LEN..], &mut out[head * stride..]);
        for first in (0..stride / S::LANES).step_by(VALUE_GROUP) {
            if group_len - head >= HEAD_GROUP {
                weighted_heads::<E, S, HEAD_GROUP>(simd, job, rows, weights, first, out);
            } else {
                weighted_heads::<E, S, 1>(simd, job, rows, weights, first, out);
            }
        }
        head += if group_len - head >= HEAD_GROUP {
            HEAD_GROUP
        } else {
            1
        };
    }
}

/// [`VALUE_GROUP`] vectors of the output of `H` heads, from the one numbered `first`.
#[inline(always)]
fn weighted_heads<E: Element, S: Simd, const H: usize>(
    simd: S,
    job: &AttentionJob,
    rows: &[usize],
    weights: &[f32],
    first: usize,
    out: &mut [f32],
) {
    let stride = job.shape.value_stride();
    let weights: [&[f32]; H] = std::array::from_fn(|h| &weights[h * SPLIT_LEN..][..rows.len()]);
    let mut sums = [[simd.splat(0.0); VALUE_GROUP]; H];
    for (p, &row_index) in rows.iter().enumerate() {
        let value = S::chunks(elements::<E::Packed>(
            job.layer.value(&job.shape, row_index),
        ))
        .0;
        let mut vectors = [simd.splat(0.0); VALUE_GROUP];
        for v in 0..VALUE_GROUP {
            vectors[v] = E::load(simd, &value[first + v]);
        }
        for h in 0..H {
            let weight = simd.splat(weights[h][p]);
            for v in 0..VALUE_GROUP {
                sums[h][v] = simd.mul_add(weight, vectors[v], sums[h][v]);
            }
        }
    }
    for (sums, out) in sums.iter().zip(out.chunks_mut(stride)) {
        let out = &mut S::chunks_mut(out).0[first..first + VALUE_GROUP];
        for (&sum, out) in sums.iter().zip(out) {
            simd.store(sum, out);
        }
    }
}

#[inline(always)]
fn exp_one<S: Simd>(simd: S, x: f32) -> f32 {
    let mut chunk = S::partial(&[]);
    simd.store(exp(simd, simd.splat(x)), &mut chunk);
    chunk.as_ref()[0]
}
