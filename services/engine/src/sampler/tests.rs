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
    }
}

/// Which tokens come out over many indices.
fn drawn(params: SamplingParams, logits: &[f32]) -> Vec<u32> {
    let mut sampler = Sampler::new(params, 7);
    let mut tokens: Vec<u32> = (0..2000)
        .map(|index| sampler.sample(logits, index))
        .collect();
    tokens.sort_unstable();
    tokens.dedup();
    tokens
}

#[test]
fn greedy_takes_the_lowest_id_among_the_best() {
    let check = |logits: &[f32], expected: u32| {
        let mut sampler = Sampler::new(SamplingParams::GREEDY, 1);
        assert_eq!(sampler.sample(logits, 0), expected, "{logits:?}");
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
        let mut sampler = Sampler::new(params(temperature, 0, 1.0, 0.0), 11);
        let ones = (0..20_000)
            .filter(|&index| sampler.sample(&logits, index) == 1)
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
    let at = |seed, index| Sampler::new(params(1.5, 0, 1.0, 0.0), seed).sample(&logits, index);
    let mut one_by_one = Sampler::new(params(1.5, 0, 1.0, 0.0), 3);
    let run: Vec<u32> = (0..40)
        .map(|index| one_by_one.sample(&logits, index))
        .collect();
    assert_eq!(run, (0..40).map(|index| at(3, index)).collect::<Vec<_>>());
    assert_ne!(run, (0..40).map(|index| at(4, index)).collect::<Vec<_>>());
}

#[test]
fn impossible_tokens_are_not_drawn() {
    let check = |logits: &[f32], expected: &[u32]| {
        for params in [
            params(1.0, 0, 1.0, 0.0),
            params(2.0, 3, 0.9, 0.1),
            params(1e-30, 0, 0.99, 0.0),
        ] {
            assert_eq!(drawn(params, logits), expected, "{params:?} {logits:?}");
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
        (seed, index) in any::<(u64, u64)>(),
    ) {
        let params = params(temperature, top_k, top_p, min_p);
        prop_assume!(params.validate().is_ok());
        let token = Sampler::new(params, seed).sample(&logits, index);
        prop_assert!((token as usize) < logits.len());
    }

    /// The partial sort must keep what a plain one would.
    #[test]
    fn top_p_is_the_shortest_prefix(logits in prop::collection::vec(-3f32..3.0, 1..900), top_p in 0.01f64..0.999) {
        let mut kept: Vec<Candidate> = possible(&logits).collect();
        keep_top_p(&mut kept, top_p);
        let mut sorted: Vec<Candidate> = possible(&logits).collect();
        sorted.sort_by(by_rank);
        prop_assert_eq!(&kept[..], &sorted[..kept.len()]);
        let max = max_logit(&sorted);
        let mass = |c: &[Candidate]| c.iter().map(|c| weight(c.logit, max, 1.0)).sum::<f64>();
        let target = top_p * mass(&sorted);
        prop_assert!(mass(&kept) >= target - 1e-9);
        prop_assert!(mass(&kept[..kept.len() - 1]) < target + 1e-9);
    }
}
