//! Order within streams and between them.

use kernels::hip::launch::rowwise::{Add, add};
use kernels::hip::{Event, Pinned};

use super::support::{downloaded, gpu, kernels, memory, stream, uploaded};

#[test]
fn a_stream_runs_in_order() {
    let stream = stream();
    let (x, y) = (uploaded(&[1.0f32; 1000]), uploaded(&[0.5f32; 1000]));
    for _ in 0..600 {
        let op = Add {
            x: &x,
            y: Some(&y),
            rows: 10,
            y_rows: 10,
            n: 100,
            scale: 1.0,
        };
        add(&stream, &kernels(), op).expect("enqueued");
    }
    drop(y);
    assert_eq!(downloaded::<f32>(&stream, &x), [301.0; 1000]);
}

#[test]
fn a_stream_waits_for_another_ones_event() {
    let (first, second) = (stream(), stream());
    let (from, to) = (memory(1 << 20), memory(1 << 20));
    first.fill(&from, 9).expect("enqueued");
    let event = Event::new(&gpu()).expect("an event");
    first.record(&event).expect("enqueued");
    second.wait(&event).expect("enqueued");
    second.copy(&from, &to).expect("enqueued");
    assert!(downloaded::<u8>(&second, &to).iter().all(|&byte| byte == 9));
    assert!(event.query().expect("asked"), "what waited for it is done");
}

#[test]
fn an_event_is_not_passed_before_its_work() {
    let stream = stream();
    let view = memory(1 << 20);
    let event = Event::new(&gpu()).expect("an event");
    assert!(event.query().expect("asked"), "never recorded");
    stream.fill(&view, 1).expect("enqueued");
    stream.record(&event).expect("enqueued");
    while !event.query().expect("asked") {}
    event.synchronize().expect("passed");
}

#[test]
fn the_device_takes_the_time() {
    let stream = stream();
    let view = memory(16 << 20);
    let start = Event::timed(&gpu()).expect("an event");
    let end = Event::timed(&gpu()).expect("an event");
    stream.record(&start).expect("enqueued");
    stream.fill(&view, 1).expect("enqueued");
    stream.record(&end).expect("enqueued");
    end.synchronize().expect("passed");
    let elapsed_ms = end.elapsed_ms(&start).expect("both are passed");
    assert!(elapsed_ms > 0.0 && elapsed_ms < 60_000.0, "{elapsed_ms} ms");
}

#[test]
fn a_buffer_in_flight_comes_back() {
    let stream = stream();
    let view = memory(4096);
    let mut pinned = Pinned::allocate(&gpu(), 8192).expect("pinned memory");
    pinned.bytes_mut()[4096..].fill(5);
    let flight = stream.upload(pinned, 4096..8192, &view).expect("enqueued");
    let pinned = flight.wait().expect("copied");
    assert_eq!(pinned.len(), 8192);
    drop(stream.download(&view, pinned, 0..4096).expect("enqueued"));
    assert_eq!(downloaded::<u8>(&stream, &view), [5; 4096]);
}
