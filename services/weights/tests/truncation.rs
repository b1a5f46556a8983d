//! Files that change under a mapping.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "clippy takes only `#[test]` functions for tests"
)]

mod common;

use std::fs::{File, OpenOptions};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use common::{len_bytes, model, open_cold};
use gguf::ExtentId;
use weights::{FetchError, Weights};

/// Set in a process that this test binary starts of itself.
const CHILD: &str = "WEIGHTS_TEST_CHILD";

fn shrink(path: &std::path::Path, len: u64) {
    OpenOptions::new()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(len)
        .unwrap();
}

#[test]
fn a_fetch_of_what_is_gone_is_an_error_with_the_lengths() {
    let (_dir, path) = model();
    let weights = open_cold(&path);
    weights.fetch(ExtentId(3)).unwrap();
    let end = weights.directory().extent(ExtentId(3)).range().end;
    shrink(&path, end - 1);
    for result in [
        weights.fetch(ExtentId(3)),
        weights.read_extent(ExtentId(3), &mut |_| std::ops::ControlFlow::Continue(())),
    ] {
        assert!(
            matches!(result, Err(FetchError::Truncated { split: 0, need_bytes, file_bytes }) if need_bytes == end && file_bytes == end - 1),
            "{result:?}"
        );
    }
    assert!(matches!(
        weights.fetch(ExtentId(0)),
        Err(FetchError::Changed { split: 0 })
    ));
    assert!(!weights.poisoned());
}

#[test]
fn a_file_that_was_rewritten_is_an_error_and_one_that_was_replaced_is_not() {
    let (dir, path) = model();
    let weights = open_cold(&path);
    std::fs::rename(&path, dir.path().join("renamed.gguf")).unwrap();
    weights.fetch(ExtentId(1)).unwrap();
    std::fs::remove_file(dir.path().join("renamed.gguf")).unwrap();
    weights.fetch(ExtentId(1)).unwrap();

    let (_dir, path) = model();
    let weights = open_cold(&path);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH)
        .unwrap();
    assert!(matches!(
        weights.fetch(ExtentId(1)),
        Err(FetchError::Changed { split: 0 })
    ));
}

#[test]
fn a_direct_touch_of_what_is_gone_reads_zeros_and_poisons() {
    let (_dir, path) = model();
    let (_other_dir, other_path) = model();
    let weights = open_cold(&path);
    let other = open_cold(&other_path);
    weights.fetch(ExtentId(0)).unwrap();
    let view = weights.view(ExtentId(3));
    let start = weights.directory().extent(ExtentId(3)).offset_bytes;
    shrink(&path, start);
    assert!(!weights.poisoned());
    // The first whole page of the extent is beyond the end of the file now.
    let bytes = &view.as_ref()[4096..];
    assert_eq!(bytes.iter().map(|&byte| u64::from(byte)).sum::<u64>(), 0);
    assert!(weights.poisoned() && !other.poisoned());
    assert!(matches!(
        weights.fetch(ExtentId(3)),
        Err(FetchError::Poisoned { split: 0 })
    ));
    assert_eq!(
        weights.view(ExtentId(0)).as_ref().len() as u64,
        len_bytes(&weights, ExtentId(0))
    );
    assert_eq!(
        weights.view(ExtentId(0)).as_ref()[0],
        common::pattern(weights.directory().extent(ExtentId(0)).offset_bytes)
    );
    other.fetch(ExtentId(3)).unwrap();
    drop((view, weights));
    assert!(
        !Weights::open(&other_path).unwrap().poisoned(),
        "a place in the table that is used again starts clean"
    );
}

#[test]
fn a_signal_that_is_not_ours_still_ends_the_process() {
    if let Some(before) = std::env::var_os(CHILD) {
        if before == "default" {
            forget_the_standard_library_s_handler();
        }
        let (_dir, path) = model();
        let _weights = open_cold(&path);
        touch_beyond_a_foreign_mapping();
        return;
    }
    for before in ["standard library", "default"] {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child
            .args([
                "--exact",
                "a_signal_that_is_not_ours_still_ends_the_process",
            ])
            .env(CHILD, before)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        assert_eq!(
            child.status().unwrap().signal(),
            Some(libc::SIGBUS),
            "{before}"
        );
    }
}

/// What a program without one would have.
fn forget_the_standard_library_s_handler() {
    // SAFETY: the default action of a signal needs nothing.
    #[expect(unsafe_code, reason = "setting a signal's action")]
    let before = unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
    assert_ne!(before, libc::SIG_ERR);
}

/// A mapping that the table does not know, of a file that has shrunk.
fn touch_beyond_a_foreign_mapping() {
    let file: File = tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    file.set_len(8192).unwrap();
    // SAFETY: what makes this unsound is what the test is about; the process ends at the read.
    #[expect(unsafe_code, reason = "a foreign mapping")]
    let map = unsafe { memmap2::MmapOptions::new().map(&file) }.unwrap();
    file.set_len(0).unwrap();
    std::hint::black_box(map[4096]);
}
