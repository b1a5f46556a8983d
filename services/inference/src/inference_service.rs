//! `hearth.inference.v1.InferenceService`.

use std::sync::Arc;

use proto::inference::v1::{
    DetokenizeRequest, DetokenizeResponse, GenerateRequest, GenerateResponse, TokenizeRequest,
    TokenizeResponse, inference_service_server::InferenceService,
};
use text::EncodeOptions;
use tonic::{Request, Response, Status};

use crate::{
    answers::Answers, deadline::Deadline, error::Error, gate::Gate, generate::Generator,
    models::InUse,
};

/// Turns prompts into tokens.
#[derive(Clone, Debug)]
pub(crate) struct Inference {
    pub(crate) gate: Gate,
    pub(crate) generator: Generator,
}

#[tonic::async_trait]
impl InferenceService for Inference {
    type GenerateStream = Answers<GenerateResponse>;

    async fn generate(
        &self,
        request: Request<GenerateRequest>,
    ) -> Result<Response<Self::GenerateStream>, Status> {
        let deadline = Deadline::of(request.metadata());
        let pass = self.gate.enter_request()?;
        let starting = self.generator.start(request.into_inner(), pass, deadline);
        Ok(Response::new(starting.await?))
    }

    async fn tokenize(
        &self,
        request: Request<TokenizeRequest>,
    ) -> Result<Response<TokenizeResponse>, Status> {
        let deadline = Deadline::of(request.metadata());
        let pass = self.gate.enter_request()?;
        let answer = self.tokens(request.into_inner());
        let ids = deadline.bound(pass.bound(answer)).await?;
        Ok(Response::new(TokenizeResponse { ids }))
    }

    async fn detokenize(
        &self,
        request: Request<DetokenizeRequest>,
    ) -> Result<Response<DetokenizeResponse>, Status> {
        let deadline = Deadline::of(request.metadata());
        let pass = self.gate.enter_request()?;
        let answer = self.bytes(request.into_inner());
        let text_bytes = deadline.bound(pass.bound(answer)).await?;
        Ok(Response::new(DetokenizeResponse {
            text: String::from_utf8_lossy(&text_bytes).into_owned(),
            text_bytes,
        }))
    }
}

// === impl Inference ===

impl Inference {
    async fn tokens(&self, request: TokenizeRequest) -> Result<Vec<u32>, Error> {
        let model = self.model(&request.model).await?;
        let tokenizer = Arc::clone(&model.tokenizer);
        let options = EncodeOptions {
            add_special: request.add_special.unwrap_or(true),
            parse_special: request.parse_special.unwrap_or(false),
        };
        let work = move || tokenizer.encode(&request.text, options);
        self.generator.text.run(work).await
    }

    async fn bytes(&self, request: DetokenizeRequest) -> Result<Vec<u8>, Error> {
        let model = self.model(&request.model).await?;
        let tokenizer = Arc::clone(&model.tokenizer);
        check_ids(&request.ids, tokenizer.n_vocab())?;
        let work = move || tokenizer.decode(&request.ids);
        self.generator.text.run(work).await
    }

    async fn model(&self, id: &str) -> Result<InUse, Error> {
        let id = Some(id).filter(|id| !id.is_empty());
        Ok(self.generator.models.acquire(id).await?.model)
    }
}

fn check_ids(ids: &[u32], n_vocab: u32) -> Result<(), Error> {
    match ids.iter().position(|id| *id >= n_vocab) {
        Some(index) => {
            let reason = format!("must be below the vocabulary's size, {n_vocab}");
            Err(Error::invalid(format!("ids[{index}]"), reason))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_outside_the_vocabulary_are_named() {
        check_ids(&[0, 9], 10).unwrap();
        let error = check_ids(&[0, 10, 11], 10).unwrap_err();
        assert!(error.to_string().contains("ids[1]"), "{error}");
    }
}
