mod simulation;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::*;
use crate::kv_cache::BLOCK_LEN;

const A: ModelKey = ModelKey(1);
const B: ModelKey = ModelKey(2);
const BLOCK_BYTES: u64 = 10;

fn limits() -> SchedulerLimits {
    SchedulerLimits {
        max_running: 4,
        prefill_chunk_tokens: 16,
        step_target: Duration::from_secs(1),
        max_batch_rows: 20,
        max_scored_rows: 8,
    }
}

/// A scheduler with models `A` and `B` and room for `n_blocks` blocks in all.
fn scheduler(limits: SchedulerLimits, n_blocks: u64) -> Scheduler {
    let budget = KvBudget::new(n_blocks * BLOCK_BYTES);
    let mut scheduler = Scheduler::new(limits, budget.clone());
    for model in [A, B] {
        scheduler.add_model(model, KvCache::new(&budget, BLOCK_BYTES, 1000));
    }
    scheduler
}

/// A prompt that nobody else has.
fn arrival(model: ModelKey, n_prompt: usize) -> Arrival {
    static LAST: AtomicU32 = AtomicU32::new(0);
    let first = LAST.fetch_add(1, Ordering::Relaxed);
    arrival_of(model, "", &vec![first; n_prompt])
}

fn arrival_of(model: ModelKey, salt: &str, tokens: &[u32]) -> Arrival {
    Arrival {
        model,
        chain: Chain::new(model.0, salt, tokens),
        score_prompt: false,
        deadline: None,
    }
}

fn batch(decision: Decision) -> Batch {
    match decision {
        Decision::Run(batch) => batch,
        other => panic!("no step: {other:?}"),
    }
}

/// Runs as (sequence, start, len, logits_from).
fn runs(decision: Decision) -> Vec<(u64, usize, usize, usize)> {
    let runs = batch(decision).runs;
    runs.iter()
        .map(|run| (run.sequence.0, run.start, run.len, run.logits_from))
        .collect()
}

/// Runs a step and gives a token to every sequence whose last position was in it.
fn step(scheduler: &mut Scheduler, model: ModelKey) -> Vec<(u64, usize, usize, usize)> {
    let found = runs(scheduler.next_step(model));
    scheduler.finish_step(model, Duration::ZERO);
    for &(id, start, len, logits_from) in &found {
        if logits_from < start + len && scheduler.entry(SequenceId(id)).left() == 0 {
            scheduler.push_token(SequenceId(id), 0);
        }
    }
    found
}

#[test]
fn prompts_are_cut_into_chunks_beside_decode_rows() {
    let mut scheduler = scheduler(limits(), 100);
    scheduler.add(SequenceId(1), arrival(A, 3));
    assert_eq!(step(&mut scheduler, A), [(1, 0, 3, 2)]);
    scheduler.add(SequenceId(2), arrival(A, 30));
    assert_eq!(step(&mut scheduler, A), [(1, 3, 1, 3), (2, 0, 16, 16)]);
    assert_eq!(step(&mut scheduler, A), [(1, 4, 1, 4), (2, 16, 14, 29)]);
    assert_eq!(step(&mut scheduler, A), [(1, 5, 1, 5), (2, 30, 1, 30)]);
}

#[test]
fn chunks_are_short_where_streams_would_wait() {
    let mut scheduler = scheduler(limits(), 100);
    let ms = Duration::from_millis;
    scheduler.limits.step_target = ms(50);
    scheduler.add(SequenceId(1), arrival(A, 20));
    // Alone, a prompt goes as fast as it can; each row takes 4 ms.
    for (rows, took) in [(16, ms(64)), (4, ms(16))] {
        assert_eq!(runs(scheduler.next_step(A))[0].2, rows);
        scheduler.finish_step(A, took);
    }
    scheduler.push_token(SequenceId(1), 0);
    assert_eq!(runs(scheduler.next_step(A)), [(1, 20, 1, 20)]);
    scheduler.finish_step(A, ms(10));
    scheduler.push_token(SequenceId(1), 0);
    scheduler.add(SequenceId(2), arrival(A, 300));
    // 10 ms for the stream leave 40 ms, or ten rows.
    assert_eq!(
        runs(scheduler.next_step(A)),
        [(1, 21, 1, 21), (2, 0, 10, 10)]
    );
    scheduler.finish_step(A, ms(50));
    // Without the stream, a full chunk again.
    scheduler.remove(SequenceId(1));
    assert_eq!(runs(scheduler.next_step(A)), [(2, 10, 16, 26)]);
}

#[test]
fn a_short_prompt_is_not_stuck_behind_a_long_one() {
    let mut scheduler = scheduler(limits(), 100);
    scheduler.add(SequenceId(1), arrival(A, 300));
    scheduler.add(SequenceId(2), arrival(A, 5));
    assert_eq!(step(&mut scheduler, A), [(1, 0, 11, 11), (2, 0, 5, 4)]);
}

#[test]
fn a_prompt_of_one_token_is_a_prompt() {
    let mut scheduler = scheduler(limits(), 100);
    scheduler.add(SequenceId(1), arrival(A, 1));
    assert_eq!(step(&mut scheduler, A), [(1, 0, 1, 0)]);
    assert_eq!(step(&mut scheduler, A), [(1, 1, 1, 1)]);
}

#[test]
fn scored_rows_are_bounded_and_all_asked_for_once() {
    let mut scheduler = scheduler(limits(), 100);
    let scored = Arrival {
        score_prompt: true,
        ..arrival(A, 20)
    };
    scheduler.add(SequenceId(1), scored);
    assert_eq!(step(&mut scheduler, A), [(1, 0, 8, 0)]);
    // Preempted in between: what was scored is computed again without logits.
    scheduler.entry_mut(SequenceId(1)).preempt();
    assert_eq!(step(&mut scheduler, A), [(1, 0, 16, 8)]);
    assert_eq!(step(&mut scheduler, A), [(1, 16, 4, 16)]);
    assert_eq!(step(&mut scheduler, A), [(1, 20, 1, 20)]);
}

#[test]
fn admission_is_by_age_and_bounded() {
    let mut scheduler = scheduler(limits(), 4);
    scheduler.add(SequenceId(1), arrival(A, 3 * BLOCK_LEN));
    scheduler.add(SequenceId(2), arrival(A, 2 * BLOCK_LEN));
    scheduler.add(SequenceId(3), arrival(A, 1));
    let found = step(&mut scheduler, A);
    assert_eq!(
        found.iter().map(|run| run.0).collect::<Vec<_>>(),
        [1],
        "3 must not overtake 2"
    );
    assert_eq!((scheduler.queued(), scheduler.running()), (2, 1));
    scheduler.remove(SequenceId(1));
    let found = step(&mut scheduler, A);
    assert_eq!(found.iter().map(|run| run.0).collect::<Vec<_>>(), [2, 3]);

    let mut scheduler = self::scheduler(limits(), 100);
    for id in 1..=6 {
        scheduler.add(SequenceId(id), arrival(A, 1));
    }
    assert_eq!(step(&mut scheduler, A).len(), 4);
}

#[test]
fn the_youngest_gives_way_and_is_recomputed() {
    let mut scheduler = scheduler(limits(), 3);
    scheduler.add(SequenceId(1), arrival(A, BLOCK_LEN));
    scheduler.add(SequenceId(2), arrival(A, BLOCK_LEN));
    while scheduler.entry(SequenceId(2)).left() != 1
        || scheduler.entry(SequenceId(1)).n_tokens == BLOCK_LEN
    {
        step(&mut scheduler, A);
    }
    // Both stand at a block's end; the third block goes to the older one, then the younger one must wait for it.
    while scheduler.preemptions() == 0 {
        step(&mut scheduler, A);
    }
    let younger = scheduler.entry(SequenceId(2));
    assert_eq!(
        (younger.state, younger.n_computed, younger.table.ids().len()),
        (State::Waiting, 0, 0)
    );
    let n_tokens = younger.n_tokens;
    assert!(scheduler.entry(SequenceId(1)).table.ids().len() >= 2);
    scheduler.remove(SequenceId(1));
    // Its first block was not needed meanwhile, so it is found again.
    let mut covered = BLOCK_LEN;
    while covered < n_tokens {
        let found = step(&mut scheduler, A);
        assert_eq!((found[0].0, found[0].1), (2, covered));
        covered += found[0].2;
    }
}

#[test]
fn what_was_computed_is_found_again() {
    let mut scheduler = scheduler(limits(), 100);
    let prompt: Vec<u32> = (0..75).collect();
    scheduler.add(SequenceId(1), arrival_of(A, "", &prompt));
    while scheduler.entry(SequenceId(1)).n_tokens < 97 {
        step(&mut scheduler, A);
    }
    // Of a running sequence, two full blocks of the prompt; the newest token is always computed.
    scheduler.add(SequenceId(2), arrival_of(A, "", &prompt[..64]));
    scheduler.add(SequenceId(3), arrival_of(A, "other", &prompt));
    scheduler.add(SequenceId(4), arrival_of(B, "", &prompt));
    let found = step(&mut scheduler, A);
    assert_eq!(found[1..], [(2, 32, 8, 40), (3, 0, 8, 8)]);
    assert_eq!(scheduler.cached_tokens(SequenceId(2)), 32);
    assert_eq!(scheduler.cached_tokens(SequenceId(3)), 0);
    assert_eq!(step(&mut scheduler, B), [(4, 0, 16, 16)]);
    for id in 1..=3 {
        scheduler.remove(SequenceId(id));
    }
    // Of one that ended, its output too: the next turn of a talk begins with both.
    let turn: Vec<u32> = prompt.iter().copied().chain([0; 22 + 5]).collect();
    scheduler.add(SequenceId(5), arrival_of(A, "", &turn));
    assert_eq!(step(&mut scheduler, A), [(5, 96, 6, 101)]);
    assert_eq!(scheduler.cached_tokens(SequenceId(5)), 96);
    scheduler.remove_model(A);
    scheduler.add_model(A, KvCache::new(&scheduler.budget, BLOCK_BYTES, 1000));
    scheduler.add(SequenceId(6), arrival_of(A, "", &prompt));
    assert_eq!(step(&mut scheduler, A), [(6, 0, 16, 16)]);
}

#[test]
fn rows_that_are_scored_are_not_reused() {
    let mut scheduler = scheduler(limits(), 100);
    let prompt: Vec<u32> = (0..70).collect();
    scheduler.add(SequenceId(1), arrival_of(A, "", &prompt));
    while scheduler.entry(SequenceId(1)).left() > 1 {
        step(&mut scheduler, A);
    }
    let scored = Arrival {
        score_prompt: true,
        ..arrival_of(A, "", &prompt)
    };
    scheduler.add(SequenceId(2), scored);
    let mut covered = 0;
    while covered < 70 {
        let found = step(&mut scheduler, A);
        let (_, start, len, logits_from) = *found.last().expect("it runs");
        assert_eq!((start, logits_from), (covered, covered));
        covered += len;
        if covered == 40 {
            // What was scored before is found again.
            scheduler.entry_mut(SequenceId(2)).preempt();
            covered = 32;
            let found = step(&mut scheduler, A);
            assert_eq!(found.last(), Some(&(2, 32, 16, 40)));
            covered += 16;
        }
    }
    assert_eq!(scheduler.cached_tokens(SequenceId(2)), 0);
}

#[test]
fn kept_blocks_of_another_model_make_room() {
    let mut scheduler = scheduler(limits(), 4);
    scheduler.add(SequenceId(1), arrival(A, 3 * BLOCK_LEN));
    while scheduler.entry(SequenceId(1)).left() != 1
        || scheduler.entry(SequenceId(1)).n_computed == 0
    {
        step(&mut scheduler, A);
    }
    scheduler.remove(SequenceId(1));
    assert_eq!(scheduler.cache(A).kept_blocks(), 3);
    scheduler.add(SequenceId(2), arrival(B, 3 * BLOCK_LEN));
    step(&mut scheduler, B);
    assert_eq!(scheduler.cache(A).kept_blocks(), 1);
    assert_eq!(scheduler.cache(A).reuse().evicted, 2);
    assert_eq!(scheduler.preemptions(), 0);
    // What is not enough is not taken.
    scheduler.add(SequenceId(3), arrival(B, 2 * BLOCK_LEN));
    step(&mut scheduler, B);
    assert_eq!(scheduler.entry(SequenceId(3)).state, State::Waiting);
    assert_eq!(scheduler.cache(A).kept_blocks(), 1);
}

#[test]
fn a_sequence_that_alone_is_too_large_is_named() {
    let mut scheduler = scheduler(limits(), 2);
    scheduler.add(SequenceId(1), arrival(A, 3 * BLOCK_LEN));
    let too_large = Decision::TooLarge {
        sequence: SequenceId(1),
        need_blocks: 3,
        total_blocks: 2,
    };
    assert_eq!(scheduler.next_step(A), too_large);
    scheduler.remove(SequenceId(1));
    scheduler.add(SequenceId(2), arrival(A, 2 * BLOCK_LEN));
    let decision = loop {
        match scheduler.next_step(A) {
            Decision::Run(batch) => {
                scheduler.finish_step(A, Duration::ZERO);
                if scheduler.entry(batch.runs[0].sequence).left() == 0 {
                    scheduler.push_token(batch.runs[0].sequence, 0);
                }
            }
            other => break other,
        }
    };
    assert!(
        matches!(decision, Decision::TooLarge { need_blocks: 3, .. }),
        "{decision:?}"
    );
}

#[test]
fn a_model_above_its_part_gives_way_even_from_a_standing_step() {
    let mut scheduler = scheduler(limits(), 8);
    for id in 1..=2 {
        scheduler.add(SequenceId(id), arrival(A, 4 * BLOCK_LEN));
    }
    let standing = batch(scheduler.next_step(A));
    assert_eq!(standing.runs.len(), 2);
    scheduler.add(SequenceId(3), arrival(B, 2 * BLOCK_LEN));
    assert_eq!(scheduler.next_step(B), Decision::Abandon(A));
    scheduler.abandon_step(A);
    assert_eq!(runs(scheduler.next_step(B)), [(3, 0, 16, 16)]);
    assert_eq!(scheduler.entry(SequenceId(2)).state, State::Waiting);
    assert_eq!(
        scheduler.entry(SequenceId(1)).state,
        State::Running,
        "the oldest keeps its part"
    );
    // A's part is half: the one that gave way does not take it back.
    assert_eq!(runs(scheduler.next_step(A)), [(1, 0, 16, 16)]);
}

#[test]
fn blocks_of_a_sequence_that_left_stay_until_its_step_is_over() {
    let mut scheduler = scheduler(limits(), 100);
    scheduler.add(SequenceId(1), arrival(A, 3));
    batch(scheduler.next_step(A));
    assert_eq!(scheduler.in_step(A), 1);
    scheduler.remove(SequenceId(1));
    assert_eq!(
        (scheduler.in_step(A), scheduler.kv_budget().used_bytes()),
        (0, BLOCK_BYTES)
    );
    scheduler.finish_step(A, Duration::ZERO);
    assert_eq!(scheduler.kv_budget().used_bytes(), 0);
}

#[test]
fn an_abandoned_step_counts_for_nothing() {
    let mut scheduler = scheduler(limits(), 100);
    scheduler.add(SequenceId(1), arrival(A, 40));
    let first = runs(scheduler.next_step(A));
    scheduler.abandon_step(A);
    assert_eq!(runs(scheduler.next_step(A)), first);
}

#[test]
fn parked_sequences_stand_still_and_expire() {
    let now = Instant::now();
    let later = now + Duration::from_secs(5);
    let mut scheduler = scheduler(limits(), 100);
    scheduler.add(SequenceId(1), arrival(A, 3));
    scheduler.add(
        SequenceId(2),
        Arrival {
            deadline: Some(now + Duration::from_secs(9)),
            ..arrival(A, 3)
        },
    );
    step(&mut scheduler, A);
    scheduler.park(SequenceId(1), later);
    assert_eq!(scheduler.parked(), 1);
    assert_eq!(step(&mut scheduler, A), [(2, 3, 1, 3)]);
    assert_eq!(scheduler.next_expiry(), Some(later));
    assert_eq!(scheduler.expired(now), []);
    assert_eq!(
        scheduler.expired(later),
        [(SequenceId(1), Expiry::SlowReader)]
    );
    scheduler.unpark(SequenceId(1));
    assert_eq!(step(&mut scheduler, A), [(1, 3, 1, 3), (2, 4, 1, 4)]);
    let end = now + Duration::from_secs(9);
    assert_eq!(scheduler.expired(end), [(SequenceId(2), Expiry::Deadline)]);
}

#[test]
fn a_model_leaves_with_its_sequences() {
    let mut scheduler = scheduler(limits(), 100);
    scheduler.add(SequenceId(1), arrival(A, 3));
    scheduler.add(SequenceId(2), arrival(B, 3));
    batch(scheduler.next_step(A));
    assert_eq!(scheduler.remove_model(A), [SequenceId(1)]);
    assert_eq!(scheduler.kv_budget().used_bytes(), 0);
    assert_eq!(runs(scheduler.next_step(B)), [(2, 0, 3, 2)]);
}
