use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::kv_cache::blocks_for;

/// One request of the simulation.
#[derive(Clone, Debug)]
struct Job {
    model: ModelKey,
    /// Of two beginnings that prompts share, the one that this has.
    stem: u32,
    n_prompt: usize,
    n_output: usize,
    score_prompt: bool,
    arrives_at_step: usize,
    cancelled_at_step: Option<usize>,
}

fn job() -> impl Strategy<Value = Job> {
    let cancelled = prop::option::weighted(0.2, 0..60usize);
    (
        (0..2u64, 0..2u32),
        1..150usize,
        1..60usize,
        any::<bool>(),
        0..40usize,
        cancelled,
    )
        .prop_map(
            |((model, stem), n_prompt, n_output, score_prompt, arrives, cancelled)| Job {
                model: ModelKey(model + 1),
                stem,
                n_prompt,
                n_output,
                score_prompt,
                arrives_at_step: arrives,
                cancelled_at_step: cancelled.map(|after| arrives + after),
            },
        )
}

fn job_of(sequence: SequenceId) -> usize {
    usize::try_from(sequence.0).expect("few jobs")
}

/// What the simulation knows of a sequence beyond what the scheduler does.
#[derive(Default)]
struct Seen {
    computed: usize,
    tokens: Vec<u32>,
    outputs: usize,
    scored: Vec<usize>,
}

/// What each position of each block was computed of: the model, and all tokens up to there.
type Store = HashMap<(ModelKey, u32, usize), Vec<u32>>;

impl Job {
    fn prompt(&self) -> Vec<u32> {
        (0..self.n_prompt)
            .map(|i| if i < 70 { self.stem } else { 9 })
            .collect()
    }
}

/// Reads what lies before a run and writes the run.
fn compute(
    scheduler: &Scheduler,
    store: &mut Store,
    run: &Run,
    job: &Job,
    tokens: &[u32],
) -> Result<(), TestCaseError> {
    let blocks = scheduler.blocks(run.sequence);
    let place = |position: usize| {
        let block = blocks[position / BLOCK_LEN];
        (job.model, block, position % BLOCK_LEN)
    };
    for position in 0..run.start {
        let held = store.get(&place(position)).map(Vec::as_slice);
        prop_assert_eq!(held, Some(&tokens[..=position]), "position {}", position);
    }
    for position in run.start..run.end() {
        store.insert(place(position), tokens[..=position].to_vec());
    }
    Ok(())
}

/// Checks one batch against the bounds and plays its step; answers the jobs that are done.
fn play(
    scheduler: &mut Scheduler,
    jobs: &[Job],
    seen: &mut [Seen],
    store: &mut Store,
    batch: &Batch,
) -> Result<Vec<usize>, TestCaseError> {
    let limits = scheduler.limits;
    let rows: usize = batch.runs.iter().map(|run| run.len).sum();
    prop_assert!(rows <= limits.max_batch_rows);
    let mut prompt_rows = 0;
    let mut sampled = Vec::new();
    for run in &batch.runs {
        let index = job_of(run.sequence);
        let (job, seen) = (&jobs[index], &mut seen[index]);
        prop_assert_eq!(job.model, batch.model);
        prop_assert!(scheduler.blocks(run.sequence).len() >= blocks_for(run.end()));
        let total = job.n_prompt + seen.outputs;
        let decodes = run.len == 1 && run.start >= job.n_prompt;
        prompt_rows += if decodes { 0 } else { run.len };
        // A sequence that is admitted, perhaps again, begins behind what it finds; else positions follow each other.
        prop_assert!(run.start == seen.computed || run.start.is_multiple_of(BLOCK_LEN));
        compute(scheduler, store, run, job, &seen.tokens)?;
        seen.computed = run.end();
        prop_assert!(run.end() <= total && run.logits_from <= run.end());
        if job.score_prompt {
            let scored = run.logits_from..run.end();
            seen.scored
                .extend(scored.filter(|&row| row + 1 < job.n_prompt));
        }
        if run.end() == total {
            prop_assert!(run.logits_from < run.end());
            sampled.push(index);
        } else if !job.score_prompt {
            prop_assert_eq!(run.logits_from, run.end());
        }
    }
    prop_assert!(prompt_rows <= limits.prefill_chunk_tokens);
    scheduler.finish_step(batch.model, Duration::from_micros(rows as u64));
    for &index in &sampled {
        seen[index].outputs += 1;
        seen[index].tokens.push(7);
        scheduler.push_token(SequenceId(index as u64), 7);
    }
    sampled.retain(|&index| seen[index].outputs == jobs[index].n_output);
    Ok(sampled)
}

proptest! {
    #[test]
    fn every_sequence_finishes_and_every_row_runs_once(jobs in prop::collection::vec(job(), 1..12), n_blocks in 7u64..30) {
        let mut scheduler = scheduler(limits(), n_blocks);
        let mut seen: Vec<Seen> = jobs.iter().map(|job| Seen { tokens: job.prompt(), ..Seen::default() }).collect();
        let mut store = Store::new();
        let mut live: Vec<usize> = Vec::new();
        let mut arrived = 0;
        for now in 0..20_000 {
            for (index, job) in jobs.iter().enumerate() {
                let id = SequenceId(index as u64);
                if job.arrives_at_step == now {
                    scheduler.add(id, Arrival { score_prompt: job.score_prompt, ..arrival_of(job.model, "", &job.prompt()) });
                    live.push(index);
                    arrived += 1;
                }
                if job.cancelled_at_step == Some(now) && live.contains(&index) {
                    scheduler.remove(id);
                    live.retain(|&other| other != index);
                }
            }
            if arrived == jobs.len() && live.is_empty() {
                break;
            }
            for model in [A, B] {
                let decision = scheduler.next_step(model);
                prop_assert!(scheduler.count_running(model) <= limits().max_running);
                match decision {
                    Decision::Idle => {}
                    Decision::Run(batch) => {
                        for index in play(&mut scheduler, &jobs, &mut seen, &mut store, &batch)? {
                            scheduler.remove(SequenceId(index as u64));
                            live.retain(|&other| other != index);
                        }
                    }
                    other => prop_assert!(false, "{:?}", other),
                }
            }
        }
        prop_assert!(live.is_empty(), "never finished: {:?}", live);
        prop_assert_eq!(scheduler.kv_budget().used_bytes(), 0);
        for (job, seen) in jobs.iter().zip(&seen) {
            if job.score_prompt && seen.outputs > 0 {
                prop_assert_eq!(&seen.scored, &(0..job.n_prompt - 1).collect::<Vec<_>>());
            }
        }
    }
}

impl Scheduler {
    fn count_running(&self, model: ModelKey) -> usize {
        let entries = self.sequences.values();
        entries
            .filter(|entry| entry.model == model && entry.state == State::Running)
            .count()
    }
}
