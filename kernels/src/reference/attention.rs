//! Attention as the formula has it: all scores, one softmax, one weighted sum.

use crate::operands::AttentionJob;

/// `out[r, h] = Σ_p softmax_p(scale · q[r, h] · k[p, kv(h)]) · v[p, kv(h)]`, over the positions `p` that row `r` attends to; a sink takes its share of the softmax and has no value.
///
/// `out`: `[rows, n_heads * head_dim_v]`.
#[expect(
    clippy::cast_possible_truncation,
    reason = "sums are complete: each is rounded to f32 once"
)]
pub(crate) fn attention(job: AttentionJob, out: &mut [f32]) {
    let shape = &job.shape;
    let (mut scores, mut numbers) = (Vec::new(), Vec::new());
    for (index, out) in out.chunks_exact_mut(shape.head_dim_v).enumerate() {
        let (row, head) = (index / job.n_heads, index % job.n_heads);
        let (table, context) = (job.rows.table(row), job.context(row));
        let row_index = |position: usize| {
            let block = table[position / shape.block_len] as usize;
            shape.row_index(block, job.kv_head(head), position % shape.block_len)
        };

        scores.clear();
        for position in context.clone() {
            let key = job.layer.key(shape, row_index(position));
            shape.kv_type.unpack(key, &mut numbers);
            scores.push(job.score(super::dot(job.query(row, head), &numbers)));
        }
        scores.extend(job.sinks.map(|sinks| sinks.get(head)));
        softmax(&mut scores);

        let mut sums = vec![0.0; shape.head_dim_v];
        for (position, &weight) in context.clone().zip(&scores) {
            let value = job.layer.value(shape, row_index(position));
            shape.kv_type.unpack(value, &mut numbers);
            for (sum, &number) in sums.iter_mut().zip(&numbers) {
                *sum += f64::from(weight) * f64::from(number);
            }
        }
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = sum as f32;
        }
    }
}

/// `scores[p] = exp(scores[p]) / Σ_p exp(scores[p])`, with the largest score taken off first so that nothing overflows.
#[expect(
    clippy::cast_possible_truncation,
    reason = "each quotient is rounded to f32 once"
)]
fn softmax(scores: &mut [f32]) {
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for score in &mut *scores {
        *score = (*score - max).exp();
        sum += f64::from(*score);
    }
    for score in scores {
        *score = (f64::from(*score) / sum) as f32;
    }
}
