//! No descriptor is left behind. Alone in its process, because it counts them all.
#![allow(
    clippy::unwrap_used,
    reason = "clippy takes only `#[test]` functions for tests"
)]

mod common;

use std::fs::File;
use std::sync::Arc;

use common::book::{Book, Daemon, Note, patient};
use common::descriptor_count;
use common::raw::Raw;
use weights::handoff::frame::Frame;
use weights::handoff::{AcceptError, HandoffServer, LeaseBook, accept};

#[test]
fn a_thousand_leases_and_as_many_refusals_leave_no_descriptor() {
    let daemon = Daemon::start(Book::reading());
    let file = File::open(&daemon.model).unwrap();
    let one_lease = |lease_id: u64| {
        let weights = daemon.accept();
        assert!(weights.lease_held());
        drop(weights);
        daemon.book.wait_for(&Note::Released(lease_id));
    };
    let refusals = || {
        assert!(matches!(
            accept(&daemon.socket(), b"wrong", patient()),
            Err(AcceptError::Refused(_))
        ));
        for count in [1, 32, 33, 200] {
            let peer = Raw::connect(&daemon.socket());
            peer.send(
                &Frame::Hello {
                    token: b"token".to_vec(),
                }
                .encode(),
                &vec![&file; count],
            );
            while peer.receive().is_some() {}
        }
    };
    one_lease(1);
    refusals();
    let before = settled_count(&daemon.server);
    (2..=1001).for_each(one_lease);
    (0..200).for_each(|_| refusals());
    assert_eq!(settled_count(&daemon.server), before);
    let Daemon {
        server,
        weights,
        dir,
        ..
    } = daemon;
    let with_server = descriptor_count();
    server.shutdown();
    assert_eq!(descriptor_count(), with_server - 1);
    let again = HandoffServer::bind(
        &dir.path().join("handoff"),
        Book::reading() as Arc<dyn LeaseBook>,
        weights::handoff::HandoffLimits::NODE,
    )
    .unwrap();
    again.shutdown();
    drop(weights);
}

/// Descriptors once the server's threads have put theirs down, which they do right after the peer hears of it.
fn settled_count(server: &HandoffServer) -> usize {
    while server.connection_count() > 0 {
        std::thread::yield_now();
    }
    descriptor_count()
}
