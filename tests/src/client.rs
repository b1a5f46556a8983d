//! Clients that know nothing but the contract.

use std::path::Path;
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use proto::inference::v1::generate_request::Prompt;
use proto::inference::v1::generate_response::Event;
use proto::inference::v1::inference_service_client::InferenceServiceClient;
use proto::inference::v1::{
    Finished, GenerateRequest, Prefilled, Sampling, Started, Stopping, Token, TokenIds,
};
use proto::loader::v1::loader_service_client::LoaderServiceClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Status, Streaming};

use crate::node::PATIENCE;

/// Connects to a Unix socket.
///
/// # Errors
/// If nobody listens there.
pub async fn connect(socket: &Path) -> Result<Channel, tonic::transport::Error> {
    let socket = socket.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://localhost")
        // HTTP/2's own default: with the megabytes that hyper grants, a slow reader would have a buffer for a whole test.
        .initial_stream_window_size(65_535)
        .connect_with_connector(connector)
        .await
}

/// A greedy request for `max_tokens` tokens after `ids`, going on past end-of-generation tokens.
#[must_use]
pub fn greedy(model: &str, ids: &[u32], max_tokens: u32) -> GenerateRequest {
    GenerateRequest {
        model: model.to_owned(),
        prompt: Some(Prompt::TokenIds(TokenIds { ids: ids.to_vec() })),
        sampling: Some(Sampling {
            temperature: Some(0.0),
            ..Sampling::default()
        }),
        stopping: Some(Stopping {
            max_tokens: Some(max_tokens),
            ignore_eos: true,
            ..Stopping::default()
        }),
        ..GenerateRequest::default()
    }
}

/// All events of one completion, in one value.
#[derive(Debug, Default, Clone)]
pub struct Completion {
    /// The first event.
    pub started: Option<Started>,
    /// The second event.
    pub prefilled: Option<Prefilled>,
    /// The deltas' text, joined.
    pub text: String,
    /// The deltas' tokens, in order.
    pub tokens: Vec<Token>,
    /// The last event.
    pub finished: Option<Finished>,
}

impl Completion {
    /// Ids of the output tokens.
    #[must_use]
    pub fn ids(&self) -> Vec<u32> {
        self.tokens.iter().map(|token| token.id).collect()
    }

    /// Takes in one event, checking that it comes in its place.
    ///
    /// # Panics
    /// If events come out of order or twice.
    pub fn take(&mut self, event: Event) {
        assert!(
            self.finished.is_none(),
            "an event follows `finished`: {event:?}"
        );
        match event {
            Event::Started(started) => assert!(
                self.started.replace(started).is_none(),
                "`started` comes twice"
            ),
            Event::Prefilled(prefilled) => {
                assert!(self.started.is_some(), "`prefilled` comes before `started`");
                assert!(
                    self.prefilled.replace(prefilled).is_none(),
                    "`prefilled` comes twice"
                );
            }
            Event::Delta(delta) => {
                assert!(self.prefilled.is_some(), "a delta comes before `prefilled`");
                self.text.push_str(&delta.text);
                self.tokens.extend(delta.tokens);
            }
            Event::Finished(finished) => self.finished = Some(finished),
        }
    }

    /// Reads a stream to its end.
    ///
    /// # Errors
    /// The status that ended it, if not OK.
    ///
    /// # Panics
    /// If the stream ends well but without `finished`.
    pub async fn collect(
        stream: Streaming<proto::inference::v1::GenerateResponse>,
    ) -> Result<Completion, Status> {
        let mut completion = Completion::default();
        completion.read(stream).await?;
        Ok(completion)
    }

    /// Reads the rest of a stream into a completion that was begun.
    ///
    /// # Errors
    /// The status that ended it, if not OK.
    ///
    /// # Panics
    /// As [`Completion::collect`].
    pub async fn read(
        &mut self,
        mut stream: Streaming<proto::inference::v1::GenerateResponse>,
    ) -> Result<(), Status> {
        while let Some(message) = stream.message().await? {
            self.take(message.event.expect("every message holds an event"));
        }
        assert!(
            self.finished.is_some(),
            "the stream ended well without `finished`"
        );
        Ok(())
    }
}

/// Runs one request to its end.
///
/// # Errors
/// The status that it was refused or ended with.
pub async fn generate(
    client: &mut InferenceServiceClient<Channel>,
    request: GenerateRequest,
) -> Result<Completion, Status> {
    Completion::collect(client.generate(request).await?.into_inner()).await
}

/// Asks the daemon of a model until its answer satisfies `condition`.
///
/// # Panics
/// If it does not within [`PATIENCE`].
pub async fn published_until(
    client: &mut LoaderServiceClient<Channel>,
    model: &str,
    condition: impl Fn(&proto::loader::v1::Model) -> bool,
) {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let request = proto::loader::v1::GetModelRequest {
            model: model.to_owned(),
        };
        let answer = client.get_model(request).await;
        let known = answer.ok().and_then(|answer| answer.into_inner().model);
        if known.as_ref().is_some_and(&condition) {
            return;
        }
        assert!(Instant::now() < give_up, "the daemon says {known:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
