//! Fetching and evicting without a daemon, and the counts.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "clippy takes only `#[test]` functions for tests"
)]

mod common;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::{
    assert_bytes, at_least, extents, is_warm, len_bytes, make_cold, mapped_rss, model, nearly,
    open_cold, was_cold, was_warm,
};
use gguf::ExtentId;
use weights::accounting::Meter;
use weights::source::Source;
use weights::{FetchError, Piece, Weights};

fn go_on(_: Piece) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn a_cold_fetch_is_cold_and_a_second_one_is_warm() {
    let (_dir, path) = model();
    let weights = open_cold(&path);
    for extent in extents(&weights) {
        let len = len_bytes(&weights, extent);
        let cold = weights.fetch(extent).unwrap();
        assert!(was_cold(cold, len) && cold.self_read, "{cold:?} of {len}");
        let warm = weights.fetch(extent).unwrap();
        assert!(was_warm(warm, len) && warm.self_read, "{warm:?} of {len}");
        assert_bytes(&weights, extent);
    }
    assert!(is_warm(&weights));
}

#[test]
fn the_cold_bytes_of_a_load_are_the_pages_that_came_in() {
    let (_dir, path) = model();
    let weights = open_cold(&path);
    let cold: u64 = extents(&weights)
        .into_iter()
        .map(|extent| weights.fetch(extent).unwrap().cold_bytes)
        .sum();
    let pages = weights.residency().unwrap().total_bytes;
    assert!(is_warm(&weights));
    assert!(
        cold.abs_diff(pages) * 100 <= pages,
        "{cold} cold bytes, {pages} bytes of pages"
    );
}

#[test]
fn one_extent_brings_in_its_own_pages_alone() {
    let (_dir, path) = model();
    let weights = open_cold(&path);
    let fetched = weights.fetch(ExtentId(3)).unwrap();
    let range = weights.directory().extent(ExtentId(3)).range();
    let pages = range.end.next_multiple_of(4096) - range.start / 4096 * 4096;
    assert_eq!(fetched.cold_bytes, len_bytes(&weights, ExtentId(3)));
    for bytes in [
        weights.residency().unwrap().resident_bytes,
        mapped_rss(&weights, 0),
    ] {
        assert!(nearly(bytes, pages), "{bytes} of {pages}");
    }
}

#[test]
fn a_touched_byte_brings_in_its_page_alone() {
    let (_dir, path) = model();
    let weights = open_cold(&path);
    let view = weights.view(ExtentId(0));
    assert_eq!(
        view.as_ref()[1 << 20],
        common::pattern(weights.directory().extent(ExtentId(0)).offset_bytes + (1 << 20))
    );
    assert!(weights.residency().unwrap().resident_bytes <= 4096);
}

#[test]
fn evicting_empties_our_page_tables_and_views_stay_valid() {
    let (_dir, path) = model();
    let weights = open_cold(&path);
    let view = weights.view(ExtentId(0));
    let before = mapped_rss(&weights, 0);
    weights.fetch(ExtentId(0)).unwrap();
    let len = len_bytes(&weights, ExtentId(0));
    let mapped = mapped_rss(&weights, 0) - before;
    assert!(at_least(mapped, len), "{mapped} bytes are mapped");
    weights.evict(ExtentId(0));
    assert!(
        mapped_rss(&weights, 0) <= before + 2 * 4096,
        "{} bytes stay mapped",
        mapped_rss(&weights, 0)
    );
    assert!(
        at_least(weights.residency().unwrap().resident_bytes, len),
        "the page cache keeps them"
    );
    let start = weights.directory().extent(ExtentId(0)).offset_bytes;
    drop(weights);
    assert_eq!(view.as_ref()[5], common::pattern(start + 5));
    assert_eq!(
        (view.extent(), view.weights().poisoned()),
        (ExtentId(0), false)
    );
}

#[test]
fn the_daemons_reads_fill_the_page_cache_and_no_page_tables() {
    let (_dir, path) = model();
    let weights = open_cold(&path);
    for extent in extents(&weights) {
        let len = len_bytes(&weights, extent);
        let mut pieces = Vec::new();
        let cold = weights
            .read_extent(extent, &mut |piece| {
                pieces.push(piece);
                go_on(piece)
            })
            .unwrap();
        assert!(was_cold(cold, len) && !cold.self_read, "{cold:?} of {len}");
        assert_eq!(pieces.iter().map(|piece| piece.len_bytes).sum::<u64>(), len);
        assert!(pieces.iter().all(|piece| piece.len_bytes <= 1 << 20));
        let cold_pieces: u64 = pieces.iter().map(|piece| piece.cold_bytes).sum();
        assert_eq!(cold_pieces.min(len), cold.cold_bytes);
        let warm = weights.read_extent(extent, &mut go_on).unwrap();
        assert!(was_warm(warm, len) && !warm.self_read, "{warm:?} of {len}");
    }
    assert_eq!(mapped_rss(&weights, 0), 0);
    weights.drop_page_cache(&extents(&weights)).unwrap();
    assert_eq!(weights.residency().unwrap().resident_bytes, 0);
}

#[test]
fn a_read_can_be_stopped_and_begun_again() {
    let (_dir, path) = model();
    let weights = open_cold(&path);
    let mut pieces = 0;
    let stopped = weights.read_extent(ExtentId(0), &mut |_| {
        pieces += 1;
        if pieces == 2 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    assert!(matches!(stopped, Err(FetchError::Stopped)));
    assert_eq!(mapped_rss(&weights, 0), 0);
    let rest = weights.read_extent(ExtentId(0), &mut go_on).unwrap();
    assert!(
        rest.warm_bytes > 1 << 20 && rest.total_bytes() == 4 << 20,
        "{rest:?}"
    );
}

#[test]
fn dropping_spares_what_somebody_has_mapped() {
    let (_dir, path) = model();
    let weights = open_cold(&path);
    let other = Weights::open(&path).unwrap();
    other.fetch(ExtentId(3)).unwrap();
    weights.read_extent(ExtentId(0), &mut go_on).unwrap();
    weights.drop_page_cache(&extents(&weights)).unwrap();
    let kept = weights.residency().unwrap().resident_bytes;
    assert!(
        at_least(kept, len_bytes(&weights, ExtentId(3))) && kept < (4 << 20),
        "{kept} bytes stay"
    );
}

#[test]
fn locked_pages_stay_until_they_are_unlocked() {
    let (_dir, path) = model();
    let weights = open_cold(&path);
    extents(&weights).into_iter().for_each(|extent| {
        weights.read_extent(extent, &mut go_on).unwrap();
    });
    match weights.lock() {
        Ok(()) => {
            weights.drop_page_cache(&extents(&weights)).unwrap();
            let residency = weights.residency().unwrap();
            assert_eq!(residency.resident_bytes, residency.total_bytes);
            weights.unlock().unwrap();
        }
        // The limit on locked memory; nothing is left locked then.
        Err(error) => assert!(
            matches!(
                error.raw_os_error(),
                Some(libc::EPERM | libc::ENOMEM | libc::EAGAIN)
            ),
            "{error}"
        ),
    }
    weights.drop_page_cache(&extents(&weights)).unwrap();
    assert_eq!(weights.residency().unwrap().resident_bytes, 0);
}

#[test]
fn an_extent_that_is_not_there_is_an_error() {
    let (_dir, path) = model();
    let weights = open_cold(&path);
    assert!(matches!(
        weights.fetch(ExtentId(4)),
        Err(FetchError::NoSuchExtent { index: 4, count: 4 })
    ));
    assert!(matches!(
        weights.read_extent(ExtentId(u32::MAX), &mut go_on),
        Err(FetchError::NoSuchExtent { .. })
    ));
}

/// Counts what it is asked for, and can fail.
struct Counting {
    weights: Weights,
    bytes: AtomicU64,
    fail_at: u64,
}

impl Source for Counting {
    fn read_at(&self, split: u16, offset_bytes: u64, buf: &mut [u8]) -> std::io::Result<usize> {
        if offset_bytes >= self.fail_at {
            return Err(std::io::Error::other("planted"));
        }
        // Short reads, as any source may give.
        let len = buf.len().min(70_001);
        let read = self.weights.read_at(split, offset_bytes, &mut buf[..len])?;
        self.bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

#[test]
fn reads_go_through_a_source_that_was_put_before_the_files() {
    let (_dir, path) = model();
    make_cold(&path);
    let source = Arc::new(Counting {
        weights: Weights::open(&path).unwrap(),
        bytes: AtomicU64::new(0),
        fail_at: 8 << 20,
    });
    let weights = Arc::new(
        Weights::open(&path)
            .unwrap()
            .with_source(Arc::clone(&source) as Arc<dyn Source>),
    );
    let fetched = weights.fetch(ExtentId(0)).unwrap();
    assert_eq!(
        (fetched.cold_bytes, source.bytes.load(Ordering::Relaxed)),
        (4 << 20, 4 << 20)
    );
    assert_bytes(&weights, ExtentId(0));
    assert!(matches!(
        weights.fetch(ExtentId(3)),
        Err(FetchError::Io { split: 0, .. })
    ));
    assert_eq!(
        weights
            .read_extent(ExtentId(1), &mut go_on)
            .unwrap()
            .total_bytes(),
        100_000
    );
}

#[test]
fn what_was_warmed_is_copied_out_and_never_mapped() {
    let (_dir, path) = model();
    let weights = open_cold(&path);
    let mut meter = Meter::start();
    let mut copies = Vec::new();
    for extent in extents(&weights) {
        let len = len_bytes(&weights, extent);
        let cold = weights.warm(extent).unwrap();
        assert!(was_cold(cold, len) && cold.self_read, "{cold:?} of {len}");
        assert!(was_warm(weights.warm(extent).unwrap(), len));
        meter.lap();
        let mut bytes = vec![0; len as usize];
        let (head, tail) = bytes.split_at_mut(len as usize / 3);
        let read = weights.read_into(extent, 0, head, &mut meter).unwrap();
        assert_eq!(read, 0, "all of it was in the page cache");
        weights
            .read_into(extent, head.len() as u64, tail, &mut meter)
            .unwrap();
        copies.push((extent, bytes));
    }
    assert_eq!(mapped_rss(&weights, 0), 0);
    for (extent, bytes) in copies {
        assert_eq!(bytes, weights.view(extent).as_ref());
    }
}

#[test]
fn copying_out_of_a_cold_extent_counts_what_storage_gave() {
    let (_dir, path) = model();
    let weights = open_cold(&path);
    let mut meter = Meter::start();
    let mut page = vec![0; 64 << 10];
    let cold = weights
        .read_into(ExtentId(0), 4096, &mut page, &mut meter)
        .unwrap();
    assert!(at_least(cold, 64 << 10), "{cold} bytes");
}

#[test]
fn copying_out_of_a_file_that_shrank_is_an_error() {
    let (_dir, path) = model();
    let weights = open_cold(&path);
    let last = *extents(&weights).last().unwrap();
    let len = len_bytes(&weights, last);
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let end = weights.directory().extent(last).range().end;
    file.set_len(end - 1).unwrap();
    let mut bytes = vec![0; len as usize];
    let error = weights.read_into(last, 0, &mut bytes, &mut Meter::start());
    assert!(matches!(error, Err(FetchError::Truncated { .. })));
}
