//! `hearth generate`: one completion, as it comes.

mod event;
mod request;
mod view;

use std::{
    io::{self, IsTerminal, Read as _},
    time::{Duration, Instant},
};

use clap::Args;
use proto::inference::v1::{
    GenerateRequest, TokenIds, generate_request::Prompt, generate_response::Event,
    inference_service_client::InferenceServiceClient,
};
use tonic::transport::Channel;

use crate::{address::InferenceAddress, failure::Failure, output, progress::Waiting, up::Stop};

pub(crate) use event::kind as kind_name;
pub(crate) use request::{Choice, End};
pub(crate) use view::{Measured, View};

/// Longest prompt read from standard input; the service has its own, smaller limit.
const PROMPT_BYTES_MAX: u64 = 256 << 20;

/// Flags of `hearth generate`.
#[derive(Args, Debug)]
pub(crate) struct Generate {
    /// The prompt; `-` reads it from standard input
    #[arg(value_name = "TEXT", conflicts_with = "token_ids")]
    prompt: Option<String>,
    /// Model to ask; may be left out when exactly one is attached
    #[arg(
        short,
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    model: String,
    /// Prompt as token ids, used as they are
    #[arg(long, value_name = "ID,…", value_delimiter = ',')]
    token_ids: Option<Vec<u32>>,
    /// Print every event as a line of JSON
    #[arg(long)]
    json: bool,
    /// No summary, even when a person looks
    #[arg(short, long)]
    quiet: bool,
    /// Give up after this time, waiting for the model included (10s, 5m)
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    /// Share cached prompt prefixes only with requests of the same salt
    #[arg(
        long,
        value_name = "SALT",
        default_value = "",
        hide_default_value = true
    )]
    cache_salt: String,
    /// Name the request, for logs and traces
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    request_id: String,
    #[command(flatten)]
    address: InferenceAddress,
    #[command(flatten)]
    choice: request::Choice,
    #[command(flatten)]
    end: request::End,
    #[command(flatten)]
    language: request::Language,
    #[command(flatten)]
    report: request::Report,
}

impl Generate {
    /// Streams the completion to standard output.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let request = self.request()?;
        let mut client = self.address.inference().await?;
        let mut call = tonic::Request::new(request);
        if let Some(timeout) = self.timeout {
            call.set_timeout(timeout);
        }
        let mut view = View::new(self.json, self.report.wants_table());
        let mut stop = Stop::listen()?;
        let outcome = tokio::select! {
            outcome = relay(&mut client, call, &mut view) => outcome,
            // Dropping the stream cancels the completion.
            () = stop.asked() => Err(Failure::Interrupted),
        };
        view.break_line()?;
        outcome?;
        view.show_scores()?;
        let mut stderr = output::stderr();
        if stderr.is_terminal && !self.quiet && !self.json {
            let summary = stderr.style.dim(&view.measured().summary());
            stderr.line(summary)?;
        }
        Ok(())
    }

    fn request(&self) -> Result<GenerateRequest, Failure> {
        let prompt =
            match (&self.token_ids, self.prompt.as_deref()) {
                (Some(ids), _) => Prompt::TokenIds(TokenIds { ids: ids.clone() }),
                (None, Some("-")) => Prompt::Text(read_prompt()?),
                (None, Some(text)) => Prompt::Text(text.to_owned()),
                (None, None) if !io::stdin().is_terminal() => Prompt::Text(read_prompt()?),
                (None, None) => return Err(Failure::Usage(
                    "a prompt is missing: give TEXT, or `-` to type or pipe it on standard input"
                        .to_owned(),
                )),
            };
        Ok(GenerateRequest {
            model: self.model.clone(),
            prompt: Some(prompt),
            sampling: Some(self.choice.to_proto()),
            stopping: Some(self.end.to_proto()),
            constraint: self.language.to_proto(),
            output: self.report.to_proto(),
            cache_salt: self.cache_salt.clone(),
            request_id: self.request_id.clone(),
        })
    }
}

/// Shows a completion as it comes, to its end.
pub(crate) async fn relay(
    client: &mut InferenceServiceClient<Channel>,
    call: tonic::Request<GenerateRequest>,
    view: &mut View,
) -> Result<(), Failure> {
    let asked = Instant::now();
    let mut waiting = Waiting::new("waiting for the model");
    let answer = client.generate(call).await;
    let mut events = answer.map_err(Failure::rpc("generate"))?.into_inner();
    while let Some(response) = events
        .message()
        .await
        .map_err(Failure::rpc("go on generating"))?
    {
        if let Some(event) = response.event {
            if matches!(event, Event::Delta(_)) {
                waiting.clear();
            }
            view.show(&event, asked.elapsed())?;
        }
    }
    waiting.clear();
    view.is_finished().then_some(()).ok_or_else(unfinished)
}

fn read_prompt() -> Result<String, Failure> {
    let mut text = String::new();
    let read = io::stdin()
        .lock()
        .take(PROMPT_BYTES_MAX)
        .read_to_string(&mut text);
    read.map_err(Failure::file("standard input"))?;
    Ok(text)
}

/// A stream's last event has to be `finished`; `what` is said when it was not.
pub(crate) fn unfinished() -> Failure {
    Failure::Protocol {
        doing: "generate".to_owned(),
        what: "the stream ended before it was finished; the service's log says more",
    }
}
