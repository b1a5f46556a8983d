//! The transport's word for a request that is too large, put as the contract has it.
//!
//! The transport refuses such a message before it reads it, with a bare `OUT_OF_RANGE`. Nothing else in this service answers that code, so it can be told apart by it.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http::{HeaderValue, Request, Response};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};

use crate::error::Error;

/// Puts `RESOURCE_EXHAUSTED` with details in the place of the transport's refusal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MessageLimit {
    pub(crate) limit_bytes: usize,
}

/// A service wrapped by [`MessageLimit`].
#[derive(Clone, Debug)]
pub(crate) struct Limited<S> {
    inner: S,
    limit_bytes: usize,
}

impl<S> Layer<S> for MessageLimit {
    type Service = Limited<S>;

    fn layer(&self, inner: S) -> Limited<S> {
        Limited {
            inner,
            limit_bytes: self.limit_bytes,
        }
    }
}

impl<S, A> Service<Request<A>> for Limited<S>
where
    S: Service<Request<A>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let limit_bytes = self.limit_bytes;
        let answer = self.inner.call(request);
        Box::pin(async move {
            let response = answer.await?;
            if !is_out_of_range(response.headers().get("grpc-status")) {
                return Ok(response);
            }
            Ok(Status::from(Error::MessageTooLarge { limit_bytes }).into_http())
        })
    }
}

fn is_out_of_range(status: Option<&HeaderValue>) -> bool {
    status.is_some_and(|value| Code::from_bytes(value.as_bytes()) == Code::OutOfRange)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tonic_types::StatusExt as _;
    use tower::service_fn;

    use super::*;

    async fn answer(code: &'static str) -> Status {
        let inner = service_fn(move |_: Request<()>| async move {
            let mut response = Response::new(Body::empty());
            let code = HeaderValue::from_static(code);
            response.headers_mut().insert("grpc-status", code);
            Ok::<_, Infallible>(response)
        });
        let mut service = MessageLimit { limit_bytes: 64 }.layer(inner);
        let response = service.call(Request::new(())).await.unwrap();
        Status::from_header_map(response.headers()).unwrap()
    }

    #[tokio::test]
    async fn the_transport_s_refusal_becomes_ours() {
        let status = answer("11").await;
        assert_eq!(status.code(), Code::ResourceExhausted);
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!(info.reason, "MESSAGE_TOO_LARGE");
        assert_eq!(info.metadata["limit_bytes"], "64");
    }

    #[tokio::test]
    async fn other_answers_pass() {
        assert_eq!(answer("0").await.code(), Code::Ok);
        assert_eq!(answer("5").await.code(), Code::NotFound);
    }
}
