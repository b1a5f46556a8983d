//! Streams of answers, worked on by whoever reads them.
//!
//! No task and no queue of its own: the work advances when the transport asks for the next message, stands still while the caller does not read, and is dropped, and so cancelled, with
//! the call. That keeps the way of a token at two hops.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::Status;
use tracing::{Instrument as _, Span};

use crate::error::Error;

/// A stream that runs its own producer.
pub(crate) struct Answers<T> {
    work: Option<Work>,
    messages: mpsc::Receiver<T>,
    failure: Option<Error>,
    span: Span,
}

type Work = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// Where the producer puts its messages.
#[derive(Clone, Debug)]
pub(crate) struct Sink<T>(mpsc::Sender<T>);

/// A stream of what `work` puts into its sink; its error becomes the stream's status.
pub(crate) fn answers<T, F>(span: Span, work: impl FnOnce(Sink<T>) -> F) -> Answers<T>
where
    F: Future<Output = Result<(), Error>> + Send + 'static,
{
    // One slot: the message that is being handed over.
    let (sender, messages) = mpsc::channel(1);
    let work = work(Sink(sender)).instrument(span.clone());
    Answers {
        work: Some(Box::pin(work)),
        messages,
        failure: None,
        span,
    }
}

// === impl Sink ===

impl<T> Sink<T> {
    /// Hands a message over; waits while the caller does not read.
    pub(crate) async fn send(&self, message: T) {
        // The other end lives in the same stream as the work that calls this.
        let _same_stream = self.0.send(message).await;
    }
}

// === impl Answers ===

impl<T> std::fmt::Debug for Answers<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answers")
            .field("done", &self.work.is_none())
            .finish_non_exhaustive()
    }
}

impl<T> Stream for Answers<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Poll::Ready(Some(message)) = this.messages.poll_recv(cx) {
            return Poll::Ready(Some(Ok(message)));
        }
        if let Some(work) = &mut this.work {
            match work.as_mut().poll(cx) {
                Poll::Ready(outcome) => {
                    this.work = None;
                    this.failure = outcome.err();
                }
                Poll::Pending => {
                    return this.messages.poll_recv(cx).map(|message| message.map(Ok));
                }
            }
        }
        // The work is over: what it sent last, then its error, then the end.
        if let Ok(message) = this.messages.try_recv() {
            return Poll::Ready(Some(Ok(message)));
        }
        let failure = this.failure.take();
        Poll::Ready(failure.map(|error| Err(this.span.in_scope(|| Status::from(error)))))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use tokio_stream::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn messages_come_in_order_and_the_error_last() {
        let mut stream = answers(Span::none(), |sink| async move {
            for number in 0..5 {
                sink.send(number).await;
            }
            Err(Error::Deadline)
        });
        for number in 0..5 {
            assert_eq!(stream.next().await.unwrap().unwrap(), number);
        }
        let status = stream.next().await.unwrap().unwrap_err();
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
        assert!(stream.next().await.is_none());
    }

    #[tokio::test]
    async fn the_work_waits_for_the_reader_and_goes_with_the_stream() {
        let sent = Arc::new(AtomicUsize::new(0));
        let alive = Arc::clone(&sent);
        let mut stream = answers(Span::none(), |sink| async move {
            loop {
                sink.send(()).await;
                alive.fetch_add(1, Ordering::Relaxed);
            }
        });
        stream.next().await.unwrap().unwrap();
        assert!(
            sent.load(Ordering::Relaxed) <= 2,
            "no more than one message ahead"
        );
        drop(stream);
        assert_eq!(Arc::strong_count(&sent), 1, "the work is dropped");
    }

    #[tokio::test]
    async fn waiting_work_wakes_the_reader() {
        let (tell, told) = tokio::sync::oneshot::channel();
        let mut stream = answers(Span::none(), |sink| async move {
            sink.send(told.await.map_err(|_| Error::Draining)?).await;
            Ok(())
        });
        let reader = tokio::spawn(async move { stream.next().await });
        tokio::task::yield_now().await;
        tell.send(7).unwrap();
        assert_eq!(reader.await.unwrap().unwrap().unwrap(), 7);
    }
}
