//! `WatchModels`.

use std::sync::Arc;

use proto::loader::v1::WatchModelsResponse;
use tokio::sync::{OwnedSemaphorePermit, broadcast::error::RecvError};
use tokio_util::sync::CancellationToken;

use crate::{answer::Sink, error::Error, message, node::Node, registry::Model};

/// Sends the list, then every change, until the daemon drains. Leases come and go without being a change: they are told as of each message.
pub(super) async fn watch(
    node: Arc<Node>,
    draining: CancellationToken,
    sink: Sink<WatchModelsResponse>,
    _slot: OwnedSemaphorePermit,
) -> Result<(), Error> {
    let (models, mut changes) = node.registry.watch();
    sink.send(report(&node, &models, &[])).await;
    drop(models);
    loop {
        let change = tokio::select! {
            () = draining.cancelled() => return Err(Error::ShuttingDown),
            change = changes.recv() => change,
        };
        match change {
            Ok(change) => {
                sink.send(report(&node, &change.updated, &change.removed))
                    .await
            }
            Err(RecvError::Lagged(missed)) => return Err(Error::WatcherBehind { missed }),
            Err(RecvError::Closed) => return Err(Error::ShuttingDown),
        }
    }
}

fn report(node: &Node, updated: &[Arc<Model>], removed: &[String]) -> WatchModelsResponse {
    WatchModelsResponse {
        updated: updated
            .iter()
            .map(|model| message::model(node, model))
            .collect(),
        removed: removed.to_vec(),
    }
}
