//! `Prefetch`.

use std::{sync::Arc, time::Duration};

use proto::loader::v1::{PrefetchRequest, PrefetchResponse};
use tokio::{sync::OwnedSemaphorePermit, time::MissedTickBehavior};
use tracing::{Instrument as _, field::Empty};

use crate::{
    answer::Sink,
    cache::Subject,
    error::Error,
    node::Node,
    pins::Pins,
    prefetch::{Progress, check_budget, prefetch as bring},
};

/// The contract promises ten a second.
const PROGRESS_EVERY: Duration = Duration::from_millis(50);

/// Brings a model in and tells how far it is.
pub(super) async fn prefetch(
    node: Arc<Node>,
    pins: Arc<Pins>,
    request: PrefetchRequest,
    sink: Sink<PrefetchResponse>,
    _slot: OwnedSemaphorePermit,
) -> Result<(), Error> {
    let model = node.registry.get(&request.model)?;
    let subject = model.subject()?;
    check_budget(&node, &model, &subject)?;
    if request.pin {
        node.registry.pin(&model.id);
        node.cache.pin(&subject);
    }
    let total_bytes = subject.weights.directory().tensor_bytes();
    let span = tracing::info_span!(
        "prefetch",
        model = model.id,
        total_bytes,
        cold_bytes = Empty,
        warm_bytes = Empty,
        unknown_bytes = Empty
    );

    let progress = Arc::new(Progress::default());
    let mut work =
        std::pin::pin!(bring(&node, &model, &subject, &progress).instrument(span.clone()));
    let mut ticks = tokio::time::interval(PROGRESS_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            outcome = &mut work => break outcome?,
            // A caller that does not keep up misses some: the reads do not wait for it.
            _ = ticks.tick() => sink.offer(report(&progress, total_bytes)),
        }
    }
    let fetched = progress.fetched();
    span.record("cold_bytes", fetched.cold_bytes);
    span.record("warm_bytes", fetched.warm_bytes);
    span.record("unknown_bytes", fetched.unknown_bytes);
    let pin_refused = if request.pin {
        lock(&pins, &subject).await
    } else {
        String::new()
    };
    sink.send(PrefetchResponse {
        done: true,
        pin_refused,
        ..report(&progress, total_bytes)
    })
    .await;
    Ok(())
}

fn report(progress: &Progress, total_bytes: u64) -> PrefetchResponse {
    let fetched = progress.fetched();
    PrefetchResponse {
        done_bytes: progress.done_bytes(),
        total_bytes,
        cold_bytes: fetched.cold_bytes,
        warm_bytes: fetched.warm_bytes,
        done: false,
        pin_refused: String::new(),
    }
}

/// Why the pages could not be locked; empty if they are.
async fn lock(pins: &Pins, subject: &Subject) -> String {
    pins.lock(subject)
        .await
        .map_or_else(|error| error.to_string(), |()| String::new())
}
