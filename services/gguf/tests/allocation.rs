//! Hostile counts and lengths: whatever the header claims, memory follows the bytes that are there.
#![expect(
    unsafe_code,
    reason = "a global allocator that counts cannot be written without it"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use gguf::{Directory, StringArray, TensorType, write::Writer};

/// The system's allocator, counting.
struct Counting;

static LIVE_BYTES: AtomicUsize = AtomicUsize::new(0);
static PEAK_BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to `System` with the caller's own arguments, so its guarantees are passed on unchanged; counting allocates nothing and cannot unwind.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE_BYTES.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK_BYTES.fetch_max(live, Ordering::Relaxed);
        // SAFETY: `layout` is the caller's, who vouches for it.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        LIVE_BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller vouches that `block` came from `alloc` with `layout`, and `alloc` took it from `System`.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Most bytes that a parse held at any time beyond what was held before it.
fn peak_of_parse(bytes: &[u8], file_len: u64) -> usize {
    let before = LIVE_BYTES.load(Ordering::Relaxed);
    PEAK_BYTES.store(before, Ordering::Relaxed);
    // An error is an answer as good as a directory here.
    drop(Directory::parse(bytes, file_len));
    PEAK_BYTES.load(Ordering::Relaxed) - before
}

/// A header of a few hundred bytes with every place where a count or a length can stand.
fn sample() -> Vec<u8> {
    Writer::new()
        .metadata("general.architecture", "llama")
        .metadata("tokens", StringArray::from_iter(["a", "bc"]))
        .metadata("scores", vec![1.0f32, 2.0])
        .metadata("types", vec![1u8, 2])
        .tensor("w", &[8, 2], TensorType::F32)
        .tensor("blk.0.ffn_up_exps.weight", &[8, 2, 4], TensorType::F32)
        .finish()
        .expect("valid")
        .bytes
}

/// Mostly the extents of one tensor with as many experts as are allowed, at 24 bytes each and twice while the list grows.
const BOUND_BYTES: usize = 256 << 10;

// One test, because the counters are the process's.
#[test]
fn memory_follows_the_bytes_that_are_there() {
    let header = sample();
    let honest = peak_of_parse(&header, 1 << 20);
    assert!(
        (200..16 << 10).contains(&honest),
        "an honest header takes {honest} bytes: is anything counted?"
    );

    let hostile = [
        u64::MAX,
        1 << 63,
        1 << 62,
        1 << 61,
        1 << 40,
        1 << 32,
        u64::from(u32::MAX),
        1 << 24,
        1 << 16,
        4096,
    ];
    for file_len in [
        header.len() as u64,
        1 << 40,
        i64::MAX.unsigned_abs(),
        u64::MAX,
    ] {
        // At every offset, aligned or not: wherever a count or a length stands, it is hit.
        for at in 4..header.len() - 8 {
            for value in hostile {
                let mut bytes = header.clone();
                bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
                let peak = peak_of_parse(&bytes, file_len);
                assert!(
                    peak <= BOUND_BYTES,
                    "{peak} bytes for {value:#x} at {at} with a file of {file_len}"
                );
            }
        }
    }
}
