//! One completion on its way: its tokens, what it has said so far, what it is waiting for.

mod clock;
mod output;
mod tally;

use std::sync::Arc;
use std::time::{Duration, Instant};

use text::Tokenizer;
use tokio::sync::OwnedSemaphorePermit;
use tracing::Span;
use tracing::field::Empty;

use crate::residency::ModelKey;
use crate::sampler::{Logprobs, Needs, NotYet, Sampler, Scratch, Seen};
use crate::scheduler::Run;
use crate::stream::{EventSink, Flow};
use crate::{
    EngineError, FinishReason, OutputOptions, Request, Stopping, TokenEvent, TokenLogprob, Usage,
};

use clock::Clock;
use output::Output;
pub(crate) use tally::LoadTally;

/// A sequence as the worker has it. The scheduler knows where it stands, this is what it is.
#[derive(Debug)]
pub(crate) struct Sequence {
    pub(crate) model: ModelKey,
    /// Prompt and output.
    pub(crate) tokens: Vec<u32>,
    n_prompt: usize,
    sampler: Sampler,
    options: OutputOptions,
    output: Output,
    prompt_logprobs: Vec<TokenLogprob>,
    prefilled: bool,
    started: bool,
    /// Prompt tokens that were found computed.
    n_cached: usize,
    pub(crate) clock: Clock,
    pub(crate) tally: LoadTally,
    pub(crate) span: Span,
    /// Open from the first time that the sequence waits for a weight until its prompt is done.
    wait_span: Option<Span>,
    sink: EventSink,
    /// Its place in the queue.
    _permit: OwnedSemaphorePermit,
}

/// A token was chosen.
#[derive(Debug)]
pub(crate) struct Sampled {
    pub(crate) token: u32,
    /// How it stands with the reader.
    pub(crate) flow: Flow,
    /// Why the completion is over, if it is.
    pub(crate) finish: Option<FinishReason>,
}

/// What the worker hands over with a request.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) model: ModelKey,
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) context_length: usize,
    pub(crate) n_extents: usize,
    /// [`Residency::now`](crate::residency::Residency::now) on arrival.
    pub(crate) stamp: u64,
    pub(crate) sink: EventSink,
    pub(crate) permit: OwnedSemaphorePermit,
}

impl Sequence {
    pub(crate) fn new(request: Request, place: Place) -> Sequence {
        Sequence {
            model: place.model,
            n_prompt: request.prompt.len(),
            sampler: Sampler::new(
                request.sampling,
                &request.prompt,
                not_yet(&request.stopping, &place.tokenizer),
                request.seed,
            ),
            options: request.output,
            output: Output::new(
                request.stopping,
                place.tokenizer,
                request.prompt.len(),
                place.context_length,
            ),
            tokens: request.prompt,
            prompt_logprobs: Vec::new(),
            prefilled: false,
            started: false,
            n_cached: 0,
            clock: Clock::new(request.arrived, request.load_wait),
            tally: LoadTally::new(place.n_extents, place.stamp),
            span: request.span,
            wait_span: None,
            sink: place.sink,
            _permit: place.permit,
        }
    }

    /// Whether the prompt is still being worked through.
    pub(crate) fn is_prefilling(&self) -> bool {
        !self.prefilled
    }

    /// Whether it was in a batch.
    pub(crate) fn is_started(&self) -> bool {
        self.started
    }

    /// Tokens of its prompt.
    pub(crate) fn n_prompt(&self) -> usize {
        self.n_prompt
    }

    /// The sequence is in its first batch; so many of its tokens were found computed.
    pub(crate) fn start(&mut self, n_cached: usize, now: Instant) -> Flow {
        self.started = true;
        self.n_cached = n_cached;
        self.clock.started(now);
        self.sink.send(TokenEvent::Started {
            prompt_tokens: count(self.n_prompt),
        })
    }

    /// Scores the prompt tokens that follow the rows of a run. `row(i)` gives the logits of position `i`.
    pub(crate) fn score_prompt<'a>(&mut self, run: &Run, row: impl Fn(usize) -> &'a [f32]) {
        let Some(top) = self.options.prompt_logprobs else {
            return;
        };
        for position in run.logits_from..run.end().min(self.n_prompt - 1) {
            if self.prompt_logprobs.is_empty() {
                self.prompt_logprobs.push(unscored(self.tokens[0]));
            }
            // A row is asked for once, so they come in order.
            let id = self.tokens[position + 1];
            let logprobs = Logprobs::new(row(position));
            self.prompt_logprobs.push(TokenLogprob {
                id,
                logprob: Some(logprobs.of(id)),
                top: logprobs.top(top),
            });
        }
    }

    /// The prompt's KV cache stands.
    pub(crate) fn finish_prefill(&mut self, now: Instant) -> Flow {
        self.prefilled = true;
        self.clock.prefilled(now);
        let mut prompt_logprobs = std::mem::take(&mut self.prompt_logprobs);
        if self.options.prompt_logprobs.is_some() && prompt_logprobs.is_empty() {
            prompt_logprobs.push(unscored(self.tokens[0]));
        }
        let load = self.tally.stats();
        self.end_wait();
        self.sink.send(TokenEvent::Prefilled {
            cached_tokens: count(self.n_cached),
            load,
            prompt_logprobs,
        })
    }

    /// Why no token is to be sampled at all, if so.
    pub(crate) fn finished_before_output(&self) -> Option<FinishReason> {
        self.output
            .is_full(self.tokens.len())
            .then_some(FinishReason::Length)
    }

    /// Whether any row of a step has to be seen as a whole.
    pub(crate) fn sees_rows(&self) -> bool {
        let scores_prompt = self.options.prompt_logprobs.is_some() && !self.prefilled;
        scores_prompt || self.needs() == Needs::Row
    }

    /// What has to be seen of the row that the next token is chosen from.
    pub(crate) fn needs(&self) -> Needs {
        if self.options.logprobs.is_some() {
            Needs::Row
        } else {
            self.sampler.needs()
        }
    }

    /// Chooses the next token from a row of logits, of which at least what it [`needs`](Sequence::needs) is seen, and says it.
    pub(crate) fn sample(
        &mut self,
        seen: Seen<'_>,
        scratch: &mut Scratch,
        now: Instant,
    ) -> Sampled {
        let id = self.sampler.sample(seen, scratch);
        self.clock.token(now);
        self.tokens.push(id);
        let scores = match (self.options.logprobs, seen) {
            (Some(top), Seen::Row(row)) => {
                let logprobs = Logprobs::new(row);
                Some((logprobs.of(id), logprobs.top(top)))
            }
            (Some(_), Seen::MostLikely(_)) => unreachable!("a row that is scored has to be seen"),
            (None, _) => None,
        };
        let (delta, finish) = self.output.push(id, scores, self.tokens.len());
        Sampled {
            token: id,
            flow: self.sink.send(delta),
            finish,
        }
    }

    /// Sends what waits for the reader.
    pub(crate) fn flush(&mut self) -> Flow {
        self.sink.flush()
    }

    /// The step that holds the sequence waits for this load. A span says so from the first wait until the prompt is done.
    pub(crate) fn wait_for(&mut self, load: &Span) {
        if self.wait_span.is_some() || self.prefilled {
            return;
        }
        let span = tracing::info_span!(
            parent: &self.span,
            "model.wait",
            stalls = Empty,
            stalled_us = Empty,
            cold_bytes = Empty,
            warm_bytes = Empty,
            hot_bytes = Empty,
            unknown_bytes = Empty,
        );
        span.follows_from(load);
        self.wait_span = Some(span);
    }

    fn end_wait(&mut self) {
        let Some(span) = self.wait_span.take() else {
            return;
        };
        let load = self.tally.stats();
        span.record("stalls", self.clock.stalls());
        span.record("stalled_us", micros(self.clock.stalled_time()));
        span.record("cold_bytes", load.cold_bytes);
        span.record("warm_bytes", load.warm_bytes);
        span.record("hot_bytes", load.hot_bytes);
        span.record("unknown_bytes", load.unknown_bytes);
    }

    /// Takes the sequence apart: its place in the queue is free now, the last word is said by [`Ending::deliver`].
    pub(crate) fn end(mut self, how: Result<FinishReason, EngineError>, now: Instant) -> Ending {
        self.end_wait();
        let usage = Usage {
            prompt_tokens: count(self.n_prompt),
            completion_tokens: count(self.output.n_tokens()),
            cached_tokens: count(self.n_cached),
        };
        let timings = self.clock.timings(now);
        let last = how.map(|reason| TokenEvent::Finished {
            reason,
            usage,
            timings,
        });
        Ending {
            sink: self.sink,
            last,
        }
    }
}

/// The last word of a sequence, held back until the counters that it moved are published.
#[derive(Debug)]
pub(crate) struct Ending {
    sink: EventSink,
    last: Result<TokenEvent, EngineError>,
}

impl Ending {
    /// For a request that never became a sequence.
    pub(crate) fn refused(sink: EventSink, error: EngineError) -> Ending {
        Ending {
            sink,
            last: Err(error),
        }
    }

    pub(crate) fn deliver(self) {
        self.sink.finish(self.last);
    }
}

/// The tokens that would end the output, until they may.
fn not_yet(stopping: &Stopping, tokenizer: &Tokenizer) -> NotYet {
    let mut ids = stopping.stop_token_ids.clone();
    if !stopping.ignore_eos {
        ids.extend_from_slice(tokenizer.ends_of_generation());
    }
    NotYet {
        ids,
        min_tokens: stopping.min_tokens,
    }
}

fn unscored(id: u32) -> TokenLogprob {
    TokenLogprob {
        id,
        logprob: None,
        top: Vec::new(),
    }
}

/// Tokens of a sequence; the context bounds them by 32 bits.
fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// A time as spans hold it.
pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
