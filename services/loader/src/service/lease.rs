//! `AcquireLease` and `ReleaseLease`.

use std::sync::Arc;

use proto::loader::v1;
use tonic::Extensions;
use tracing::field::Empty;

use super::{Service, blocking};
use crate::{
    error::Error,
    id::ModelId,
    lease::Full,
    node::{Leased, Tally},
    peer::Peer,
    registry::Model,
    scan,
    token::Token,
};

const CLIENT_CHARS_MAX: usize = 128;

// === impl Service ===

impl Service {
    pub(super) async fn acquire(
        &self,
        extensions: &Extensions,
        request: v1::AcquireLeaseRequest,
    ) -> Result<v1::AcquireLeaseResponse, Error> {
        if request.client.chars().count() > CLIENT_CHARS_MAX {
            return Err(Error::BadField {
                field: "client",
                rule: "at most 128 characters",
            });
        }
        let peer = extensions.get().copied().unwrap_or(Peer::Unknown);
        let model = self.node.registry.get(&request.model)?;
        let subject = model.subject()?;
        self.check_unchanged(Arc::clone(&model)).await?;

        let token = self.node.tokens.next().map_err(|source| Error::System {
            doing: "drawing a lease token",
            source,
        })?;
        let generation = subject.generation;
        let leased = Leased {
            span: tracing::info_span!(
                "lease",
                model = model.id,
                client = request.client,
                %peer,
                cold_bytes = Empty,
                warm_bytes = Empty,
                unknown_bytes = Empty
            ),
            model,
            subject,
            tally: Tally::default(),
        };
        self.offer(token, peer, leased)?;
        let time_to_live = self.lease_ttl.try_into().ok();
        Ok(v1::AcquireLeaseResponse {
            token: token.as_bytes().to_vec(),
            handoff_socket: self.handoff_name.clone(),
            time_to_live,
            generation,
        })
    }

    fn offer(&self, token: Token, peer: Peer, leased: Leased) -> Result<(), Error> {
        let id = ModelId::parse(&leased.model.id)
            .expect("a file whose name is no id is never available");
        let mut leases = self.node.leases();
        let now = leases.now;
        leases
            .table
            .offer(token, peer, id, leased, now)
            .map_err(|full| match full {
                Full::Total { limit } => Error::TooMany {
                    what: "leases",
                    limit,
                },
                Full::PerPeer { limit } => Error::TooMany {
                    what: "leases of one peer",
                    limit,
                },
            })?;
        drop(leases);
        self.node.lease_offered.notify_one();
        Ok(())
    }

    /// Refuses a model whose files are not what the list says. The list will say so soon, too.
    async fn check_unchanged(&self, model: Arc<Model>) -> Result<(), Error> {
        let node = Arc::clone(&self.node);
        let listed = Arc::clone(&model);
        if blocking(move || scan::unchanged(&node.models, &listed.files)).await? {
            return Ok(());
        }
        self.node.look.notify_one();
        Err(Error::Changed {
            model: model.id.clone(),
        })
    }

    pub(super) async fn release(&self, token: &[u8]) -> Result<v1::ReleaseLeaseResponse, Error> {
        let token = Token::from_bytes(token).ok_or(Error::UnknownLease)?;
        let ended = self.node.leases().table.release(&token);
        let (id, lease) = ended.ok_or(Error::UnknownLease)?;
        let node = Arc::clone(&self.node);
        blocking(move || node.lease_ended(id, lease)).await?;
        Ok(v1::ReleaseLeaseResponse {})
    }
}
