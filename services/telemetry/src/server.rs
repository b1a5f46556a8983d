//! A tower layer that gives every rpc a span, the caller's trace as its parent, and its status at the end.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use opentelemetry::trace::Status;
use tonic::Code;
use tower::{Layer, Service};
use tracing::{Instrument as _, Span, field::Empty};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::{metrics::Calls, names, propagate};

/// Wraps a gRPC server in spans: one per rpc, named by its method, open until the last message has left or the caller has gone.
///
/// Health checks and reflection are traced at debug level only: probes would drown everything else.
#[derive(Clone, Debug, Default)]
pub struct ServerTrace {
    calls: Calls,
}

/// A service wrapped by [`ServerTrace`].
#[derive(Clone, Debug)]
pub struct Traced<S> {
    inner: S,
    calls: Calls,
}

/// A response body that ends its span with the status found in the trailers.
#[derive(Debug)]
pub struct TracedBody<B> {
    inner: B,
    call: Call,
}

/// One rpc under way. Dropped without a status, it was cancelled.
#[derive(Debug)]
struct Call {
    span: Span,
    method: String,
    began: Instant,
    calls: Calls,
    finished: bool,
}

// === impl ServerTrace ===

impl ServerTrace {
    /// A layer whose call durations go to the process's meter; make it after [`crate::init`].
    #[must_use]
    pub fn new() -> ServerTrace {
        ServerTrace::default()
    }
}

impl<S> Layer<S> for ServerTrace {
    type Service = Traced<S>;

    fn layer(&self, inner: S) -> Traced<S> {
        Traced {
            inner,
            calls: self.calls.clone(),
        }
    }
}

// === impl Traced ===

impl<S, A, B> Service<Request<A>> for Traced<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: Send + 'static,
{
    type Response = Response<TracedBody<B>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let mut call = Call::begin(request.uri().path(), request.headers(), self.calls.clone());
        // The handler's future is made inside the span as well: tonic's generated code starts work before the first poll.
        let future = call
            .span
            .in_scope(|| self.inner.call(request))
            .instrument(call.span.clone());
        Box::pin(async move {
            let response = future.await.inspect_err(|_| call.finish(Code::Internal))?;
            // A status in the head means that no message follows.
            if let Some(code) = status(response.headers()) {
                call.finish(code);
            }
            Ok(response.map(|inner| TracedBody { inner, call }))
        })
    }
}

// === impl TracedBody ===

impl<B: Body + Unpin> Body for TracedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.get_mut();
        let polled = this
            .call
            .span
            .in_scope(|| Pin::new(&mut this.inner).poll_frame(cx));
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_ref() {
                    this.call.finish(status(trailers).unwrap_or(Code::Unknown));
                }
            }
            Poll::Ready(Some(Err(_))) => this.call.finish(Code::Internal),
            Poll::Ready(None) => this.call.finish(Code::Unknown),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

// === impl Call ===

impl Call {
    fn begin(path: &str, headers: &HeaderMap, calls: Calls) -> Call {
        let method = path.trim_start_matches('/').to_owned();
        let span = if method.starts_with("grpc.") {
            tracing::debug_span!("rpc", method, code = Empty, cause = Empty)
        } else {
            tracing::info_span!("rpc", method, code = Empty, cause = Empty)
        };
        // Refused only where the span is not exported at all.
        let _not_exported = span.set_parent(propagate::extract(headers));
        Call {
            span,
            method,
            began: Instant::now(),
            calls,
            finished: false,
        }
    }

    fn finish(&mut self, code: Code) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        self.span.record("code", names::status_code(code));
        if names::is_server_error(code) {
            self.span.set_status(Status::error(""));
        }
        self.calls.record(&self.method, code, self.began.elapsed());
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.finish(Code::Cancelled);
    }
}

fn status(headers: &HeaderMap) -> Option<Code> {
    headers
        .get("grpc-status")
        .map(|value| Code::from_bytes(value.as_bytes()))
}
