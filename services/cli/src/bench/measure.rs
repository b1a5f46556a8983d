//! One run: some streams at once, and what each of them took.

use std::time::{Duration, Instant};

use proto::inference::v1::{
    GenerateRequest, Load, LoadKind, Stopping, TokenIds, generate_request::Prompt,
    inference_service_client::InferenceServiceClient,
};
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::{
    failure::Failure,
    generate::{Measured, unfinished},
    units,
};

/// What is asked of every stream.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) model: String,
    pub(super) n_vocab: u32,
    pub(super) prompt_tokens: u32,
    pub(super) max_tokens: u32,
}

/// What one stream took.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// Prompt tokens per second of prefill, waits for weights excluded.
    pub(super) prefill: Option<f64>,
    /// Output tokens per second, from the first to the last.
    pub(super) decode: Option<f64>,
    /// From asking to the first token, as this process saw it.
    pub(super) first_token: Duration,
    /// Where the weights came from.
    pub(super) load: Load,
    tokens: u32,
    began: Instant,
    ended: Instant,
}

/// What all streams of a run took together.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) samples: Vec<Sample>,
}

impl Run {
    /// Output tokens of all streams per second, from the first token of any to the last of all.
    pub(super) fn total(&self) -> Option<f64> {
        let first = self
            .samples
            .iter()
            .map(|sample| sample.began + sample.first_token)
            .min()?;
        let last = self.samples.iter().map(|sample| sample.ended).max()?;
        // A stream's first token is there when its time begins.
        let tokens = self.samples.iter().map(|sample| sample.tokens).sum::<u32>();
        units::per_second(tokens.saturating_sub(1), last - first)
    }
}

/// Runs `streams` streams at once. `serial` makes their prompts different from those of other runs: no prefix is found again.
///
/// # Errors
/// The first failure of any.
pub(super) async fn run(
    client: &InferenceServiceClient<Channel>,
    task: &Task,
    streams: u32,
    serial: &mut u64,
) -> Result<Run, Failure> {
    let mut running = JoinSet::new();
    for _ in 0..streams {
        *serial += 1;
        let request = task.request(*serial);
        running.spawn(stream(client.clone(), request, task.prompt_tokens));
    }
    let mut samples = Vec::new();
    while let Some(outcome) = running.join_next().await {
        let sample = outcome.map_err(|error| Failure::Child(error.to_string()))?;
        samples.push(sample?);
    }
    Ok(Run { samples })
}

async fn stream(
    mut client: InferenceServiceClient<Channel>,
    request: GenerateRequest,
    prompt_tokens: u32,
) -> Result<Sample, Failure> {
    let began = Instant::now();
    let mut measured = Measured::default();
    let answer = client.generate(request).await;
    let mut events = answer.map_err(Failure::rpc("measure"))?.into_inner();
    while let Some(response) = events.message().await.map_err(Failure::rpc("measure"))? {
        if let Some(event) = response.event {
            measured.see(&event, began.elapsed());
        }
    }
    let finished = measured.finished.as_ref().ok_or_else(unfinished)?;
    let timings = finished.timings.unwrap_or_default();
    let prefill = units::from_proto(timings.prefill);
    Ok(Sample {
        prefill: prefill.and_then(|time| units::per_second(prompt_tokens, time)),
        decode: measured.tokens_per_second(),
        first_token: measured.first_token.unwrap_or_else(|| began.elapsed()),
        load: measured.load.unwrap_or_default(),
        tokens: measured.tokens(),
        began,
        ended: Instant::now(),
    })
}

impl Task {
    fn request(&self, serial: u64) -> GenerateRequest {
        let ids = (0..u64::from(self.prompt_tokens))
            .map(|position| scattered(serial << 32 | position, self.n_vocab))
            .collect();
        GenerateRequest {
            model: self.model.clone(),
            prompt: Some(Prompt::TokenIds(TokenIds { ids })),
            stopping: Some(Stopping {
                max_tokens: Some(self.max_tokens),
                ignore_eos: true,
                ..Stopping::default()
            }),
            cache_salt: format!("bench-{}-{serial}", std::process::id()),
            ..GenerateRequest::default()
        }
    }
}

/// A number below `limit` that looks drawn and is the same every time: the finaliser of SplitMix64.
fn scattered(index: u64, limit: u32) -> u32 {
    let mut bits = index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^= bits >> 31;
    u32::try_from(bits % u64::from(limit.max(1))).expect("the remainder of a 32-bit number")
}

/// The worst of several loads: what a reader has to know first.
pub(super) fn coldest<'l>(loads: impl Iterator<Item = &'l Load>) -> LoadKind {
    let rank = |kind: &LoadKind| match kind {
        LoadKind::Cold => 0,
        LoadKind::Warm => 1,
        LoadKind::Hot => 2,
        LoadKind::Unspecified => 3,
    };
    loads
        .map(Load::kind)
        .min_by_key(rank)
        .unwrap_or(LoadKind::Unspecified)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(first_ms: u64, end_ms: u64, tokens: u32, began: Instant) -> Sample {
        Sample {
            prefill: None,
            decode: None,
            first_token: Duration::from_millis(first_ms),
            load: Load::default(),
            tokens,
            began,
            ended: began + Duration::from_millis(end_ms),
        }
    }

    #[test]
    fn a_total_spans_all_streams() {
        let began = Instant::now();
        let run = Run {
            samples: vec![sample(100, 900, 10, began), sample(300, 1100, 11, began)],
        };
        assert_eq!(run.total(), Some(20.0));
        let nothing = Run {
            samples: Vec::new(),
        };
        assert_eq!(nothing.total(), None);
    }

    #[test]
    fn prompts_differ_and_stay_in_the_vocabulary() {
        let task = Task {
            model: "m".into(),
            n_vocab: 300,
            prompt_tokens: 64,
            max_tokens: 2,
        };
        let ids = |serial| match task.request(serial).prompt {
            Some(Prompt::TokenIds(tokens)) => tokens.ids,
            other => panic!("{other:?}"),
        };
        assert_eq!(ids(1), ids(1));
        assert_ne!(ids(1), ids(2));
        assert!(ids(3).iter().all(|id| *id < 300) && ids(3).len() == 64);
        assert_ne!(task.request(1).cache_salt, task.request(2).cache_salt);
    }

    #[test]
    fn the_coldest_load_counts() {
        let load = |kind: LoadKind| Load {
            kind: kind.into(),
            ..Load::default()
        };
        let loads = [LoadKind::Hot, LoadKind::Cold, LoadKind::Warm].map(load);
        assert_eq!(coldest(loads.iter()), LoadKind::Cold);
        assert_eq!(coldest(loads[..1].iter()), LoadKind::Hot);
        assert_eq!(coldest([].iter()), LoadKind::Unspecified);
    }
}
