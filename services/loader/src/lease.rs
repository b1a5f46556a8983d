//! Leases: who may use which model, and until when.
//!
//! A lease begins as an offer with a one-time token. A hand-off connection that presents the token turns it into a held lease, which lives exactly as long as that connection and has no
//! token any more. A `ReadTensor` client presents the token with every call instead; each use puts the end off, and the offer cannot expire under a reader.
//!
//! Pure: the time is an argument, and what a lease is on is a type parameter.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use crate::{id::ModelId, peer::Peer, token::Token};

/// Number of a lease, never used twice.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct LeaseId(pub u64);

/// Bounds on leases.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeaseLimits {
    /// Most leases at a time.
    pub total: usize,
    /// Most leases of one peer.
    pub per_peer: usize,
    /// How long an offer lives that nobody uses.
    pub time_to_live: Duration,
}

/// Why there was no lease.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Full {
    /// All leases are taken.
    Total {
        /// How many there are.
        limit: usize,
    },
    /// This peer has its share.
    PerPeer {
        /// How large it is.
        limit: usize,
    },
}

/// Why a token was not accepted on the hand-off socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum NotRedeemed {
    /// Never issued, used up, or timed out.
    Unknown,
    /// It was issued to another user.
    OtherUser,
}

/// A lease.
#[derive(Debug)]
pub(crate) struct Lease<T> {
    /// The model.
    pub model: ModelId,
    /// Who acquired it.
    pub peer: Peer,
    /// What it is on.
    pub subject: T,
    state: State,
}

#[derive(Debug)]
enum State {
    Offered { expires_at: Instant, readers: usize },
    Held,
}

/// All leases.
#[derive(Debug)]
pub(crate) struct LeaseTable<T> {
    limits: LeaseLimits,
    leases: HashMap<LeaseId, Lease<T>>,
    tokens: HashMap<Token, LeaseId>,
    last: u64,
}

// === impl LeaseTable ===

impl<T> LeaseTable<T> {
    pub(crate) fn new(limits: LeaseLimits) -> LeaseTable<T> {
        LeaseTable {
            limits,
            leases: HashMap::new(),
            tokens: HashMap::new(),
            last: 0,
        }
    }

    /// Offers a lease under `token`. Offers that have timed out must have been taken out by [`LeaseTable::expire`].
    pub(crate) fn offer(
        &mut self,
        token: Token,
        peer: Peer,
        model: ModelId,
        subject: T,
        now: Instant,
    ) -> Result<LeaseId, Full> {
        if self.leases.len() >= self.limits.total {
            return Err(Full::Total {
                limit: self.limits.total,
            });
        }
        if self
            .leases
            .values()
            .filter(|lease| lease.peer == peer)
            .count()
            >= self.limits.per_peer
        {
            return Err(Full::PerPeer {
                limit: self.limits.per_peer,
            });
        }
        self.last += 1;
        let id = LeaseId(self.last);
        let state = State::Offered {
            expires_at: now + self.limits.time_to_live,
            readers: 0,
        };
        self.leases.insert(
            id,
            Lease {
                model,
                peer,
                subject,
                state,
            },
        );
        self.tokens.insert(token, id);
        Ok(id)
    }

    /// Gives the lease to a hand-off connection of user `uid` and uses its token up.
    ///
    /// A token presented by another user stays good: knowing it must not be enough to take it away.
    pub(crate) fn redeem(
        &mut self,
        token: &Token,
        uid: u32,
    ) -> Result<(LeaseId, &Lease<T>), NotRedeemed> {
        let id = *self.tokens.get(token).ok_or(NotRedeemed::Unknown)?;
        let lease = self.leases.get_mut(&id).ok_or(NotRedeemed::Unknown)?;
        if !lease.peer.may_pass_to(uid) {
            return Err(NotRedeemed::OtherUser);
        }
        lease.state = State::Held;
        self.tokens.remove(token);
        Ok((id, lease))
    }

    /// A reader starts to use an offered lease; [`LeaseTable::end_read`] must follow.
    pub(crate) fn begin_read(&mut self, token: &Token) -> Option<(LeaseId, &Lease<T>)> {
        let id = *self.tokens.get(token)?;
        let lease = self.leases.get_mut(&id)?;
        if let State::Offered { readers, .. } = &mut lease.state {
            *readers += 1;
        }
        Some((id, lease))
    }

    /// A reader is done. The lease may have been released or redeemed meanwhile.
    pub(crate) fn end_read(&mut self, id: LeaseId, now: Instant) {
        let later = now + self.limits.time_to_live;
        if let Some(Lease {
            state:
                State::Offered {
                    readers,
                    expires_at,
                    ..
                },
            ..
        }) = self.leases.get_mut(&id)
        {
            *readers = readers.saturating_sub(1);
            *expires_at = later;
        }
    }

    /// Ends an offered lease by its token.
    pub(crate) fn release(&mut self, token: &Token) -> Option<(LeaseId, Lease<T>)> {
        let id = self.tokens.remove(token)?;
        self.leases.remove(&id).map(|lease| (id, lease))
    }

    /// Ends a held lease: its connection is gone.
    pub(crate) fn disconnect(&mut self, id: LeaseId) -> Option<Lease<T>> {
        let held = self
            .leases
            .get(&id)
            .is_some_and(|lease| matches!(lease.state, State::Held));
        if held { self.leases.remove(&id) } else { None }
    }

    /// Ends the offers that have timed out.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<(LeaseId, Lease<T>)> {
        let due = |lease: &Lease<T>| lease.due().is_some_and(|at| at <= now);
        let ended: HashSet<LeaseId> = self
            .leases
            .iter()
            .filter(|(_, lease)| due(lease))
            .map(|(id, _)| *id)
            .collect();
        self.tokens.retain(|_, id| !ended.contains(id));
        ended
            .into_iter()
            .filter_map(|id| Some((id, self.leases.remove(&id)?)))
            .collect()
    }

    /// When [`LeaseTable::expire`] will next have something to do, as things stand.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.leases.values().filter_map(Lease::due).min()
    }

    /// The lease with this number, if a connection holds it.
    pub(crate) fn held(&self, id: LeaseId) -> Option<&Lease<T>> {
        self.leases
            .get(&id)
            .filter(|lease| matches!(lease.state, State::Held))
    }

    /// Leases on a model, of whatever content.
    pub(crate) fn count(&self, model: &ModelId) -> usize {
        self.leases
            .values()
            .filter(|lease| lease.model == *model)
            .count()
    }

    /// All leases.
    pub(crate) fn len(&self) -> usize {
        self.leases.len()
    }
}

// === impl Lease ===

impl<T> Lease<T> {
    fn due(&self) -> Option<Instant> {
        match self.state {
            State::Offered {
                expires_at,
                readers: 0,
                ..
            } => Some(expires_at),
            State::Offered { .. } | State::Held => None,
        }
    }
}

#[cfg(test)]
mod tests;
