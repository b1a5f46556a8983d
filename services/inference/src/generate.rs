//! One Generate request, from its admission to its last message.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use engine::{EventStream, TokenEvent};
use jiff::ZonedDateTime;
use proto::inference::v1::{GenerateRequest, GenerateResponse};
use telemetry::{
    metrics::{RequestOutcome, Requests},
    names,
};
use text::{EncodeOptions, chat::Conversation};
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

/// A request that the engine has taken on.
struct Admitted {
    events: EventStream,
    opening: Opening,
    model: InUse,
    span: Span,
}

/// An admitted request under way.
struct Generation {
    admitted: Admitted,
    /// Given back when the last message has left.
    _pass: RequestPass,
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
    /// Has a request admitted: its fields are good, its model is attached, its prompt is tokenised, and the engine has a place for it. What follows is a stream.
    ///
    /// # Errors
    /// [`Error`]: whatever is known to be wrong by then is told before the first message.
    pub(crate) async fn start(
        &self,
        request: GenerateRequest,
        pass: RequestPass,
        deadline: Deadline,
    ) -> Result<Answers<GenerateResponse>, Error> {
        let arrived = Instant::now();
        let mut record = Record::new(self.requests.clone(), arrived);
        let admitting = self.admit(request, deadline, arrived, &mut record.outcome.model);
        let admitted = deadline.bound(pass.bound(admitting)).await;
        let admitted = admitted.inspect_err(|error| record.failed(error))?;
        let generation = Generation {
            admitted,
            _pass: pass,
            record,
        };
        // The span of the rpc learns of errors; the request's own is entered besides.
        Ok(answers(Span::current(), move |sink| generation.run(sink)))
    }

    async fn admit(
        &self,
        request: GenerateRequest,
        deadline: Deadline,
        arrived: Instant,
        model_id: &mut String,
    ) -> Result<Admitted, Error> {
        let checked = Checked::try_from(request)?;
        let acquired = self.models.acquire(checked.model.as_deref()).await?;
        let Acquired { model, load_wait } = acquired;
        model_id.clone_from(&model.id);
        checked.check_tokens(model.report.n_vocab)?;
        let span = request_span(&checked, &model);
        if let Some(load) = model.load_identity() {
            telemetry::link(&span, load);
        }
        let opening = Opening {
            request_id: checked.request_id.clone(),
            model: model.id.clone(),
            seed: checked.seed,
        };
        let admission = Admission {
            model: model.id.clone(),
            tokens: Vec::new(),
            arrived,
            deadline: deadline.instant(),
            load_wait,
            span: span.clone(),
        };
        let submitting = self.submit(checked, admission, &model);
        let events = submitting.instrument(span.clone()).await;
        let events = events.inspect_err(|error| record_cause(&span, error))?;
        Ok(Admitted {
            events,
            opening,
            model,
            span,
        })
    }

    /// The prompt's tokens, and a place in the queue.
    async fn submit(
        &self,
        mut checked: Checked,
        mut admission: Admission,
        model: &InUse,
    ) -> Result<EventStream, Error> {
        let prompt = std::mem::replace(&mut checked.prompt, Prompt::Tokens(Vec::new()));
        admission.tokens = match prompt {
            Prompt::Tokens(tokens) => tokens,
            Prompt::Text(text) => self.tokenise(text, model).await?,
            Prompt::Chat(conversation) => self.render(conversation, model).await?,
        };
        let request = checked.into_engine(admission);
        Ok(self.models.engine().submit(request)?)
    }

    async fn tokenise(&self, text: String, model: &InUse) -> Result<Vec<u32>, Error> {
        let tokenizer = Arc::clone(&model.tokenizer);
        let options = EncodeOptions {
            add_special: true,
            parse_special: false,
        };
        self.text
            .run(move || tokenizer.encode(&text, options))
            .await
    }

    async fn render(&self, conversation: Conversation, model: &InUse) -> Result<Vec<u32>, Error> {
        let (templates, tokenizer) = (Arc::clone(&model.templates), Arc::clone(&model.tokenizer));
        let render = move || {
            // The local clock, as a template that dates its prompts expects it.
            let now = ZonedDateTime::now().datetime();
            templates.encode(&conversation, &tokenizer, now)
        };
        self.text.run(render).await?.map_err(|source| Error::Chat {
            model: model.id.clone(),
            source,
        })
    }
}

fn record_cause(span: &Span, error: &Error) {
    let _entered = span.enter();
    span.record("cause", Chain(error).to_string());
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
    async fn run(mut self, sink: Sink<GenerateResponse>) -> Result<(), Error> {
        let span = self.admitted.span.clone();
        let outcome = self.relay(&sink).instrument(span.clone()).await;
        match &outcome {
            Ok(()) => self.record.outcome.error = None,
            Err(error) => {
                self.record.failed(error);
                record_cause(&span, error);
            }
        }
        outcome
    }

    async fn relay(&mut self, sink: &Sink<GenerateResponse>) -> Result<(), Error> {
        let mut finished = false;
        while let Some(event) = self.admitted.events.recv().await {
            let event = event?;
            self.note(&event);
            finished |= matches!(event, TokenEvent::Finished { .. });
            sink.send(message(event, &self.admitted.opening)).await;
        }
        match finished {
            true => Ok(()),
            // The worker went away without a word.
            false => Err(Error::Lost { what: "the engine" }),
        }
    }

    /// Tells the span, and the record, what an event says about the request.
    fn note(&mut self, event: &TokenEvent) {
        let Admitted { span, model, .. } = &self.admitted;
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

    fn failed(&mut self, error: &Error) {
        self.outcome.error = Some(names::status_code(status::code(error)));
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.outcome.total = self.arrived.elapsed();
        self.requests.record(&self.outcome);
    }
}
