//! Experts: chosen, ordered, multiplied and put together.

use gguf::TensorType;
use kernels::hip::View;
use kernels::hip::launch::experts::{
    AddExperts, ChooseExperts, ExpertWeights, Gating, Slots, add_experts, choose_experts,
    expert_matmul, expert_matvec, order_slots,
};
use kernels::hip::launch::matrix::Tile;

use super::cases::Random;
use super::products::{Input, Matrix, allowed_half, allowed_int8, check};
use super::support::{downloaded, kernels, memory, stream, uploaded};

#[test]
fn the_best_experts_are_chosen_with_their_weights() {
    let stream = stream();
    for (gating, normalise, with_bias) in [
        (Gating::SoftmaxOfAll, false, false),
        (Gating::SoftmaxOfAll, true, false),
        (Gating::SoftmaxOfAll, true, true),
        (Gating::Sigmoid, true, true),
        (Gating::SoftmaxOfChosen, false, false),
        (Gating::SoftmaxOfChosen, false, true),
    ] {
        for (rows, n_experts, k) in [(1, 1, 1), (5, 8, 2), (3, 33, 8), (2, 128, 8)] {
            let mut random = Random::new((n_experts + k) as u64);
            let logits: Vec<f32> = random
                .numbers(rows * n_experts)
                .iter()
                .map(|x| (x * 32.0).round() / 8.0)
                .collect();
            let bias: Vec<f32> = random.numbers(n_experts).iter().map(|x| x * 0.3).collect();
            let (logits_view, bias_view) = (uploaded(&logits), uploaded(&bias));
            let (ids, weights) = (memory(rows * k * 4), memory(rows * k * 4));
            let op = ChooseExperts {
                logits: &logits_view,
                bias: with_bias.then_some(&bias_view),
                ids: &ids,
                weights: &weights,
                rows,
                n_experts,
                k,
                gating,
                normalise,
                scale: 2.5,
            };
            choose_experts(&stream, &kernels(), op).expect("enqueued");
            let (ids, weights): (Vec<u32>, Vec<f32>) =
                (downloaded(&stream, &ids), downloaded(&stream, &weights));
            for (r, row) in logits.chunks(n_experts).enumerate() {
                let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let value = |e: usize| match gating {
                    Gating::Sigmoid => 1.0 / (1.0 + (-f64::from(row[e])).exp()),
                    _ => f64::from(row[e] - largest).exp(),
                };
                let chosen: Vec<usize> = ids[r * k..][..k].iter().map(|&id| id as usize).collect();
                let all: f64 = (0..n_experts).map(value).sum();
                let score = |e: usize| match gating {
                    Gating::SoftmaxOfAll => value(e) / all,
                    Gating::Sigmoid => value(e),
                    Gating::SoftmaxOfChosen => f64::from(row[e]),
                };
                let choice = |e: usize| score(e) + if with_bias { f64::from(bias[e]) } else { 0.0 };
                let mut order: Vec<usize> = (0..n_experts).collect();
                order.sort_by(|&a, &b| choice(b).total_cmp(&choice(a)).then(a.cmp(&b)));
                assert_eq!(chosen, order[..k], "{gating:?} {n_experts} {k}");
                let of_chosen: f64 = chosen.iter().map(|&e| value(e)).sum();
                let total = match gating {
                    _ if normalise => of_chosen,
                    Gating::SoftmaxOfChosen => of_chosen,
                    Gating::SoftmaxOfAll => all,
                    Gating::Sigmoid => 1.0,
                };
                check(
                    &weights[r * k..][..k],
                    |j| 2.5 * value(chosen[j]) / total,
                    |_| 3e-6,
                    &(gating, normalise, n_experts, k),
                );
            }
        }
    }
}

#[test]
fn slots_are_listed_expert_by_expert() {
    let stream = stream();
    for (n_slots, n_experts) in [(1, 1), (7, 3), (256, 8), (1000, 33)] {
        let mut random = Random::new(n_slots as u64);
        let ids: Vec<u32> = (0..n_slots)
            .map(|_| u32::try_from(random.below(n_experts)).expect("small"))
            .collect();
        let (ids_view, order, first) = (
            uploaded(&ids),
            memory(n_slots * 4),
            memory((n_experts + 1) * 4),
        );
        order_slots(
            &stream,
            &kernels(),
            &ids_view,
            [&order, &first],
            [n_slots, n_experts],
        )
        .expect("enqueued");
        let mut expected: Vec<u32> = (0..u32::try_from(n_slots).expect("small")).collect();
        expected.sort_by_key(|&slot| ids[slot as usize]);
        assert_eq!(downloaded::<u32>(&stream, &order), expected);
        let before = |e: usize| ids.iter().filter(|&&id| (id as usize) < e).count();
        let expected: Vec<u32> = (0..=n_experts)
            .map(|e| u32::try_from(before(e)).expect("small"))
            .collect();
        assert_eq!(downloaded::<u32>(&stream, &first), expected);
    }
}

#[test]
fn slots_meet_their_experts() {
    let stream = stream();
    for (tensor_type, rows, k, n_experts) in [
        (TensorType::MXFP4, 3, 2, 4),
        (TensorType::Q4_K, 40, 2, 3),
        (TensorType::F16, 5, 1, 2),
    ] {
        let (n_out, n_in, n_slots) = (70, 512, rows * k);
        let mut random = Random::new(n_slots as u64);
        let matrices: Vec<Matrix> = (0..n_experts)
            .map(|_| Matrix::random(tensor_type, [n_out, n_in], &mut random))
            .collect();
        let bias = random.numbers(n_experts * n_out);
        let held: Vec<View> = matrices
            .iter()
            .map(|matrix| matrix.on_device.clone())
            .chain(bias.chunks(n_out).map(uploaded))
            .collect();
        let addresses: Vec<u64> = held.iter().map(|view| view.address() as u64).collect();
        let (table, biases) = (
            uploaded(&addresses[..n_experts]),
            uploaded(&addresses[n_experts..]),
        );
        let ids: Vec<u32> = (0..n_slots)
            .map(|_| u32::try_from(random.below(n_experts)).expect("small"))
            .collect();
        let x = Input::random(rows, n_in, &mut random);
        let weights = ExpertWeights {
            table: &table,
            biases: Some(&biases),
            held: &held,
            tensor_type,
            n_out,
            n_in,
            n_experts,
        };
        let slots = Slots {
            count: n_slots,
            share: k,
        };
        let (ids_view, order, first) = (
            uploaded(&ids),
            memory(n_slots * 4),
            memory((n_experts + 1) * 4),
        );
        let (few, many) = (memory(n_slots * n_out * 4), memory(n_slots * n_out * 4));
        // SAFETY: the ids are experts, the table has the address of each, and all are held.
        unsafe {
            expert_matvec(
                &stream,
                &kernels(),
                weights,
                x.for_dots(),
                slots,
                [&ids_view, &few],
            )
        }
        .expect("enqueued");
        order_slots(
            &stream,
            &kernels(),
            &ids_view,
            [&order, &first],
            [n_slots, n_experts],
        )
        .expect("enqueued");
        // SAFETY: as above, with lists that were just made of the same ids.
        unsafe {
            expert_matmul(
                &stream,
                &kernels(),
                Tile::for_rows(n_slots.div_ceil(n_experts)),
                weights,
                x.half(),
                slots,
                [&order, &first, &many],
            )
        }
        .expect("enqueued");
        let expert = |i: usize| ids[i / n_out] as usize;
        let row = |i: usize| x.row(i / n_out / k);
        let expected = |i: usize| {
            let weights = matrices[expert(i)].row(i % n_out).iter().zip(row(i));
            weights
                .map(|(&w, &x)| f64::from(w) * f64::from(x))
                .sum::<f64>()
                + f64::from(bias[expert(i) * n_out + i % n_out])
        };
        check(
            &downloaded(&stream, &few),
            expected,
            |i| allowed_int8(&matrices[expert(i)], i % n_out, row(i)),
            &("few", tensor_type),
        );
        check(
            &downloaded(&stream, &many),
            expected,
            |i| allowed_half(&matrices[expert(i)], i % n_out, row(i)),
            &("many", tensor_type),
        );
    }
}

#[test]
fn outputs_of_experts_are_put_together() {
    let stream = stream();
    let (rows, k, n) = (3, 4, 300);
    let mut random = Random::new(9);
    let (y, weights, add) = (
        random.numbers(rows * k * n),
        random.numbers(rows * k),
        random.numbers(rows * n),
    );
    let (y_view, weights_view, out) = (uploaded(&y), uploaded(&weights), uploaded(&add));
    add_experts(
        &stream,
        &kernels(),
        AddExperts {
            y: &y_view,
            weights: &weights_view,
            add: Some(&out),
            out: &out,
            rows,
            k,
            n,
        },
    )
    .expect("enqueued");
    let expected = |i: usize| {
        let (r, i_in) = (i / n, i % n);
        f64::from(add[i])
            + (0..k)
                .map(|j| f64::from(weights[r * k + j]) * f64::from(y[(r * k + j) * n + i_in]))
                .sum::<f64>()
    };
    check(&downloaded(&stream, &out), expected, |_| 2e-6, &"experts");
}
