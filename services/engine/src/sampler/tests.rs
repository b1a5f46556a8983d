use proptest::prelude::*;

use super::*;

const NAN: f32 = f32::NAN;
const INF: f32 = f32::INFINITY;

fn params(temperature: f32, top_k: u32, top_p: f32, min_p: f32) -> SamplingParams {
    SamplingParams {
        temperature,
        top_k,
        top_p,
        min_p,
        ..SamplingParams::GREEDY
    }
}

fn sampler(params: SamplingParams, seed: u64) -> Sampler {
    Sampler::new(params, &[], NotYet::default(), seed)
}

/// The tokens that come out of the same row again and again.
fn run(mut sampler: Sampler, logits: &[f32], n: usize) -> Vec<u32> {
    let mut scratch = Scratch::default();
    (0..n)
        .map(|_| sampler.sample(Seen::Row(logits), &mut scratch))
        .collect()
}

/// Which tokens come out over many indices.
fn drawn(params: SamplingParams, logits: &[f32]) -> Vec<u32> {
    let mut tokens = run(sampler(params, 7), logits, 2000);
    tokens.sort_unstable();
    tokens.dedup();
    tokens
}

#[test]
fn greedy_takes_the_lowest_id_among_the_best() {
    let check = |logits: &[f32], expected: u32| {
        assert_eq!(most_likely(logits), expected, "{logits:?}");
        let found = run(sampler(SamplingParams::GREEDY, 1), logits, 1);
        assert_eq!(found, [expected], "{logits:?}");
    };
    check(&[0.0, 2.0, 1.0], 1);
    check(&[1.0, 3.0, 3.0], 1);
    check(&[-0.0, 0.0], 0);
    check(&[NAN, 1.0, NAN, 2.0], 3);
    check(&[NAN, NAN], 0);
    check(&[-INF, -INF], 0);
    check(&[-INF, -5.0], 1);
    check(&[1.0, INF, INF], 1);
    check(&[], 0);
}

#[test]
fn truncation_keeps_what_it_should() {
    // Probabilities 0.5, 0.25, 0.125, 0.125, in an order that is not theirs.
    let logits = [0.125f32.ln(), 0.5f32.ln(), 0.125f32.ln(), 0.25f32.ln()];
    let check = |top_k, top_p, min_p, expected: &[u32]| {
        assert_eq!(
            drawn(params(1.0, top_k, top_p, min_p), &logits),
            expected,
            "{top_k} {top_p} {min_p}"
        );
    };
    check(0, 1.0, 0.0, &[0, 1, 2, 3]);
    check(1, 1.0, 0.0, &[1]);
    check(2, 1.0, 0.0, &[1, 3]);
    check(3, 1.0, 0.0, &[0, 1, 3]);
    check(9, 1.0, 0.0, &[0, 1, 2, 3]);
    check(0, 0.4, 0.0, &[1]);
    check(0, 0.6, 0.0, &[1, 3]);
    check(0, 0.8, 0.0, &[0, 1, 3]);
    check(0, 1e-9, 0.0, &[1]);
    check(0, 1.0, 0.4, &[1, 3]);
    check(0, 1.0, 1.0, &[1]);
    // Top-p looks at what top-k left: 0.5 of 0.75 is two thirds.
    check(2, 0.6, 0.0, &[1]);
}

#[test]
fn draws_follow_the_distribution_at_the_temperature() {
    // At temperature 0.5 the odds of 3 to 1 become 9 to 1.
    let logits = [0.0, 3f32.ln()];
    for (temperature, share) in [(1.0, 0.75), (0.5, 0.9)] {
        let sampler = sampler(params(temperature, 0, 1.0, 0.0), 11);
        let ones = run(sampler, &logits, 20_000)
            .into_iter()
            .filter(|&token| token == 1)
            .count();
        let found = ones as f64 / 20_000.0;
        assert!(
            (found - share).abs() < 0.01,
            "temperature {temperature}: {found} instead of {share}"
        );
    }
}

#[test]
fn a_draw_belongs_to_seed_and_index() {
    let logits: Vec<f32> = (0..50u8).map(|i| f32::from(i % 7)).collect();
    let seeded = |seed| sampler(params(1.5, 0, 1.0, 0.0), seed);
    let one_by_one = run(seeded(3), &logits, 40);
    let at = |index| {
        let mut sampler = seeded(3);
        sampler.index = index;
        run(sampler, &logits, 1)[0]
    };
    assert_eq!(one_by_one, (0..40).map(at).collect::<Vec<_>>());
    assert_ne!(one_by_one, run(seeded(4), &logits, 40));
}

#[test]
fn impossible_tokens_are_not_drawn() {
    let check = |logits: &[f32], expected: &[u32]| {
        for params in [
            params(1.0, 0, 1.0, 0.0),
            params(2.0, 3, 0.9, 0.1),
            params(1e-30, 0, 0.99, 0.0),
        ] {
            assert_eq!(
                drawn(params.clone(), logits),
                expected,
                "{params:?} {logits:?}"
            );
        }
    };
    check(&[NAN, 1.0, NAN], &[1]);
    check(&[NAN, NAN, NAN], &[0]);
    check(&[-INF, -INF], &[0]);
    check(&[-INF, 0.0], &[1]);
    check(&[0.0, INF, NAN, -INF], &[1]);
    check(&[], &[0]);
    assert_eq!(drawn(params(1.0, 0, 1.0, 0.0), &[INF, 0.0, INF]), [0, 2]);
}

#[test]
fn logprobs_are_those_of_the_raw_distribution() {
    let logits = [1.0, 2.0, 3.0];
    let log_sum = logits
        .iter()
        .map(|l: &f32| f64::from(*l).exp())
        .sum::<f64>()
        .ln();
    let scores = Logprobs::new(&logits);
    for (id, &logit) in (0..).zip(&logits) {
        assert!((f64::from(scores.of(id)) - (f64::from(logit) - log_sum)).abs() < 1e-6);
    }
    assert_eq!(scores.of(3), -INF);
    let top: Vec<u32> = scores.top(2).iter().map(|(id, _)| *id).collect();
    assert_eq!(top, [2, 1]);
    assert_eq!(scores.top(9).len(), 3);
    assert_eq!(
        Logprobs::new(&[5.0, 5.0, 5.0])
            .top(2)
            .iter()
            .map(|(id, _)| *id)
            .collect::<Vec<_>>(),
        [0, 1]
    );
}

#[test]
fn logprobs_of_odd_rows_are_no_nan() {
    let check = |logits: &[f32], expected: &[f32]| {
        let scores = Logprobs::new(logits);
        let found: Vec<f32> = (0..).zip(logits).map(|(id, _)| scores.of(id)).collect();
        assert_eq!(found, expected, "{logits:?}");
        assert!(
            scores
                .top(5)
                .iter()
                .all(|(id, logprob)| (*id as usize) < logits.len() && !logprob.is_nan())
        );
    };
    check(&[NAN, 0.0], &[-INF, 0.0]);
    check(&[NAN, NAN], &[-INF, -INF]);
    check(&[INF, 0.0], &[0.0, -INF]);
    check(&[INF, INF], &[-(2f32.ln()), -(2f32.ln())]);
    check(&[-INF, 1.0], &[-INF, 0.0]);
    check(&[], &[]);
}

fn any_logit() -> impl Strategy<Value = f32> {
    prop_oneof![8 => -20f32..20.0, 1 => Just(NAN), 1 => Just(INF), 1 => Just(-INF), 1 => Just(f32::MAX), 1 => Just(f32::MIN)]
}

proptest! {
    #[test]
    fn any_row_gives_a_token_of_the_vocabulary(
        logits in prop::collection::vec(any_logit(), 1..700),
        (temperature, top_k, top_p, min_p) in (0f32..100.0, 0..800u32, 0.001f32..=1.0, 0f32..=1.0),
        repetition_penalty in 0.1f32..10.0,
        seed in any::<u64>(),
    ) {
        let params = SamplingParams { repetition_penalty, ..params(temperature, top_k, top_p, min_p) };
        prop_assume!(params.validate().is_ok());
        let tokens = run(Sampler::new(params, &[0, 1], NotYet::default(), seed), &logits, 3);
        prop_assert!(tokens.iter().all(|&token| (token as usize) < logits.len()));
    }

    /// Rows in blocks and lanes must answer what a plain loop does.
    #[test]
    fn the_most_likely_is_the_first_of_the_highest(logits in prop::collection::vec(prop_oneof![any_logit(), (-3i8..3).prop_map(f32::from)], 0..1200)) {
        let mut expected = (0, -INF);
        for (id, &logit) in (0..).zip(&logits) {
            if logit > expected.1 {
                expected = (id, logit);
            }
        }
        prop_assert_eq!(most_likely(&logits), expected.0);
    }

    /// Partial selections must keep what a sort would.
    #[test]
    fn the_best_are_those_that_a_sort_puts_first(logits in prop::collection::vec(any_logit(), 1..2000), k in 1..300usize) {
        let mut kept = Vec::new();
        select::best(&logits, k, &mut kept);
        let sorted = sorted(&logits);
        prop_assert_eq!(&kept[..], &sorted[..k.min(sorted.len())]);
    }

    #[test]
    fn top_p_is_the_shortest_prefix(logits in prop::collection::vec(-3f32..3.0, 1..6000), top_p in 0.01f32..0.999) {
        let mut kept = Vec::new();
        let peak = row::max(&logits);
        keep_top_p(&logits, peak, top_p, &mut kept);
        kept.sort();
        let sorted = sorted(&logits);
        prop_assert_eq!(&kept[..], &sorted[..kept.len()]);
        let mass = |c: &[Candidate]| c.iter().map(|c| f64::from(c.logit - peak).exp()).sum::<f64>();
        let target = f64::from(top_p) * mass(&sorted);
        prop_assert!(mass(&kept) >= target * (1.0 - 1e-6));
        prop_assert!(mass(&kept[..kept.len() - 1]) < target * (1.0 + 1e-6));
    }
}

fn sorted(logits: &[f32]) -> Vec<Candidate> {
    let mut sorted = Vec::new();
    select::all(logits, &mut sorted);
    sorted.sort();
    sorted
}

#[test]
fn penalties_look_at_what_was_said() {
    // Token 0 would win always; 1 is close behind.
    let logits = [2.0, 1.5, -1.0];
    let check = |change: fn(&mut SamplingParams), prompt: &[u32], expected: &[u32]| {
        let mut params = SamplingParams::GREEDY;
        change(&mut params);
        let sampler = Sampler::new(params.clone(), prompt, NotYet::default(), 1);
        let found = run(sampler, &logits, expected.len());
        assert_eq!(found, expected, "{params:?}");
    };
    check(|_| {}, &[], &[0, 0, 0]);
    // 2 / 1.5 is less than 1.5, and 1.5 / 1.5 is less than that; it does not grow with repetition.
    check(|p| p.repetition_penalty = 1.5, &[], &[0, 1, 0, 0, 0]);
    // The prompt counts as said.
    check(|p| p.repetition_penalty = 1.5, &[0, 0], &[1, 0]);
    check(|p| p.repetition_penalty = 0.5, &[1], &[1, 1]);
    // Negative logits are multiplied: 2 falls from -1 to -10, and 0 and 1 to 0.2 and 0.15.
    check(|p| p.repetition_penalty = 10.0, &[0, 1, 2], &[0, 0]);
    // 2, 1.5 | 1.7, 1.5 | 1.4, 1.5 | 1.4, 1.2
    check(|p| p.frequency_penalty = 0.3, &[], &[0, 0, 1, 0]);
    check(|p| p.frequency_penalty = 0.3, &[0, 0, 0], &[0, 0, 1]);
    // Once only: 1.4, 1.5 | 1.4, 0.9
    check(|p| p.presence_penalty = 0.6, &[], &[0, 1, 0, 0, 0]);
    check(|p| p.presence_penalty = -2.0, &[1, 1], &[0, 0, 0]);
}

#[test]
fn biases_are_added_as_they_are() {
    let logits = [2.0, 1.5, -1.0];
    let check = |bias: &[(u32, f32)], repetition_penalty, expected: &[u32]| {
        let params = SamplingParams {
            logit_bias: bias.to_vec(),
            repetition_penalty,
            ..SamplingParams::GREEDY
        };
        let found = run(sampler(params, 1), &logits, expected.len());
        assert_eq!(found, expected, "{bias:?}");
    };
    check(&[(1, 0.4)], 1.0, &[0, 0]);
    check(&[(1, 0.6)], 1.0, &[1, 1]);
    check(&[(0, -100.0)], 1.0, &[1, 1]);
    check(&[(2, 100.0)], 1.0, &[2, 2]);
    check(&[(7, 100.0)], 1.0, &[0]);
    // Not doubled by the penalty: -2 + 4 = 2 is as high as token 0's, and higher than 2 / 2.
    check(&[(2, 4.0)], 2.0, &[2, 0, 2]);
}

#[test]
fn what_may_not_come_yet_does_not() {
    let logits = [2.0, 1.5, -1.0];
    let not_yet = |min_tokens| NotYet {
        ids: vec![0, 1],
        min_tokens,
    };
    let greedy = |min_tokens| Sampler::new(SamplingParams::GREEDY, &[], not_yet(min_tokens), 1);
    assert_eq!(run(greedy(2), &logits, 4), [2, 2, 0, 0]);
    assert_eq!(run(greedy(0), &logits, 1), [0]);
    let lifted = SamplingParams {
        logit_bias: vec![(0, 100.0)],
        temperature: 1.0,
        ..SamplingParams::GREEDY
    };
    let lifted = Sampler::new(lifted, &[], not_yet(3), 1);
    assert_eq!(run(lifted, &logits, 4), [2, 2, 2, 0]);
}

#[test]
fn a_row_is_asked_for_only_where_it_is_needed() {
    let needs = |change: fn(&mut SamplingParams), not_yet: NotYet, n_said: usize| {
        let mut params = SamplingParams::GREEDY;
        change(&mut params);
        let mut sampler = Sampler::new(params, &[5], not_yet, 1);
        for _ in 0..n_said {
            sampler.sample(Seen::Row(&[0.0, 1.0]), &mut Scratch::default());
        }
        sampler.needs()
    };
    let none = NotYet::default;
    let end = || NotYet {
        ids: vec![0],
        min_tokens: 2,
    };
    assert_eq!(needs(|_| {}, none(), 3), Needs::MostLikely);
    assert_eq!(needs(|p| p.top_p = 0.5, none(), 0), Needs::MostLikely);
    assert_eq!(needs(|p| p.temperature = 0.5, none(), 0), Needs::Row);
    let only_the_best = |p: &mut SamplingParams| (p.temperature, p.top_k) = (0.5, 1);
    assert_eq!(needs(only_the_best, none(), 0), Needs::MostLikely);
    assert_eq!(needs(|p| p.repetition_penalty = 1.1, none(), 0), Needs::Row);
    let presence = |p: &mut SamplingParams| p.presence_penalty = 1.0;
    assert_eq!(needs(presence, none(), 0), Needs::MostLikely);
    assert_eq!(needs(presence, none(), 1), Needs::Row);
    assert_eq!(
        needs(|p| p.logit_bias = vec![(0, 1.0)], none(), 0),
        Needs::Row
    );
    assert_eq!(needs(|_| {}, end(), 1), Needs::Row);
    assert_eq!(needs(|_| {}, end(), 2), Needs::MostLikely);
}

#[test]
fn what_a_device_chose_counts_as_said() {
    let params = SamplingParams {
        presence_penalty: 1.0,
        ..SamplingParams::GREEDY
    };
    let mut sampler = sampler(params, 1);
    let mut scratch = Scratch::default();
    assert_eq!(sampler.sample(Seen::MostLikely(1), &mut scratch), 1);
    let logits = Seen::Row(&[0.5, 1.0]);
    assert_eq!(sampler.sample(logits, &mut scratch), 0);
}
