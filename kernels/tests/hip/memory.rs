//! Chunks, views and arenas.

use kernels::hip::{Arena, HipError, Memory};

use super::support::{downloaded, gpu, memory, pattern, stream, uploaded};

const CHUNK_BYTES: usize = 1 << 20;

#[test]
fn the_device_says_what_it_is() {
    let gpu = gpu();
    let arch = gpu.architecture();
    assert!(
        ["gfx", "sm_", "cpu"]
            .iter()
            .any(|prefix| arch.starts_with(prefix)),
        "{arch}"
    );
    assert!(!gpu.name().is_empty());
    assert!(gpu.multiprocessors() > 0 && [32, 64].contains(&gpu.warp_width()));
    assert!(gpu.shared_bytes() >= 48 << 10);
    assert!(gpu.free_bytes().expect("answered") <= gpu.total_bytes());
}

#[test]
fn what_went_up_comes_down() {
    for len in [1, 3, 4096, 100_003] {
        let bytes = pattern(len, 1);
        assert_eq!(
            downloaded::<u8>(&stream(), &uploaded(&bytes)),
            bytes,
            "{len} bytes"
        );
    }
}

#[test]
fn a_slice_is_the_same_memory() {
    let bytes = pattern(1000, 2);
    let view = uploaded(&bytes);
    let slice = view
        .slice(256..700)
        .expect("inside")
        .slice(44..300)
        .expect("inside");
    assert_eq!(slice.address() - view.address(), 300);
    drop(view);
    assert_eq!(downloaded::<u8>(&stream(), &slice), bytes[300..556]);
    assert!(matches!(
        slice.slice(1..257),
        Err(HipError::Range {
            end: 257,
            len: 256,
            ..
        })
    ));
}

#[test]
fn more_than_the_device_has_is_out_of_memory() {
    let refused = Memory::allocate(&gpu(), gpu().total_bytes() + 1).expect_err("too much");
    assert!(refused.is_out_of_memory(), "{refused}");
}

#[test]
fn an_arena_lends_what_came_back() {
    let arena = Arena::new(&gpu(), 3 * CHUNK_BYTES, CHUNK_BYTES);
    let first = arena.view(CHUNK_BYTES / 2).expect("asked").expect("room");
    let address = first.address();
    let clone = first.clone();
    drop(first);
    assert_eq!(
        arena.lent_bytes(),
        CHUNK_BYTES / 2,
        "a clone is the same loan"
    );
    drop(clone);
    let again = arena.view(1000).expect("asked").expect("room");
    assert_eq!((again.address(), again.address() % 256), (address, 0));
    assert_eq!(
        (arena.lent_bytes(), arena.allocated_bytes()),
        (1024, CHUNK_BYTES)
    );
}

#[test]
fn an_arena_grows_to_its_limit_and_no_further() {
    let arena = Arena::new(&gpu(), 3 * CHUNK_BYTES, CHUNK_BYTES);
    let large = arena
        .view(CHUNK_BYTES + 1)
        .expect("asked")
        .expect("a chunk of its own");
    let small = arena.view(CHUNK_BYTES).expect("asked").expect("a chunk");
    assert!(
        arena.view(CHUNK_BYTES).expect("asked").is_none(),
        "the limit"
    );
    drop(large);
    assert!(
        arena.view(CHUNK_BYTES).expect("asked").is_some(),
        "what came back"
    );
    drop(small);
    let view = arena.view(8).expect("asked").expect("room");
    let allocated = arena.allocated_bytes();
    drop(arena);
    assert_eq!(allocated, 3 * CHUNK_BYTES - CHUNK_BYTES + 256);
    // The chunk lives as long as a view of it.
    let stream = stream();
    stream.fill(&view, 7).expect("enqueued");
    assert_eq!(downloaded::<u8>(&stream, &view), [7; 8]);
}

#[test]
fn a_dropped_view_is_lent_again_only_when_its_work_is_done() {
    let arena = Arena::new(&gpu(), CHUNK_BYTES, CHUNK_BYTES);
    let stream = stream();
    let view = arena.view(CHUNK_BYTES).expect("asked").expect("room");
    stream.fill(&view, 1).expect("enqueued");
    drop(view);
    assert!(
        arena.view(CHUNK_BYTES).expect("asked").is_none(),
        "the stream holds it"
    );
    stream.synchronize().expect("done");
    assert!(arena.view(CHUNK_BYTES).expect("asked").is_some());
}

#[test]
fn copies_on_the_device_refuse_to_overlap() {
    let (stream, view) = (stream(), memory(1024));
    let part = |range| view.slice(range).expect("inside");
    stream.fill(&view, 3).expect("enqueued");
    stream.fill(&part(0..512), 4).expect("enqueued");
    stream
        .copy(&part(0..512), &part(512..1024))
        .expect("enqueued");
    assert_eq!(downloaded::<u8>(&stream, &view), [4; 1024]);
    assert!(matches!(
        stream.copy(&part(0..512), &part(511..1023)),
        Err(HipError::Range { .. })
    ));
    assert!(matches!(
        stream.copy(&part(0..512), &part(512..1023)),
        Err(HipError::Range { .. })
    ));
}
