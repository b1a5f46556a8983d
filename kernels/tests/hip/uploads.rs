//! The ring.

use std::num::NonZeroUsize;
use std::thread;

use kernels::hip::{HipError, Ring};

use super::support::{downloaded, gpu, memory, pattern, stream};

const SLOT_BYTES: usize = 1 << 12;

fn ring() -> Ring {
    let size = |n| NonZeroUsize::new(n).expect("not zero");
    Ring {
        workers: size(4),
        slots: size(3),
        slot_bytes: size(SLOT_BYTES),
    }
}

#[test]
fn extents_of_any_size_arrive_whole() {
    let mut worker = ring().worker(&gpu()).expect("a worker");
    for len in [
        1,
        SLOT_BYTES - 1,
        SLOT_BYTES,
        SLOT_BYTES + 1,
        20 * SLOT_BYTES + 77,
    ] {
        let (bytes, view) = (pattern(len, len), memory(len));
        let fill = |offset: usize, slot: &mut [u8]| {
            slot.copy_from_slice(&bytes[offset..offset + slot.len()]);
            Ok::<(), HipError>(())
        };
        worker.upload(&view, fill).expect("enqueued");
        let mark = worker.mark().expect("enqueued");
        mark.synchronize().expect("arrived");
        assert_eq!(downloaded::<u8>(&stream(), &view), bytes, "{len} bytes");
    }
}

#[test]
fn workers_upload_beside_each_other() {
    let ring = ring();
    let views: Vec<_> = (0..ring.workers.get()).map(|_| memory(300_000)).collect();
    thread::scope(|scope| {
        for (seed, view) in views.iter().enumerate() {
            scope.spawn(move || {
                let bytes = pattern(view.len(), seed);
                let mut worker = ring.worker(&gpu()).expect("a worker");
                let fill = |offset: usize, slot: &mut [u8]| {
                    slot.copy_from_slice(&bytes[offset..offset + slot.len()]);
                    Ok::<(), HipError>(())
                };
                worker.upload(view, fill).expect("enqueued");
                let mark = worker.mark().expect("enqueued");
                mark.synchronize().expect("arrived");
            });
        }
    });
    for (seed, view) in views.iter().enumerate() {
        assert_eq!(downloaded::<u8>(&stream(), view), pattern(view.len(), seed));
    }
}

#[test]
fn a_reader_that_fails_leaves_the_ring_usable() {
    let mut worker = ring().worker(&gpu()).expect("a worker");
    let view = memory(10 * SLOT_BYTES);
    for fails_at in 0..8 {
        let fill = |offset: usize, slot: &mut [u8]| {
            slot.fill(1);
            if offset == fails_at * SLOT_BYTES {
                return Err(HipError::Name {
                    name: "planted".to_owned(),
                });
            }
            Ok(())
        };
        let failed = worker.upload(&view, fill);
        assert!(matches!(failed, Err(HipError::Name { .. })));
    }
    let fill = |_: usize, slot: &mut [u8]| {
        slot.fill(2);
        Ok::<(), HipError>(())
    };
    worker.upload(&view, fill).expect("enqueued");
    worker
        .mark()
        .expect("enqueued")
        .synchronize()
        .expect("arrived");
    assert!(
        downloaded::<u8>(&stream(), &view)
            .iter()
            .all(|&byte| byte == 2)
    );
}
