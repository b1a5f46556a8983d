//! Rates of a Hearth service, as its clients see them.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use proto::inference::v1::GenerateRequest;
use proto::inference::v1::generate_response::Event;
use proto::inference::v1::inference_service_client::InferenceServiceClient;
use tonic::transport::Channel;

use crate::client::greedy;
use crate::node::Service;

/// Tokens of the prompt before decoding.
const PROMPT_TOKENS: usize = 16;

/// A service and one of its models.
#[derive(Debug)]
pub struct Hearth<'a> {
    service: &'a Service,
    model: String,
    requests: usize,
}

impl Hearth<'_> {
    /// Looks at a model.
    #[must_use]
    pub fn new<'a>(service: &'a Service, model: &str) -> Hearth<'a> {
        Hearth {
            service,
            model: model.to_owned(),
            requests: 0,
        }
    }

    /// A prompt that no request before had, so that nothing of it is found in the cache.
    fn request(&mut self, prompt_tokens: usize, max_tokens: usize) -> Result<GenerateRequest> {
        self.requests += 1;
        let ids: Vec<u32> = (0..prompt_tokens)
            .map(|i| u32::try_from(300 + (i * 31 + self.requests * 7) % 1000))
            .collect::<Result<_, _>>()?;
        let mut request = greedy(&self.model, &ids, u32::try_from(max_tokens)?);
        request.cache_salt = format!("run {}", self.requests);
        Ok(request)
    }

    /// Tokens per second of a prompt: its length over the time to the first token.
    ///
    /// # Errors
    /// If the service refuses the request.
    pub async fn prefill(&mut self, prompt_tokens: usize) -> Result<f64> {
        let request = self.request(prompt_tokens, 1)?;
        let client = self.service.client().await;
        let begun = Instant::now();
        let times = token_times(client, request).await?;
        let first = times.first().context("no token")?;
        Ok(prompt_tokens as f64 / (*first - begun).as_secs_f64())
    }

    /// Tokens per second of several streams together, while all of them decode.
    ///
    /// # Errors
    /// If the service refuses a request, or the streams are too short to overlap.
    pub async fn decode(&mut self, n_streams: usize, tokens: usize) -> Result<f64> {
        let mut streams = Vec::new();
        for _ in 0..n_streams {
            let request = self.request(PROMPT_TOKENS, tokens + 1)?;
            let client = self.service.client().await;
            streams.push(tokio::spawn(token_times(client, request)));
        }
        let mut times = Vec::new();
        for stream in streams {
            times.push(stream.await??);
        }
        let firsts = times.iter().filter_map(|times| times.first());
        let lasts = times.iter().filter_map(|times| times.last());
        let begun = *firsts.max().context("no stream")?;
        let ended = *lasts.min().context("no stream")?;
        let within = |time: &&Instant| **time > begun && **time <= ended;
        let count = times.iter().flatten().filter(within).count();
        ensure!(2 * count > n_streams * tokens, "the streams hardly overlap");
        Ok(count as f64 / (ended - begun).as_secs_f64())
    }
}

/// When each output token came.
async fn token_times(
    mut client: InferenceServiceClient<Channel>,
    request: GenerateRequest,
) -> Result<Vec<Instant>> {
    let mut stream = client.generate(request).await?.into_inner();
    let mut times = Vec::new();
    while let Some(message) = stream.message().await? {
        if let Some(Event::Delta(delta)) = message.event {
            let now = Instant::now();
            times.extend(delta.tokens.iter().map(|_| now));
        }
    }
    Ok(times)
}
