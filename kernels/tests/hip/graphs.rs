//! Recorded work.

use kernels::hip::launch::rowwise::{Add, add};
use kernels::hip::{HipError, Memory, Pinned};

use super::support::{downloaded, gpu, kernels, memory, stream, uploaded};

#[test]
fn a_graph_runs_what_was_recorded_each_time() {
    let stream = stream();
    let (x, y) = (uploaded(&[1.0f32; 64]), uploaded(&[2.0f32; 64]));
    let op = || Add {
        x: &x,
        y: Some(&y),
        rows: 1,
        y_rows: 1,
        n: 64,
        scale: 1.0,
    };
    let graph = stream
        .capture(|stream| {
            for _ in 0..3 {
                add(stream, &kernels(), op())?;
            }
            Ok::<(), HipError>(())
        })
        .expect("recorded");
    assert_eq!(
        downloaded::<f32>(&stream, &x),
        [1.0; 64],
        "recording runs nothing"
    );
    for launches in 1..=3u8 {
        graph.launch(&stream).expect("enqueued");
        let expected = f32::from(launches).mul_add(6.0, 1.0);
        assert_eq!(downloaded::<f32>(&stream, &x), [expected; 64]);
    }
}

#[test]
fn a_graph_keeps_what_it_uses() {
    let stream = stream();
    let (from, to) = (memory(256), memory(256));
    let graph = stream.capture(|stream| {
        stream.fill(&from, 8)?;
        stream.copy(&from, &to)
    });
    drop(from);
    let graph = graph.expect("recorded");
    graph.launch(&stream).expect("enqueued");
    drop(graph);
    assert_eq!(downloaded::<u8>(&stream, &to), [8; 256]);
}

#[test]
fn what_fails_while_recording_leaves_the_stream_as_it_was() {
    let stream = stream();
    let view = memory(256);
    let refused = stream.capture(|stream| {
        stream.fill(&view, 1)?;
        Err(HipError::Name {
            name: "planted".to_owned(),
        })
    });
    assert!(matches!(refused, Err(HipError::Name { .. })));
    stream.fill(&view, 2).expect("enqueued");
    assert_eq!(downloaded::<u8>(&stream, &view), [2; 256]);
}

/// What a GPU refuses while a thread records is refused on the stand-in, too.
#[test]
fn recording_neither_copies_to_the_host_nor_allocates() {
    let stream = stream();
    let view = memory(256);
    let pinned = Pinned::allocate(&gpu(), 256).expect("pinned memory");
    let refused = stream.capture(|stream| stream.download(&view, pinned, 0..256).map(|_| ()));
    assert!(
        matches!(
            refused,
            Err(HipError::Call {
                call: "download",
                status: 900
            })
        ),
        "{refused:?}"
    );
    let refused = stream.capture(|_| Memory::allocate(&gpu(), 256).map(|_| ()));
    assert!(
        matches!(
            refused,
            Err(HipError::Call {
                status: 900..=909,
                ..
            })
        ),
        "{refused:?}"
    );
    stream.fill(&view, 2).expect("enqueued");
    assert_eq!(downloaded::<u8>(&stream, &view), [2; 256]);
}
