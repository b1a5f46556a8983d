//! Streams of answers.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::Instrument as _;

use crate::{deadline::Deadline, error::Error, gate::Pass};

/// Messages that may wait for a slow caller; the worker waits when they do.
const WAITING_MAX: usize = 4;

/// What a streaming rpc returns.
pub(crate) type Answers<T> = ReceiverStream<Result<T, Status>>;

/// Where a worker puts its messages.
#[derive(Debug)]
pub(crate) struct Sink<T>(mpsc::Sender<Result<T, Status>>);

/// Runs `work` beside the call. It ends with the deadline, or when the caller is gone; its error is the stream's end.
pub(crate) fn answer<T, W, F>(pass: Pass, deadline: Deadline, work: W) -> Answers<T>
where
    T: Send + 'static,
    W: FnOnce(Sink<T>) -> F,
    F: Future<Output = Result<(), Error>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    let work = work(Sink(sender.clone()));
    let task = async move {
        let _pass = pass;
        let outcome = tokio::select! {
            outcome = deadline.bound(work) => outcome,
            () = sender.closed() => Ok(()),
        };
        if let Err(error) = outcome {
            // Fails if the caller is gone; then nobody wants to know.
            let _gone = sender.send(Err(Status::from(error))).await;
        }
    };
    tokio::spawn(task.instrument(tracing::Span::current()));
    ReceiverStream::new(receiver)
}

// === impl Sink ===

impl<T> Sink<T> {
    /// Sends a message; waits while the caller is slow. A caller that is gone ends the worker at its next await.
    pub(crate) async fn send(&self, message: T) {
        let _gone = self.0.send(Ok(message)).await;
    }

    /// Sends a message if there is room, else forgets it.
    pub(crate) fn offer(&self, message: T) {
        let _full = self.0.try_send(Ok(message));
    }
}
