//! Getting a lost lease back, so that the daemon fetches for us again.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Notify, task::spawn_blocking, time::sleep};
use weights::{Weights, handoff::AcceptError};

use crate::{
    daemon::Daemon,
    error::{Chain, Error},
    request::draw,
};

/// First wait after a lease was lost.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Longest wait between two tries.
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Watches over the lease of one model until the task is dropped. Meanwhile the model is served from the mapping that it has, with reads of our own.
pub(super) async fn keep(model: String, weights: Arc<Weights>, lost: Arc<Notify>, daemon: Daemon) {
    loop {
        lost.notified().await;
        tracing::warn!(
            model,
            "lost the lease: the loader daemon is gone; reading weights ourselves until it is back"
        );
        if !regain(&model, &weights, &daemon).await {
            return;
        }
        tracing::info!(model, "the loader daemon is back: holding a lease again");
    }
}

/// Tries until there is a lease again; `false` if there cannot be one.
async fn regain(model: &str, weights: &Arc<Weights>, daemon: &Daemon) -> bool {
    let mut backoff = BACKOFF_MIN;
    loop {
        sleep(jittered(backoff)).await;
        match reattach(model, weights, daemon).await {
            Ok(()) => return true,
            Err(Error::Accept { source, .. }) if is_final(&source) => {
                // Our descriptors still lead to the file that was attached, which may be perfectly good: only the name leads elsewhere.
                let cause = Chain(&*source).to_string();
                tracing::warn!(
                    model,
                    cause,
                    "the published file is another one now; serving the attached one without a lease until it is unloaded"
                );
                return false;
            }
            Err(error) => tracing::debug!(model, cause = %Chain(&error), "no lease yet"),
        }
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

async fn reattach(model: &str, weights: &Arc<Weights>, daemon: &Daemon) -> Result<(), Error> {
    let lease = daemon.acquire_lease(model).await?;
    let weights = Arc::clone(weights);
    let task = spawn_blocking(move || weights.reattach(&lease.handoff_socket, &lease.token));
    let outcome = task.await.map_err(|_| Error::Lost {
        what: "re-attaching a model",
    })?;
    outcome.map_err(|source| Error::Accept {
        model: model.to_owned(),
        source: Arc::new(source),
    })
}

fn is_final(error: &AcceptError) -> bool {
    matches!(error, AcceptError::Mismatch { .. } | AcceptError::NoLease)
}

/// Three quarters to five quarters of `delay`, so that the services of a node do not all come back at once.
fn jittered(delay: Duration) -> Duration {
    let eighths = u32::try_from(draw() % 5).unwrap_or_default();
    delay * (6 + eighths) / 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_a_quarter() {
        let delay = Duration::from_secs(8);
        for _ in 0..100 {
            let jittered = jittered(delay);
            assert!(
                (Duration::from_secs(6)..=Duration::from_secs(10)).contains(&jittered),
                "{jittered:?}"
            );
        }
    }
}
