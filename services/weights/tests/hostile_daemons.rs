//! The client's end of the hand-off against daemons that break the protocol, fall silent or vanish.
#![allow(
    clippy::unwrap_used,
    reason = "clippy takes only `#[test]` functions for tests"
)]

mod common;

use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use common::book::{LONG, patient};
use common::raw::{Raw, entry, entry_of, grant, hello, listen_at, of_version, offer};
use common::{assert_bytes, model, open_cold, was_cold};
use gguf::ExtentId;
use tempfile::TempDir;
use weights::handoff::frame::{FRAME_BYTES_MAX, FileEntry, Frame};
use weights::handoff::{AcceptError, AcceptOptions, FetchFailure, accept};
use weights::{OpenError, Weights};

/// A listening socket, a model, and the thread that plays the daemon on it.
struct Impostor {
    dir: TempDir,
    model: PathBuf,
    weights: Arc<Weights>,
    listener: UnixListener,
}

impl Impostor {
    fn new() -> Impostor {
        let (dir, model) = model();
        let weights = open_cold(&model);
        let listener = listen_at(&dir.path().join("handoff"));
        Impostor {
            dir,
            model,
            weights,
            listener,
        }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("handoff")
    }

    /// What a client makes of a daemon that says this, once it has said hello.
    fn answered(&self, timeout: Duration, say: impl FnOnce(&Raw) + Send) -> AcceptError {
        thread::scope(|scope| {
            scope.spawn(|| {
                let peer = Raw::accept(&self.listener);
                assert_eq!(peer.receive_frame(), Some(hello()));
                say(&peer);
                // Until the client has made up its mind.
                while peer.receive().is_some() {}
            });
            accept(
                &self.socket(),
                b"token",
                AcceptOptions {
                    fetch_timeout: timeout,
                    on_lost: None,
                },
            )
            .unwrap_err()
        })
    }

    fn offered(&self, entries: Vec<FileEntry>, files: &[&File]) -> AcceptError {
        self.answered(LONG, |peer| {
            peer.send_frame(&offer(&self.weights));
            peer.send(&Frame::Files(entries).encode(), files);
        })
    }

    fn lease(&self, options: AcceptOptions) -> (Arc<Weights>, Raw) {
        thread::scope(|scope| {
            let peer = scope.spawn(|| grant(&self.listener, &self.weights, &self.model));
            let weights = accept(&self.socket(), b"token", options).unwrap();
            (Arc::new(weights), peer.join().unwrap())
        })
    }
}

#[test]
fn a_client_names_both_versions() {
    let impostor = Impostor::new();
    let error = impostor.answered(LONG, |peer| {
        peer.send(&of_version(7, &offer(&impostor.weights)), &[])
    });
    assert!(matches!(error, AcceptError::Version { ours: 1, theirs: 7 }));
    assert_eq!(
        error.to_string(),
        "the daemon speaks hand-off protocol 7, this program speaks 1"
    );
}

#[test]
fn a_client_refuses_offers_that_are_none() {
    let impostor = Impostor::new();
    let file = File::open(&impostor.model).unwrap();
    let honest = entry(&impostor.weights);
    let is_protocol = |error: AcceptError, words: &str| {
        assert!(
            matches!(&error, AcceptError::Protocol { what } if what.contains(words)),
            "{error}"
        );
    };
    is_protocol(
        impostor.answered(LONG, |peer| peer.send_frame(&hello())),
        "hand-shake",
    );
    is_protocol(
        impostor.answered(LONG, |peer| peer.send(&[1, 0, 77, 0], &[])),
        "kind 77",
    );
    is_protocol(
        impostor.answered(LONG, |peer| peer.send(&vec![1; FRAME_BYTES_MAX + 1], &[])),
        "longer than",
    );
    is_protocol(
        impostor.answered(LONG, |peer| {
            peer.send(&offer(&impostor.weights).encode(), &[&file])
        }),
        "1 descriptors where 0",
    );
    is_protocol(impostor.offered(vec![honest], &[]), "0 descriptors where 1");
    is_protocol(
        impostor.offered(vec![honest], &[&file, &file]),
        "2 descriptors where 1",
    );
    is_protocol(impostor.offered(vec![honest], &[&file; 33]), "cut off");
    is_protocol(
        impostor.offered(vec![honest; 2], &[&file, &file]),
        "2 files where 1",
    );
    let count = |file_count| Frame::Offer {
        generation: 1,
        directory_hash: [0; 32],
        file_count,
    };
    for file_count in [0, 1025, u16::MAX] {
        let error = impostor.answered(LONG, |peer| peer.send_frame(&count(file_count)));
        assert!(
            matches!(error, AcceptError::Open(OpenError::TooManyFiles { .. })),
            "{error}"
        );
    }
}

#[test]
fn a_client_refuses_descriptors_that_are_not_what_was_offered() {
    let impostor = Impostor::new();
    let model = &impostor.model;
    let honest = entry(&impostor.weights);
    let check = |entry, file: &File, words: &str| {
        let error = impostor.offered(vec![entry], &[file]);
        assert!(
            matches!(&error, AcceptError::Descriptor { index: 0, problem } if problem.contains(words)),
            "{error}"
        );
    };
    let reading_alone = "not open for reading alone";
    check(
        honest,
        &OpenOptions::new()
            .read(true)
            .write(true)
            .open(model)
            .unwrap(),
        reading_alone,
    );
    check(
        honest,
        &OpenOptions::new().write(true).open(model).unwrap(),
        reading_alone,
    );
    check(
        honest,
        &OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH)
            .open(model)
            .unwrap(),
        reading_alone,
    );
    check(
        honest,
        &OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECT)
            .open(model)
            .unwrap(),
        "page cache",
    );
    let (pipe, _writer) = std::io::pipe().unwrap();
    check(
        honest,
        &File::from(OwnedFd::from(pipe)),
        "not a regular file",
    );
    check(honest, &File::open("/").unwrap(), "not a regular file");
    let copy = impostor.dir.path().join("copy.gguf");
    std::fs::copy(model, &copy).unwrap();
    check(
        honest,
        &File::open(&copy).unwrap(),
        "not the file that was offered",
    );
    let mut older = honest;
    older.identity.mtime_ns -= 1;
    check(older, &File::open(model).unwrap(), "changed since");
}

#[test]
fn a_client_refuses_headers_that_are_not_what_was_offered() {
    let impostor = Impostor::new();
    let file = File::open(&impostor.model).unwrap();
    let other_hash = Frame::Offer {
        generation: 1,
        directory_hash: [9; 32],
        file_count: 1,
    };
    let error = impostor.answered(LONG, |peer| {
        peer.send_frame(&other_hash);
        peer.send(
            &Frame::Files(vec![entry(&impostor.weights)]).encode(),
            &[&file],
        );
    });
    assert!(
        matches!(error, AcceptError::Mismatch { what: "headers" }),
        "{error}"
    );
    let no_model = File::open("/proc/self/exe").unwrap();
    let error = impostor.offered(vec![entry_of(&no_model)], &[&no_model]);
    assert!(
        matches!(error, AcceptError::Open(OpenError::Parse { .. })),
        "{error}"
    );
    // The header's length is a hint: one that is too short or absurd costs a read more or less.
    for header_bytes in [0, 1, u64::MAX] {
        let hinted = FileEntry {
            header_bytes,
            ..entry(&impostor.weights)
        };
        thread::scope(|scope| {
            scope.spawn(|| {
                let peer = Raw::accept(&impostor.listener);
                peer.receive_frame().unwrap();
                peer.send_frame(&offer(&impostor.weights));
                peer.send(&Frame::Files(vec![hinted]).encode(), &[&file]);
                while peer.receive().is_some() {}
            });
            accept(&impostor.socket(), b"token", patient()).unwrap();
        });
    }
}

#[test]
fn a_daemon_that_falls_silent_or_vanishes_in_the_hand_shake_is_an_error_in_time() {
    let impostor = Impostor::new();
    let short = Duration::from_millis(50);
    let kind = |error| {
        if let AcceptError::Io(error) = error {
            error.kind()
        } else {
            panic!("{error}")
        }
    };
    assert_eq!(
        kind(impostor.answered(short, |_| ())),
        std::io::ErrorKind::TimedOut
    );
    assert_eq!(
        kind(impostor.answered(short, |peer| peer.send_frame(&offer(&impostor.weights)))),
        std::io::ErrorKind::TimedOut
    );
    let vanished = thread::scope(|scope| {
        scope.spawn(|| {
            let peer = Raw::accept(&impostor.listener);
            peer.receive_frame().unwrap();
            peer.send_frame(&offer(&impostor.weights));
        });
        accept(&impostor.socket(), b"token", patient()).unwrap_err()
    });
    assert_eq!(kind(vanished), std::io::ErrorKind::UnexpectedEof);
}

fn options(fetch_timeout: Duration) -> (AcceptOptions, Receiver<()>) {
    let (lost, hears) = channel();
    let on_lost = Box::new(move || lost.send(()).unwrap());
    (
        AcceptOptions {
            fetch_timeout,
            on_lost: Some(on_lost),
        },
        hears,
    )
}

#[test]
fn a_daemon_that_vanishes_in_a_fetch_is_replaced_by_own_reads() {
    let impostor = Impostor::new();
    let (options, hears) = options(LONG);
    let (weights, peer) = impostor.lease(options);
    thread::scope(|scope| {
        scope.spawn(move || {
            assert!(matches!(
                peer.receive_frame(),
                Some(Frame::Fetch {
                    request: 0,
                    extent: ExtentId(0)
                })
            ));
            drop(peer);
        });
        let fetched = weights.fetch(ExtentId(0)).unwrap();
        assert!(
            fetched.self_read && was_cold(fetched, 4 << 20),
            "{fetched:?}"
        );
    });
    hears.recv_timeout(LONG).unwrap();
    assert!(!weights.lease_held());
    assert!(weights.fetch(ExtentId(1)).unwrap().self_read);
    assert_bytes(&weights, ExtentId(0));
    assert_bytes(&weights, ExtentId(1));
    weights.evict(ExtentId(1));
}

#[test]
fn a_daemon_that_does_not_answer_is_waited_for_once() {
    let impostor = Impostor::new();
    let timeout = Duration::from_millis(300);
    let (options, hears) = options(timeout);
    let (weights, peer) = impostor.lease(options);
    let began = Instant::now();
    assert!(weights.fetch(ExtentId(0)).unwrap().self_read);
    assert!(began.elapsed() >= timeout);
    let began = Instant::now();
    assert!(weights.fetch(ExtentId(1)).unwrap().self_read);
    assert!(
        began.elapsed() < timeout,
        "one silence is not paid for twice"
    );
    assert!(weights.lease_held(), "a slow daemon is not a lost one");
    let Some(Frame::Fetch { request, .. }) = peer.receive_frame() else {
        panic!("no fetch")
    };
    // Too late, but a sign of life: the next fetch is asked for again. Until it has been heard the client reads for itself.
    peer.send_frame(&Frame::Failed {
        request,
        failure: FetchFailure::Io,
    });
    thread::scope(|scope| {
        scope.spawn(|| while weights.fetch(ExtentId(2)).unwrap().self_read {});
        let Some(Frame::Fetch {
            request,
            extent: ExtentId(2),
        }) = peer.receive_frame()
        else {
            panic!("no fetch")
        };
        peer.send_frame(&Frame::Fetched {
            request,
            cold_bytes: 0,
            warm_bytes: (1 << 20) + 36,
            unknown_bytes: 0,
        });
    });
    assert!(hears.try_recv().is_err());
}

#[test]
fn answers_that_cannot_be_true_end_the_lease() {
    let fetched = |request, bytes| Frame::Fetched {
        request,
        cold_bytes: bytes,
        warm_bytes: 0,
        unknown_bytes: 0,
    };
    let overflowing = Frame::Fetched {
        request: 0,
        cold_bytes: u64::MAX,
        warm_bytes: (4 << 20) + 1,
        unknown_bytes: 0,
    };
    let other = Frame::Dropped {
        extent: ExtentId(0),
    };
    for answer in [
        fetched(0, (4 << 20) - 1),
        fetched(1, 4 << 20),
        overflowing,
        other,
    ] {
        let impostor = Impostor::new();
        let (options, hears) = options(LONG);
        let (weights, peer) = impostor.lease(options);
        thread::scope(|scope| {
            scope.spawn(|| {
                peer.receive_frame().unwrap();
                peer.send_frame(&answer);
            });
            assert!(weights.fetch(ExtentId(0)).unwrap().self_read, "{answer:?}");
        });
        hears.recv_timeout(LONG).unwrap();
        assert!(!weights.lease_held());
        assert_eq!(peer.receive_frame(), None);
    }
}
