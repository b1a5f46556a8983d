//! One Generate request, from its admission to its last message.

use std::time::{Duration, Instant};

use engine::{EventStream, TokenEvent};
use proto::inference::v1::{GenerateRequest, GenerateResponse};
use telemetry::{
    metrics::{RequestOutcome, Requests},
    names,
};
use text::EncodeOptions;
use tracing::{Instrument as _, Span, field::Empty, info_span};

use crate::{
    answers::{Answers, Sink, answers},
    deadline::Deadline,
    error::{Chain, Error},
    events::{Opening, message, reason_name},
    gate::RequestPass,
    models::{Acquired, InUse, Models, load_kind},
    request::{Admission, Checked, Prompt},
    status,
    text_pool::TextPool,
};

/// What requests are worked on with.
#[derive(Clone, Debug)]
pub(crate) struct Generator {
    pub(crate) models: Models,
    pub(crate) text: TextPool,
    pub(crate) requests: Requests,
}

/// One request under way.
struct Generation {
    generator: Generator,
    pass: RequestPass,
    deadline: Deadline,
    arrived: Instant,
    record: Record,
}

/// What is told of a request when it is over, however it ends.
struct Record {
    requests: Requests,
    arrived: Instant,
    outcome: RequestOutcome,
}

// === impl Generator ===

impl Generator {
    /// Checks a request and begins to work on it: whatever takes time happens in the stream.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::NotServed`].
    pub(crate) fn start(
        &self,
        request: GenerateRequest,
        pass: RequestPass,
        deadline: Deadline,
    ) -> Result<Answers<GenerateResponse>, Error> {
        let arrived = Instant::now();
        let checked = Checked::try_from(request)?;
        let generation = Generation {
            generator: self.clone(),
            pass,
            deadline,
            arrived,
            record: Record::new(self.requests.clone(), arrived),
        };
        Ok(answers(Span::current(), move |sink| {
            generation.run(checked, sink)
        }))
    }
}

/// The span of the model's work on a request; what it waited for before lies beside it.
fn request_span(checked: &Checked, model: &InUse) -> Span {
    let sampling = &checked.sampling;
    info_span!(
        "generate",
        request_id = checked.request_id,
        model = model.id,
        max_tokens = checked.stopping.max_tokens,
        temperature = f64::from(sampling.temperature),
        top_p = f64::from(sampling.top_p),
        top_k = sampling.top_k,
        seed = checked.seed,
        prompt_tokens = Empty,
        cached_tokens = Empty,
        completion_tokens = Empty,
        finish_reason = Empty,
        load_kind = Empty,
        cold_bytes = Empty,
        warm_bytes = Empty,
        hot_bytes = Empty,
        unknown_bytes = Empty,
        queue_seconds = Empty,
        load_wait_seconds = Empty,
        prefill_seconds = Empty,
        time_to_first_token_seconds = Empty,
        decode_seconds = Empty,
        total_seconds = Empty,
        cause = Empty
    )
}

// === impl Generation ===

impl Generation {
    async fn run(mut self, checked: Checked, sink: Sink<GenerateResponse>) -> Result<(), Error> {
        let outcome = self.work(checked, &sink).await;
        self.record.finish(&outcome);
        outcome
    }

    async fn work(&mut self, checked: Checked, sink: &Sink<GenerateResponse>) -> Result<(), Error> {
        let models = self.generator.models.clone();
        let acquiring = models.acquire(checked.model.as_deref());
        let acquired = self.deadline.bound(self.pass.bound(acquiring)).await?;
        self.record.outcome.model.clone_from(&acquired.model.id);
        let span = request_span(&checked, &acquired.model);
        if let Some(load) = acquired.model.load_identity() {
            telemetry::link(&span, load);
        }
        let generating = self.generate(checked, acquired, &span, sink);
        let outcome = generating.instrument(span.clone()).await;
        if let Err(error) = &outcome {
            span.record("cause", Chain(error).to_string());
        }
        outcome
    }

    /// From the prompt's tokens to the last event.
    async fn generate(
        &mut self,
        checked: Checked,
        acquired: Acquired,
        span: &Span,
        sink: &Sink<GenerateResponse>,
    ) -> Result<(), Error> {
        let Acquired { model, load_wait } = acquired;
        let opening = Opening {
            request_id: checked.request_id.clone(),
            model: model.id.clone(),
            seed: checked.seed,
        };
        let submitting = self.submit(checked, &model, load_wait, span);
        let mut events = self.deadline.bound(self.pass.bound(submitting)).await?;
        let mut finished = false;
        while let Some(event) = events.recv().await {
            let event = event?;
            self.note(span, &model, &event);
            finished |= matches!(event, TokenEvent::Finished { .. });
            sink.send(message(event, &opening)).await;
        }
        match finished {
            true => Ok(()),
            // The worker went away without a word.
            false => Err(Error::Lost { what: "the engine" }),
        }
    }

    /// The prompt's tokens, and a place in the queue.
    async fn submit(
        &self,
        mut checked: Checked,
        model: &InUse,
        load_wait: Duration,
        span: &Span,
    ) -> Result<EventStream, Error> {
        let tokens = match &mut checked.prompt {
            Prompt::Tokens(tokens) => std::mem::take(tokens),
            Prompt::Text(text) => self.tokenise(std::mem::take(text), model).await?,
        };
        let request = checked.into_engine(Admission {
            model: model.id.clone(),
            tokens,
            arrived: self.arrived,
            deadline: self.deadline.instant(),
            load_wait,
            span: span.clone(),
        });
        Ok(self.generator.models.engine().submit(request)?)
    }

    async fn tokenise(&self, text: String, model: &InUse) -> Result<Vec<u32>, Error> {
        let tokenizer = std::sync::Arc::clone(&model.tokenizer);
        let options = EncodeOptions {
            add_special: true,
            parse_special: false,
        };
        self.generator
            .text
            .run(move || tokenizer.encode(&text, options))
            .await
    }

    /// Tells the span, and the record, what an event says about the request.
    fn note(&mut self, span: &Span, model: &InUse, event: &TokenEvent) {
        let outcome = &mut self.record.outcome;
        match event {
            TokenEvent::Started { prompt_tokens } => {
                span.record("prompt_tokens", prompt_tokens);
            }
            TokenEvent::Prefilled {
                cached_tokens,
                load,
                ..
            } => {
                model.end_first_pass(load);
                span.record("cached_tokens", cached_tokens);
                span.record("load_kind", load_kind(load));
                span.record("cold_bytes", load.cold_bytes);
                span.record("warm_bytes", load.warm_bytes);
                span.record("hot_bytes", load.hot_bytes);
                span.record("unknown_bytes", load.unknown_bytes);
            }
            TokenEvent::Delta { .. } => {}
            TokenEvent::Finished {
                reason,
                usage,
                timings,
            } => {
                span.record("finish_reason", reason_name(reason));
                span.record("completion_tokens", usage.completion_tokens);
                let seconds = [
                    ("queue_seconds", timings.queue),
                    ("load_wait_seconds", timings.load_wait),
                    ("prefill_seconds", timings.prefill),
                    ("time_to_first_token_seconds", timings.time_to_first_token),
                    ("decode_seconds", timings.decode),
                    ("total_seconds", timings.total),
                ];
                for (field, duration) in seconds {
                    span.record(field, duration.as_secs_f64());
                }
                outcome.prompt_tokens = usage.prompt_tokens.into();
                outcome.cached_tokens = usage.cached_tokens.into();
                outcome.completion_tokens = usage.completion_tokens.into();
                outcome.decode = timings.decode;
                outcome.load_wait = timings.load_wait;
                let first = Some(timings.time_to_first_token);
                outcome.time_to_first_token = first.filter(|first| *first > Duration::ZERO);
            }
        }
    }
}

// === impl Record ===

impl Record {
    fn new(requests: Requests, arrived: Instant) -> Record {
        // What is dropped without another word was cancelled by its caller.
        let outcome = RequestOutcome {
            error: Some(names::status_code(tonic::Code::Cancelled)),
            ..RequestOutcome::default()
        };
        Record {
            requests,
            arrived,
            outcome,
        }
    }

    fn finish(&mut self, outcome: &Result<(), Error>) {
        let code = outcome.as_ref().err().map(status::code);
        self.outcome.error = code.map(names::status_code);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.outcome.total = self.arrived.elapsed();
        self.requests.record(&self.outcome);
    }
}
