//! Operations on rows, rope and the cache, sampling.

use half::f16;
use kernels::hip::launch::attention::Cache;
use kernels::hip::launch::rope::{RopeAngles, RopeWrite, rope_angles, rope_write};
use kernels::hip::launch::rowwise::{
    GatherRows, HeadNorm, LayerNorm, RmsNorm, gather_rows, head_norm, layer_norm, rms_norm,
    soft_cap,
};
use kernels::hip::launch::sampling::{TopLogits, top_logits};
use kernels::hip::launch::{Forms, Half, Int8};

use super::cases::Random;
use super::products::{check, check_quants};
use super::support::{downloaded, kernels, memory, stream, uploaded};

#[test]
fn norms_are_what_their_formulas_say() {
    let stream = stream();
    for (rows, n) in [
        (1, 1),
        (3, 7),
        (2, 100),
        (1, 2048),
        (2, 2052),
        (1, 5000),
        (5, 96),
    ] {
        let mut random = Random::new(n as u64);
        let (x, add, weight, bias) = (
            random.numbers(rows * n),
            random.numbers(rows * n),
            random.numbers(n),
            random.numbers(n),
        );
        let (x_view, add_view, weight_view, bias_view) = (
            uploaded(&x),
            uploaded(&add),
            uploaded(&weight),
            uploaded(&bias),
        );
        let (normed, layered) = (memory(rows * n * 4), memory(rows * n * 4));
        let out = Forms {
            f32: Some(&layered),
            ..Forms::default()
        };
        let op = LayerNorm {
            x: &x_view,
            weight: &weight_view,
            bias: Some(&bias_view),
            out,
            rows,
            n,
            eps: 1e-5,
        };
        layer_norm(&stream, &kernels(), op).expect("enqueued");
        let out = Forms {
            f32: Some(&normed),
            ..Forms::default()
        };
        let op = RmsNorm {
            x: &x_view,
            add: Some(&add_view),
            weight: &weight_view,
            out,
            rows,
            n,
            eps: 1e-5,
        };
        rms_norm(&stream, &kernels(), op).expect("enqueued");

        let sum = |i: usize| f64::from(x[i] + add[i]);
        let mean = |of: &dyn Fn(usize) -> f64| -> Vec<f64> {
            let row = |r: usize| (r * n..(r + 1) * n).map(of).sum::<f64>() / n as f64;
            (0..rows).map(row).collect()
        };
        let squares = mean(&|i| sum(i) * sum(i));
        let means = mean(&|i| f64::from(x[i]));
        let centred = |i: usize| f64::from(x[i]) - means[i / n];
        let variances = mean(&|i| centred(i) * centred(i));
        check(
            &downloaded(&stream, &x_view),
            sum,
            |_| 0.0,
            &("sum", rows, n),
        );
        // A few roundings of a quotient that is at most the square root of n.
        let rounding = 3e-6 * (n as f32).sqrt();
        let rms = |i: usize| sum(i) / (squares[i / n] + 1e-5).sqrt() * f64::from(weight[i % n]);
        check(
            &downloaded(&stream, &normed),
            rms,
            |_| rounding,
            &("rms", rows, n),
        );
        // One element alone deviates from its mean by nothing, and rounding is magnified by 1 / sqrt(eps).
        let magnified = if n == 1 { 1e-4 } else { rounding };
        let layer = |i: usize| {
            centred(i) / (variances[i / n] + 1e-5).sqrt() * f64::from(weight[i % n])
                + f64::from(bias[i % n])
        };
        check(
            &downloaded(&stream, &layered),
            layer,
            |_| magnified,
            &("layer", rows, n),
        );
    }
}

#[test]
fn a_norm_writes_all_forms_at_once() {
    let stream = stream();
    let (rows, n) = (3, 2080);
    let mut random = Random::new(2);
    let (x, weight) = (
        uploaded(&random.numbers(rows * n)),
        uploaded(&vec![1.0f32; n]),
    );
    let (quants, blocks) = Int8::bytes(rows, n);
    let (f32, quants, blocks) = (memory(rows * n * 4), memory(quants), memory(blocks));
    let (half, scales) = (memory(rows * n * 2), memory(rows * 4));
    let out = Forms {
        f32: Some(&f32),
        int8: Some(Int8 {
            quants: &quants,
            blocks: &blocks,
        }),
        half: Some(Half {
            numbers: &half,
            scales: &scales,
        }),
    };
    let op = RmsNorm {
        x: &x,
        add: None,
        weight: &weight,
        out,
        rows,
        n,
        eps: 1e-6,
    };
    rms_norm(&stream, &kernels(), op).expect("enqueued");
    let numbers: Vec<f32> = downloaded(&stream, &f32);
    check_quants(
        &numbers,
        &downloaded(&stream, &quants),
        &downloaded(&stream, &blocks),
    );
    let halves: Vec<u16> = downloaded(&stream, &half);
    let expected: Vec<u16> = numbers
        .iter()
        .map(|&x| f16::from_f32(x).to_bits())
        .collect();
    assert_eq!(halves, expected);
    assert_eq!(downloaded::<f32>(&stream, &scales), [1.0; 3]);
}

#[test]
fn what_is_no_number_spoils_its_block_and_its_row() {
    let stream = stream();
    let mut numbers = vec![0.5f32; 128];
    numbers[40] = f32::INFINITY;
    let (x, weight) = (uploaded(&numbers), uploaded(&vec![1.0f32; 64]));
    let (quants, blocks) = (memory(128), memory(32));
    let (half, scales) = (memory(256), memory(8));
    let out = Forms {
        f32: None,
        int8: Some(Int8 {
            quants: &quants,
            blocks: &blocks,
        }),
        half: Some(Half {
            numbers: &half,
            scales: &scales,
        }),
    };
    kernels::hip::launch::rowwise::write_forms(&stream, &kernels(), &x, [2, 64], out)
        .expect("enqueued");
    let of_blocks: Vec<[u8; 8]> = downloaded(&stream, &blocks);
    let nan: Vec<bool> = of_blocks
        .iter()
        .map(|block| f32::from_le_bytes([block[0], block[1], block[2], block[3]]).is_nan())
        .collect();
    assert_eq!(nan, [false, true, false, false]);
    let scales: Vec<f32> = downloaded(&stream, &scales);
    assert!(scales[0].is_nan() && scales[1] == 1.0, "{scales:?}");
    drop(weight);
}

#[test]
fn heads_are_normed_and_logits_bounded() {
    let stream = stream();
    let (rows, n_heads, n) = (2, 9, 96);
    let mut random = Random::new(4);
    let (x, weight) = (random.numbers(rows * n_heads * n), random.numbers(n));
    let (view, weight_view) = (uploaded(&x), uploaded(&weight));
    head_norm(
        &stream,
        &kernels(),
        HeadNorm {
            x: &view,
            weight: &weight_view,
            rows,
            n_heads,
            n,
            eps: 1e-6,
        },
    )
    .expect("enqueued");
    soft_cap(&stream, &kernels(), &view, x.len(), 2.0).expect("enqueued");
    let expected = |i: usize| {
        let head = &x[i / n * n..][..n];
        let mean = head
            .iter()
            .map(|&x| f64::from(x) * f64::from(x))
            .sum::<f64>()
            / n as f64;
        2.0 * (f64::from(x[i]) / (mean + 1e-6).sqrt() * f64::from(weight[i % n]) / 2.0).tanh()
    };
    check(&downloaded(&stream, &view), expected, |_| 4e-6, &"heads");
}

#[test]
fn chosen_rows_are_copied() {
    let stream = stream();
    let x: Vec<f32> = (0..50u8).map(f32::from).collect();
    let (x, rows, out) = (uploaded(&x), uploaded(&[4u32, 0, 4]), memory(3 * 10 * 4));
    let op = GatherRows {
        x: &x,
        rows: &rows,
        out: &out,
        n_rows: 3,
        n: 10,
    };
    // SAFETY: there are five rows.
    unsafe { gather_rows(&stream, &kernels(), op) }.expect("enqueued");
    let expected: Vec<f32> = [40u8, 0, 40]
        .iter()
        .flat_map(|&first| (first..first + 10).map(f32::from))
        .collect();
    assert_eq!(downloaded::<f32>(&stream, &out), expected);
}

#[test]
fn angles_are_exact_far_out() {
    let stream = stream();
    let positions = [0u32, 1, 1000, 131_071, 1_000_000];
    let frequencies = [1.0f32, 0.37, 1e-4];
    let (positions_view, frequencies_view, angles) =
        (uploaded(&positions), uploaded(&frequencies), memory(15 * 8));
    let op = RopeAngles {
        positions: &positions_view,
        stride: 1,
        frequencies: &frequencies_view,
        angles: &angles,
        rows: 5,
        pairs: 3,
        factor: 1.5,
    };
    rope_angles(&stream, &kernels(), op).expect("enqueued");
    let expected = |i: usize| {
        // The angle itself is rounded to f32, as on the other devices.
        let angle = f64::from(positions[i / 6] as f32 * frequencies[i % 6 / 2]);
        1.5 * if i % 2 == 0 { angle.cos() } else { angle.sin() }
    };
    check(&downloaded(&stream, &angles), expected, |_| 2e-7, &"angles");
}

#[test]
fn heads_are_rotated_and_written_to_their_slots() {
    let stream = stream();
    let (rows, n_heads, n_kv_heads, head_dim_k, head_dim_v) = (3, 4, 2, 24, 20);
    for (pairs, halves, is_f32) in [
        (12, false, false),
        (12, true, true),
        (5, true, false),
        (5, false, true),
    ] {
        let mut random = Random::new(pairs as u64);
        let (q, k, v) = (
            random.numbers(rows * n_heads * head_dim_k),
            random.numbers(rows * n_kv_heads * head_dim_k),
            random.numbers(rows * n_kv_heads * head_dim_v),
        );
        let turns = random.numbers(rows * pairs * 2);
        let (q_view, k_view, v_view, angles) =
            (uploaded(&q), uploaded(&k), uploaded(&v), uploaded(&turns));
        let (n_blocks, block_len, stride) = (3, 4, 32);
        let bytes = n_blocks * n_kv_heads * block_len * stride * if is_f32 { 4 } else { 2 };
        let (keys, values) = (uploaded(&vec![0u8; bytes]), uploaded(&vec![0u8; bytes]));
        let cache = Cache {
            keys: &keys,
            values: &values,
            is_f32,
            n_blocks,
            block_len,
            n_kv_heads,
            head_dim_k,
            head_dim_v,
            key_stride: stride,
            value_stride: stride,
        };
        // The last row writes nowhere.
        let slots = [[2u32, 3], [0, 1], [u32::MAX, 0]];
        let slots_view = uploaded(&slots);
        let op = RopeWrite {
            q: &q_view,
            k: &k_view,
            v: &v_view,
            angles: Some(&angles),
            slots: &slots_view,
            cache,
            rows,
            n_heads,
            pairs,
            halves,
        };
        // SAFETY: the slots lie in the cache.
        unsafe { rope_write(&stream, &kernels(), op) }.expect("enqueued");
        let rotated = |x: &[f32], heads: usize| -> Vec<f32> {
            let mut x = x.to_vec();
            for (h, head) in x.chunks_mut(head_dim_k).enumerate() {
                for i in 0..pairs {
                    let (a, b) = if halves {
                        (i, i + pairs)
                    } else {
                        (2 * i, 2 * i + 1)
                    };
                    let [cos, sin] = [0, 1].map(|part| turns[(h / heads * pairs + i) * 2 + part]);
                    (head[a], head[b]) =
                        (head[a] * cos - head[b] * sin, head[b] * cos + head[a] * sin);
                }
            }
            x
        };
        let case = (pairs, halves, is_f32);
        let expected = rotated(&q, n_heads);
        check(
            &downloaded(&stream, &q_view),
            |i| f64::from(expected[i]),
            |_| 3e-7,
            &case,
        );
        let numbers = |view: &kernels::hip::View| -> Vec<f32> {
            if is_f32 {
                downloaded(&stream, view)
            } else {
                downloaded::<u16>(&stream, view)
                    .into_iter()
                    .map(|bits| f16::from_bits(bits).to_f32())
                    .collect()
            }
        };
        let laid_out = |x: &[f32], dim: usize| {
            let mut cache = vec![0.0; n_blocks * n_kv_heads * block_len * stride];
            for (i, head) in x.chunks(dim).enumerate() {
                let [block, offset] = slots[i / n_kv_heads].map(|n| n as usize);
                if slots[i / n_kv_heads][0] != u32::MAX {
                    let row = (block * n_kv_heads + i % n_kv_heads) * block_len + offset;
                    cache[row * stride..][..dim].copy_from_slice(head);
                }
            }
            cache
        };
        let tolerance = |_| if is_f32 { 3e-7 } else { 1e-3 };
        let expected = laid_out(&rotated(&k, n_kv_heads), head_dim_k);
        check(
            &numbers(&keys),
            |i| f64::from(expected[i]),
            tolerance,
            &case,
        );
        let expected = laid_out(&v, head_dim_v);
        check(
            &numbers(&values),
            |i| f64::from(expected[i]),
            tolerance,
            &case,
        );
    }
}

#[test]
fn the_largest_logits_come_in_order() {
    let stream = stream();
    for (rows, count, n) in [
        (1, 1, 1),
        (2, 5, 5),
        (3, 1024, 3),
        (1, 1025, 20),
        (2, 5000, 7),
    ] {
        let mut random = Random::new(count as u64);
        // Few values, so that there are ties; and what is no number.
        let mut logits: Vec<f32> = (0..rows * count)
            .map(|_| (random.number() * 50.0).round() / 10.0)
            .collect();
        if count > 4 {
            logits[3] = f32::NAN;
        }
        let view = uploaded(&logits);
        let (ids, values, log_sums) =
            (memory(rows * n * 4), memory(rows * n * 4), memory(rows * 4));
        let op = TopLogits {
            logits: &view,
            ids: &ids,
            values: Some(&values),
            log_sums: Some(&log_sums),
            rows,
            count,
            n,
        };
        top_logits(&stream, &kernels(), op).expect("enqueued");
        let (ids, values): (Vec<u32>, Vec<f32>) =
            (downloaded(&stream, &ids), downloaded(&stream, &values));
        let log_sums: Vec<f32> = downloaded(&stream, &log_sums);
        for (r, row) in logits.chunks(count).enumerate() {
            let mut order: Vec<usize> = (0..count).collect();
            let key = |i: usize| {
                if row[i].is_nan() {
                    f32::NEG_INFINITY
                } else {
                    row[i]
                }
            };
            order.sort_by(|&a, &b| {
                key(b)
                    .total_cmp(&key(a))
                    .then(row[a].is_nan().cmp(&row[b].is_nan()))
                    .then(a.cmp(&b))
            });
            let found: Vec<usize> = ids[r * n..][..n].iter().map(|&id| id as usize).collect();
            assert_eq!(found, order[..n], "{rows} {count} {n}");
            assert!(
                found
                    .iter()
                    .zip(&values[r * n..])
                    .all(|(&id, value)| row[id].to_bits() == value.to_bits())
            );
            let largest = f64::from(row[order[0]]);
            let sum: f64 = row.iter().map(|&x| (f64::from(x) - largest).exp()).sum();
            let expected = largest + sum.ln();
            let close = (f64::from(log_sums[r]) - expected).abs() < 1e-5
                || (expected.is_nan() && log_sums[r].is_nan());
            assert!(close, "{} is not {expected}", log_sums[r]);
        }
    }
}
