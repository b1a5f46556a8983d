//! The daemon's side of the hand-off socket.

use std::{ops::ControlFlow, sync::Arc};

use gguf::ExtentId;
use weights::{
    Fetched,
    handoff::{FetchFailure, Grant, LeaseBook, PeerCredentials, Refusal},
};

use crate::{
    cache::Subject,
    lease::{LeaseId, NotRedeemed},
    node::Node,
    readers::{Refused, Urgency},
    scan,
    token::Token,
};

/// Lets hand-off connections at the leases. Called on the hand-off server's threads, which may block.
#[derive(Debug)]
pub(crate) struct Book(pub Arc<Node>);

// === impl Book ===

impl LeaseBook for Book {
    fn redeem(&self, token: &[u8], peer: PeerCredentials) -> Result<Grant, Refusal> {
        let node = &self.0;
        if node.is_stopping() {
            return Err(Refusal::ShuttingDown);
        }
        let token = Token::from_bytes(token).ok_or(Refusal::UnknownToken)?;
        let (id, model, subject) = {
            let mut leases = node.leases();
            let (id, lease) =
                leases
                    .table
                    .redeem(&token, peer.uid)
                    .map_err(|refused| match refused {
                        NotRedeemed::Unknown => Refusal::UnknownToken,
                        NotRedeemed::OtherUser => Refusal::NotPermitted,
                    })?;
            (
                id,
                Arc::clone(&lease.subject.model),
                lease.subject.subject.clone(),
            )
        };
        if !scan::unchanged(&node.models, &model.files) {
            node.look.notify_one();
            self.released(id.0);
            return Err(Refusal::Changed);
        }
        tracing::info!(
            model = model.id,
            lease = id.0,
            pid = peer.pid,
            uid = peer.uid,
            "descriptors handed over"
        );
        Ok(Grant {
            weights: subject.weights,
            generation: subject.generation,
            lease_id: id.0,
        })
    }

    fn fetch(&self, lease_id: u64, extent: ExtentId) -> Result<Fetched, FetchFailure> {
        let lease = LeaseId(lease_id);
        let subject = self.subject(lease).ok_or(FetchFailure::LeaseEnded)?;
        // Held before it is read, so that no budget drops it in between.
        self.0.cache.hold(lease, &subject, extent);
        let outcome = self.read(subject.clone(), extent);
        match outcome {
            Ok(fetched) => {
                if let Some(lease) = self.0.leases().table.held(lease) {
                    lease.subject.tally.add(fetched);
                }
            }
            Err(_) => self.0.cache.let_go(lease, &subject, extent),
        }
        outcome
    }

    fn dropped(&self, lease_id: u64, extent: ExtentId) {
        let lease = LeaseId(lease_id);
        if let Some(subject) = self.subject(lease) {
            self.0.cache.let_go(lease, &subject, extent);
        }
    }

    fn released(&self, lease_id: u64) {
        let id = LeaseId(lease_id);
        let lease = self.0.leases().table.disconnect(id);
        if let Some(lease) = lease {
            self.0.lease_ended(id, lease);
        }
    }
}

impl Book {
    fn subject(&self, lease: LeaseId) -> Option<Subject> {
        self.0
            .leases()
            .table
            .held(lease)
            .map(|lease| lease.subject.subject.clone())
    }

    /// Has a reader thread read an extent, and waits for it.
    fn read(&self, subject: Subject, extent: ExtentId) -> Result<Fetched, FetchFailure> {
        let node = Arc::clone(&self.0);
        let job = move || node.read_extent(&subject, extent, &mut |_| ControlFlow::Continue(()));
        let outcome =
            self.0
                .readers
                .submit(Urgency::Now, job)
                .map_err(|refused| match refused {
                    // The service reads for itself then, which is what should happen when we cannot keep up.
                    Refused::Full => FetchFailure::Io,
                    Refused::Closed => FetchFailure::ShuttingDown,
                })?;
        match outcome.blocking_recv() {
            Ok(outcome) => outcome.map_err(|error| FetchFailure::from(&error)),
            Err(_) if self.0.is_stopping() => Err(FetchFailure::ShuttingDown),
            Err(_) => Err(FetchFailure::Io),
        }
    }
}
