//! The daemon's end of the hand-off against clients that break the protocol.
#![allow(
    clippy::unwrap_used,
    reason = "clippy takes only `#[test]` functions for tests"
)]

mod common;

use std::fs::File;

use common::book::{Book, Daemon, Note};
use common::raw::{Raw, hello, of_version};
use gguf::ExtentId;
use weights::handoff::frame::{FRAME_BYTES_MAX, Frame};
use weights::handoff::{FetchFailure, Refusal};

#[test]
fn the_daemon_refuses_what_is_no_hand_shake() {
    let daemon = Daemon::start(Book::reading());
    let file = File::open(&daemon.model).unwrap();
    let check = |message: &[u8], files: &[&File]| {
        daemon.book.issue(b"token", &daemon.weights);
        let peer = Raw::connect(&daemon.socket());
        peer.send(message, files);
        assert_eq!(
            peer.receive_frame(),
            Some(Frame::Refused(Refusal::Protocol)),
            "{message:?}"
        );
        assert_eq!(peer.receive_frame(), None);
    };
    check(&of_version(2, &hello()), &[]);
    check(&of_version(0, &hello()), &[]);
    check(b"GET / HTTP/1.1", &[]);
    check(&[1], &[]);
    check(&vec![1; FRAME_BYTES_MAX + 1], &[]);
    check(
        &Frame::Fetch {
            request: 0,
            extent: ExtentId(0),
        }
        .encode(),
        &[],
    );
    check(&hello().encode(), &[&file]);
    check(&hello().encode(), &[&file; 40]);
    assert_eq!(daemon.book.notes(), vec![]);
    assert!(daemon.accept().lease_held(), "others are served as before");
}

#[test]
fn the_daemon_ends_leases_whose_holders_break_the_protocol() {
    let daemon = Daemon::start(Book::reading());
    let file = File::open(&daemon.model).unwrap();
    let mut lease_id = 0;
    let mut check = |message: &[u8], files: &[&File]| {
        daemon.book.issue(b"token", &daemon.weights);
        let peer = Raw::connect(&daemon.socket());
        peer.send_frame(&hello());
        assert!(matches!(peer.receive_frame(), Some(Frame::Offer { .. })));
        assert!(matches!(peer.receive_frame(), Some(Frame::Files(_))));
        peer.send(message, files);
        assert_eq!(peer.receive_frame(), None, "{message:?}");
        lease_id += 1;
        daemon.book.wait_for(&Note::Released(lease_id));
    };
    check(
        &Frame::Fetch {
            request: 0,
            extent: ExtentId(4),
        }
        .encode(),
        &[],
    );
    check(
        &Frame::Dropped {
            extent: ExtentId(u32::MAX),
        }
        .encode(),
        &[],
    );
    check(
        &Frame::Dropped {
            extent: ExtentId(0),
        }
        .encode(),
        &[&file],
    );
    check(&hello().encode(), &[]);
    check(
        &Frame::Failed {
            request: 0,
            failure: FetchFailure::Io,
        }
        .encode(),
        &[],
    );
    check(
        &of_version(
            2,
            &Frame::Dropped {
                extent: ExtentId(0),
            },
        ),
        &[],
    );
    check(&[1, 0, 99, 0], &[]);
    check(&vec![1; FRAME_BYTES_MAX + 1], &[]);
    assert!(
        !daemon
            .book
            .notes()
            .iter()
            .any(|note| matches!(note, Note::Dropped(..) | Note::Fetched(..)))
    );
}
