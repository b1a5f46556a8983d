//! The hand-off between two ends that keep to the protocol.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "clippy takes only `#[test]` functions for tests"
)]

mod common;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use common::book::{Book, Daemon, LONG, Note, patient};
use common::raw::Raw;
use common::{
    assert_bytes, extents, len_bytes, make_cold, mapped_rss, model, nearly, was_cold, was_warm,
};
use gguf::ExtentId;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use weights::accounting::measure;
use weights::handoff::frame::Frame;
use weights::handoff::{
    AcceptError, FetchFailure, HandoffLimits, HandoffServer, LeaseBook, Refusal, accept,
};
use weights::source::Source;
use weights::{Fetched, Weights};

/// Set in a process that this test binary starts of itself.
const CHILD: &str = "WEIGHTS_TEST_CHILD";

#[test]
fn a_client_fetches_through_the_daemon_and_reads_nothing_itself() {
    let daemon = Daemon::start(Book::reading());
    let weights = daemon.accept();
    assert!(weights.lease_held());
    assert_eq!(
        (
            weights.generation(),
            weights.identity(),
            weights.directory_hash()
        ),
        (
            Some(41),
            daemon.weights.identity(),
            daemon.weights.directory_hash()
        )
    );
    for extent in extents(&weights) {
        let len = len_bytes(&weights, extent);
        let (cold, own) = measure(|| weights.fetch(extent).unwrap());
        assert!(
            nearly(len - own.known_bytes().min(len), len),
            "{own:?} by ourselves"
        );
        assert!(was_cold(cold, len) && !cold.self_read, "{cold:?} of {len}");
        let warm = weights.fetch(extent).unwrap();
        assert!(was_warm(warm, len) && !warm.self_read, "{warm:?} of {len}");
        assert_bytes(&weights, extent);
    }
    assert_eq!(mapped_rss(&daemon.weights, 0), 0, "the daemon maps nothing");
    weights.evict(ExtentId(2));
    daemon.book.wait_for(&Note::Dropped(1, ExtentId(2)));
    drop(weights);
    daemon.book.wait_for(&Note::Released(1));
    let peer = daemon
        .book
        .notes()
        .into_iter()
        .find_map(|note| {
            if let Note::Redeemed(peer) = note {
                Some(peer)
            } else {
                None
            }
        })
        .unwrap();
    assert_eq!(
        (peer.pid.cast_unsigned(), peer.uid),
        (std::process::id(), nix::unistd::geteuid().as_raw())
    );
}

#[test]
fn opening_over_the_socket_reads_the_header_alone() {
    let daemon = Daemon::start(Book::reading());
    make_cold(&daemon.model);
    let weights = daemon.accept();
    assert_eq!(daemon.weights.residency().unwrap().resident_bytes, 0);
    assert_eq!(mapped_rss(&weights, 0), 0);
}

#[test]
fn tokens_work_once_and_others_never() {
    let daemon = Daemon::start(Book::reading());
    let refused = |token: &[u8]| {
        matches!(
            accept(&daemon.socket(), token, patient()),
            Err(AcceptError::Refused(Refusal::UnknownToken))
        )
    };
    assert!(refused(b"never issued"));
    let weights = daemon.accept();
    assert!(refused(b"token"));
    assert!(matches!(
        accept(&daemon.socket(), b"", patient()),
        Err(AcceptError::TokenLength { len: 0 })
    ));
    assert!(matches!(
        accept(&daemon.socket(), &[7; 257], patient()),
        Err(AcceptError::TokenLength { len: 257 })
    ));
    let nobody = accept(&daemon.dir.path().join("nowhere"), b"token", patient()).unwrap_err();
    assert!(matches!(nobody, AcceptError::Connect { .. }), "{nobody}");
    drop(weights);
    daemon.book.wait_for(&Note::Released(1));
}

#[test]
fn fetches_of_one_connection_run_at_once() {
    let (running, changed) = (Mutex::new(0), Condvar::new());
    let book = Book::new(move |weights, extent| {
        let mut running = running.lock().unwrap();
        *running += 1;
        changed.notify_all();
        let (_running, timeout) = changed
            .wait_timeout_while(running, LONG / 2, |running| *running < 4)
            .unwrap();
        if timeout.timed_out() {
            return Err(FetchFailure::Io);
        }
        Ok(Fetched {
            warm_bytes: weights.directory().extent(extent).len_bytes,
            ..Fetched::default()
        })
    });
    let daemon = Daemon::start(book);
    let weights = daemon.accept();
    thread::scope(|scope| {
        for extent in extents(&weights) {
            let weights = &weights;
            scope.spawn(move || assert!(!weights.fetch(extent).unwrap().self_read));
        }
    });
}

#[test]
fn bytes_that_the_daemon_called_warm_and_that_we_had_to_read_are_cold() {
    let book = Book::new(|weights, extent| {
        Ok(Fetched {
            warm_bytes: weights.directory().extent(extent).len_bytes,
            ..Fetched::default()
        })
    });
    let daemon = Daemon::start(book);
    let weights = daemon.accept();
    let fetched = weights.fetch(ExtentId(0)).unwrap();
    assert!(
        was_cold(fetched, 4 << 20) && !fetched.self_read,
        "{fetched:?}"
    );
}

#[test]
fn what_the_daemon_cannot_fetch_the_client_reads() {
    let daemon = Daemon::start(Book::new(|_, _| Err(FetchFailure::Io)));
    let weights = daemon.accept();
    let fetched = weights.fetch(ExtentId(0)).unwrap();
    assert!(
        was_cold(fetched, 4 << 20) && fetched.self_read,
        "{fetched:?}"
    );
    assert!(weights.lease_held());
    assert_bytes(&weights, ExtentId(0));
}

#[test]
fn a_client_that_is_killed_leaves_no_lease() {
    if let Some(socket) = std::env::var_os(CHILD) {
        let weights = accept(socket.as_ref(), b"token", patient()).unwrap();
        let fetched = weights.fetch(ExtentId(0)).unwrap();
        println!(
            "fetched {} {} {}",
            fetched.cold_bytes, fetched.warm_bytes, fetched.self_read
        );
        // Waits to be killed.
        let _ = std::io::stdin().lines().next();
        return;
    }
    let daemon = Daemon::start(Book::reading());
    daemon.book.issue(b"token", &daemon.weights);
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args([
        "--exact",
        "a_client_that_is_killed_leaves_no_lease",
        "--nocapture",
    ]);
    child
        .env(CHILD, daemon.socket())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    if nix::unistd::geteuid().is_root() {
        // As another user than the file's owner; the daemon's accounting does not change by it.
        std::fs::set_permissions(daemon.socket(), PermissionsExt::from_mode(0o666)).unwrap();
        std::fs::set_permissions(daemon.dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        child.uid(65_534).gid(65_534);
    }
    let mut child = child.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let report = lines
        .map(|line| line.unwrap())
        .find(|line| line.contains("fetched"))
        .unwrap();
    assert!(report.ends_with("fetched 4194304 0 false"), "{report}");
    child.kill().unwrap();
    daemon.book.wait_for(&Note::Released(1));
    child.wait().unwrap();
}

#[test]
fn one_connection_too_many_is_told_so() {
    let daemon = Daemon::start_with(
        Book::reading(),
        HandoffLimits {
            max_connections: 1,
            ..HandoffLimits::NODE
        },
    );
    let weights = daemon.accept();
    daemon.book.issue(b"second", &daemon.weights);
    assert!(matches!(
        accept(&daemon.socket(), b"second", patient()),
        Err(AcceptError::Refused(Refusal::Busy))
    ));
    drop(weights);
    daemon.book.wait_for(&Note::Released(1));
}

#[test]
fn a_peer_that_presents_nothing_is_dropped_in_time() {
    let limits = HandoffLimits {
        peer_timeout: Duration::from_millis(50),
        ..HandoffLimits::NODE
    };
    let daemon = Daemon::start_with(Book::reading(), limits);
    assert_eq!(Raw::connect(&daemon.socket()).receive_frame(), None);
}

#[test]
fn a_socket_file_is_replaced_only_if_nobody_listens() {
    let daemon = Daemon::start(Book::reading());
    let path = daemon.socket();
    let bind = |path: &std::path::Path| {
        HandoffServer::bind(
            path,
            Arc::clone(&daemon.book) as Arc<dyn LeaseBook>,
            HandoffLimits::NODE,
        )
    };
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o660);
    assert_eq!(
        bind(&path).unwrap_err().kind(),
        std::io::ErrorKind::AddrInUse
    );
    assert_eq!(
        bind(&daemon.model).unwrap_err().kind(),
        std::io::ErrorKind::AlreadyExists
    );
    let stale = daemon.dir.path().join("stale");
    drop(common::raw::listen_at(&stale));
    let server = bind(&stale).unwrap();
    daemon.book.issue(b"token", &daemon.weights);
    drop(accept(&stale, b"token", patient()).unwrap());
    server.shutdown();
    assert!(!stale.exists());
}

#[test]
fn shutting_down_ends_leases_and_clients_go_on() {
    let Daemon {
        dir: _dir,
        model: _,
        weights: served,
        book,
        server,
    } = Daemon::start(Book::reading());
    book.issue(b"token", &served);
    let socket = _dir.path().join("handoff");
    let (lost, hears) = std::sync::mpsc::channel();
    let on_lost = Box::new(move || lost.send(()).unwrap());
    let weights = Arc::new(
        accept(
            &socket,
            b"token",
            weights::handoff::AcceptOptions {
                fetch_timeout: LONG,
                on_lost: Some(on_lost),
            },
        )
        .unwrap(),
    );
    weights.fetch(ExtentId(0)).unwrap();
    server.shutdown();
    hears.recv_timeout(LONG).unwrap();
    assert_eq!(book.notes().last(), Some(&Note::Released(1)));
    assert!(!weights.lease_held() && !socket.exists());
    assert!(weights.fetch(ExtentId(3)).unwrap().self_read);
    assert_bytes(&weights, ExtentId(3));

    let server = HandoffServer::bind(
        &socket,
        Arc::clone(&book) as Arc<dyn LeaseBook>,
        HandoffLimits::NODE,
    )
    .unwrap();
    assert!(matches!(
        weights.reattach(&socket, b"token"),
        Err(AcceptError::Refused(Refusal::UnknownToken))
    ));
    book.issue(b"again", &served);
    weights.reattach(&socket, b"again").unwrap();
    assert!(weights.lease_held());
    assert_eq!(weights.generation(), Some(42));
    assert!(!weights.fetch(ExtentId(2)).unwrap().self_read);
    drop(weights);
    book.wait_for(&Note::Released(2));
    assert!(hears.try_recv().is_err(), "a lease that we end is not lost");
    server.shutdown();
}

#[test]
fn only_the_same_model_is_attached_again() {
    let daemon = Daemon::start(Book::reading());
    let weights = daemon.accept();
    let (_other_dir, other) = model();
    daemon
        .book
        .issue(b"other", &Arc::new(Weights::open(&other).unwrap()));
    assert!(matches!(
        weights.reattach(&daemon.socket(), b"other"),
        Err(AcceptError::Mismatch { what: "files" })
    ));
    assert!(weights.lease_held(), "the old lease is still there");
    assert!(matches!(
        daemon.weights.reattach(&daemon.socket(), b"any"),
        Err(AcceptError::NoLease)
    ));
    File::open(&daemon.model)
        .unwrap()
        .set_permissions(PermissionsExt::from_mode(0o640))
        .unwrap();
    daemon.book.issue(b"changed", &daemon.weights);
    assert!(matches!(
        accept(&daemon.socket(), b"changed", patient()),
        Err(AcceptError::Refused(Refusal::Changed))
    ));
}

#[test]
fn what_a_client_does_to_its_descriptors_does_not_reach_the_daemon() {
    let daemon = Daemon::start(Book::reading());
    daemon.book.issue(b"token", &daemon.weights);
    let peer = Raw::connect(&daemon.socket());
    peer.send_frame(&Frame::Hello {
        token: b"token".to_vec(),
    });
    assert!(matches!(
        peer.receive_frame(),
        Some(Frame::Offer { file_count: 1, .. })
    ));
    let (message, files) = peer.receive().unwrap();
    assert!(matches!(Frame::decode(&message), Ok(Frame::Files(entries)) if entries.len() == 1));
    fcntl(
        &files[0],
        FcntlArg::F_SETFL(OFlag::O_DIRECT | OFlag::O_APPEND),
    )
    .unwrap();
    assert!(fcntl(&files[0], FcntlArg::F_GETFD).unwrap() & libc::FD_CLOEXEC != 0);
    assert!(
        std::io::Write::write(&mut &files[0], b"x").is_err(),
        "descriptors are read-only"
    );
    // A direct read of this place and length fails; a cached one does not.
    assert_eq!(daemon.weights.read_at(0, 3, &mut [0; 5]).unwrap(), 5);
}
