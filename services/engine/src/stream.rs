//! Hop 2: the bounded way of events from the worker to their reader.
//!
//! # Why the end travels apart
//! Events wait in a bounded channel, and a reader who does not read fills it. The last word, be it `Finished` or an error, must arrive all the same, so it has a channel of its own, and whatever did not fit into the first one
//! goes with it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::task::{Context, Poll, ready};

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use crate::command::Command;
use crate::scheduler::SequenceId;
use crate::{EngineError, TokenEvent};

/// Events that did not fit any more, and the last word.
#[derive(Debug)]
struct Outcome {
    rest: VecDeque<TokenEvent>,
    last: Result<TokenEvent, EngineError>,
}

/// The events of one completion. Dropping it cancels the sequence and frees its KV blocks.
#[derive(Debug)]
pub struct EventStream {
    id: SequenceId,
    events: mpsc::Receiver<TokenEvent>,
    outcome: Option<oneshot::Receiver<Outcome>>,
    rest: VecDeque<Result<TokenEvent, EngineError>>,
    parked: Arc<AtomicBool>,
    worker: Sender<Command>,
}

/// The worker's end of a stream.
#[derive(Debug)]
pub(crate) struct EventSink {
    events: mpsc::Sender<TokenEvent>,
    outcome: oneshot::Sender<Outcome>,
    /// What did not fit.
    pending: VecDeque<TokenEvent>,
    /// Whether the worker wants to hear when the reader reads.
    parked: Arc<AtomicBool>,
}

/// How it stands with the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// Everything is on its way.
    Open,
    /// Something waits for the reader; a [`Command::Read`] will come when half of the channel is empty.
    Full,
}

/// Makes both ends, with room for `capacity` unread events.
pub(crate) fn channel(
    id: SequenceId,
    capacity: usize,
    worker: Sender<Command>,
) -> (EventSink, EventStream) {
    let (events_in, events) = mpsc::channel(capacity);
    let (outcome_in, outcome) = oneshot::channel();
    let parked = Arc::new(AtomicBool::new(false));
    let sink = EventSink {
        events: events_in,
        outcome: outcome_in,
        pending: VecDeque::new(),
        parked: Arc::clone(&parked),
    };
    let stream = EventStream {
        id,
        events,
        outcome: Some(outcome),
        rest: VecDeque::new(),
        parked,
        worker,
    };
    (sink, stream)
}

impl EventStream {
    /// The next event; `None` after the last. An error is the last. Losing the future loses nothing.
    pub async fn recv(&mut self) -> Option<Result<TokenEvent, EngineError>> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// [`recv`](EventStream::recv) as a poll.
    pub fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<TokenEvent, EngineError>>> {
        if let Some(event) = ready!(self.events.poll_recv(cx)) {
            self.tell_of_room();
            return Poll::Ready(Some(Ok(event)));
        }
        if let Some(outcome) = &mut self.outcome {
            match ready!(Pin::new(outcome).poll(cx)) {
                Ok(Outcome { rest, last }) => {
                    self.rest = rest.into_iter().map(Ok).collect();
                    self.rest.push_back(last);
                }
                Err(_) => self.rest.push_back(Err(EngineError::ShuttingDown)),
            }
            self.outcome = None;
        }
        Poll::Ready(self.rest.pop_front())
    }
}

impl EventStream {
    /// Wakes the sequence that stands still for this reader once half of the channel is empty: sooner would let in one event at a time.
    fn tell_of_room(&self) {
        if self.events.len() <= self.events.max_capacity() / 2
            && self.parked.swap(false, Ordering::SeqCst)
        {
            // If the worker is gone, so is the sequence.
            let _ = self.worker.send(Command::Read(self.id));
        }
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        // After the last word there is nothing left to cancel.
        if self.outcome.is_some() {
            let _ = self.worker.send(Command::Gone(self.id));
        }
    }
}

impl EventSink {
    /// Sends an event, after those that wait.
    pub(crate) fn send(&mut self, event: TokenEvent) -> Flow {
        self.pending.push_back(event);
        self.flush()
    }

    /// Sends what waits, as far as there is room. A reader that is gone takes everything: its own message says that it went.
    pub(crate) fn flush(&mut self) -> Flow {
        if self.try_flush() == Flow::Open {
            return Flow::Open;
        }
        self.parked.store(true, Ordering::SeqCst);
        // The reader may have emptied the channel just before it could see the flag; then nobody would ever tell.
        let flow = self.try_flush();
        if flow == Flow::Open {
            self.parked.store(false, Ordering::SeqCst);
        }
        flow
    }

    fn try_flush(&mut self) -> Flow {
        while let Some(event) = self.pending.pop_front() {
            match self.events.try_send(event) {
                Ok(()) | Err(TrySendError::Closed(_)) => {}
                Err(TrySendError::Full(event)) => {
                    self.pending.push_front(event);
                    return Flow::Full;
                }
            }
        }
        Flow::Open
    }

    /// Says the last word. It arrives even if the channel is full; with a [`TokenEvent::Finished`] so does everything before it.
    pub(crate) fn finish(self, last: Result<TokenEvent, EngineError>) {
        let rest = if last.is_ok() {
            self.pending
        } else {
            VecDeque::new()
        };
        // A reader that is gone does not hear it.
        let _ = self.outcome.send(Outcome { rest, last });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel as commands};

    use super::*;

    fn event(n: u32) -> TokenEvent {
        TokenEvent::Started { prompt_tokens: n }
    }

    fn ends(capacity: usize) -> (EventSink, EventStream, Receiver<Command>) {
        let (worker, seen) = commands();
        let (sink, stream) = channel(SequenceId(1), capacity, worker);
        (sink, stream, seen)
    }

    fn recv(stream: &mut EventStream) -> Option<Result<TokenEvent, EngineError>> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match stream.poll_recv(&mut cx) {
            Poll::Ready(item) => item,
            Poll::Pending => panic!("nothing to read"),
        }
    }

    #[test]
    fn a_full_channel_parks_and_reading_says_so() {
        let (mut sink, mut stream, seen) = ends(4);
        let flows: Vec<Flow> = (1..=5).map(|n| sink.send(event(n))).collect();
        assert_eq!(
            flows,
            [Flow::Open, Flow::Open, Flow::Open, Flow::Open, Flow::Full]
        );
        recv(&mut stream);
        assert!(seen.try_recv().is_err(), "room for one is not worth a word");
        recv(&mut stream);
        assert!(matches!(seen.try_recv(), Ok(Command::Read(SequenceId(1)))));
        recv(&mut stream);
        assert!(seen.try_recv().is_err(), "it is said once");
        assert_eq!(sink.flush(), Flow::Open);
        recv(&mut stream);
        assert!(matches!(recv(&mut stream), Some(Ok(found)) if found == event(5)));
    }

    #[test]
    fn the_end_arrives_with_what_did_not_fit() {
        let (mut sink, mut stream, _seen) = ends(1);
        for n in 1..=3 {
            sink.send(event(n));
        }
        sink.finish(Ok(event(4)));
        for n in 1..=4 {
            assert!(
                matches!(recv(&mut stream), Some(Ok(found)) if found == event(n)),
                "{n}"
            );
        }
        assert!(recv(&mut stream).is_none());
    }

    #[test]
    fn an_error_ends_the_stream_and_the_reader_need_not_catch_up() {
        let (mut sink, mut stream, _seen) = ends(1);
        sink.send(event(1));
        sink.send(event(2));
        sink.finish(Err(EngineError::DeadlineExceeded));
        assert!(matches!(recv(&mut stream), Some(Ok(_))));
        assert!(matches!(
            recv(&mut stream),
            Some(Err(EngineError::DeadlineExceeded))
        ));
        assert!(recv(&mut stream).is_none());
    }

    #[test]
    fn going_before_the_end_is_a_cancel() {
        let (_sink, stream, seen) = ends(1);
        drop(stream);
        assert!(matches!(seen.try_recv(), Ok(Command::Gone(SequenceId(1)))));
        let (sink, mut stream, seen) = ends(1);
        sink.finish(Ok(event(1)));
        recv(&mut stream);
        drop(stream);
        assert!(seen.try_recv().is_err());
    }

    #[test]
    fn a_worker_that_dies_ends_its_streams() {
        let (sink, mut stream, _seen) = ends(1);
        drop(sink);
        assert!(matches!(
            recv(&mut stream),
            Some(Err(EngineError::ShuttingDown))
        ));
    }
}
