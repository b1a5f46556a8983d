use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;

/// A job that says when it has begun, and goes on when told to.
struct Held {
    begun: Receiver<()>,
    go: Sender<()>,
    done: oneshot::Receiver<bool>,
}

fn hold(readers: &Arc<Readers>, urgency: Urgency, aside: bool) -> Held {
    let (say, begun) = channel();
    let (go, wait) = channel::<()>();
    let inner = Arc::downgrade(readers);
    let job = move || {
        say.send(()).unwrap();
        let readers = inner.upgrade().unwrap();
        let mut went = false;
        if aside {
            readers.aside(|| went = wait.recv().is_ok());
        } else {
            went = wait.recv().is_ok();
        }
        went
    };
    let done = readers.submit(urgency, job).unwrap();
    Held { begun, go, done }
}

impl Held {
    fn finish(self) {
        self.go.send(()).unwrap();
        assert_eq!(self.done.blocking_recv(), Ok(true));
    }
}

fn readers(places: usize) -> Arc<Readers> {
    Arc::new(Readers::new(places))
}

#[test]
fn who_waits_comes_first() {
    let readers = readers(1);
    let first = hold(&readers, Urgency::Now, false);
    first.begun.recv().unwrap();
    let (order, seen) = channel();
    let mut receivers = Vec::new();
    for (urgency, name) in [
        (Urgency::Ahead, "ahead"),
        (Urgency::Now, "now"),
        (Urgency::Now, "now 2"),
    ] {
        let order = order.clone();
        receivers.push(
            readers
                .submit(urgency, move || order.send(name).is_ok())
                .unwrap(),
        );
    }
    first.finish();
    let order: Vec<&str> = (0..3).map(|_| seen.recv().unwrap()).collect();
    assert_eq!(order, ["now", "now 2", "ahead"]);
}

#[test]
fn a_place_is_left_for_who_waits() {
    let readers = readers(2);
    let ahead = hold(&readers, Urgency::Ahead, false);
    let second = hold(&readers, Urgency::Ahead, false);
    ahead.begun.recv().unwrap();
    assert_eq!(
        readers.submit(Urgency::Now, || 7).unwrap().blocking_recv(),
        Ok(7)
    );
    assert!(second.begun.try_recv().is_err());
    ahead.finish();
    second.begun.recv().unwrap();
    second.finish();
}

#[test]
fn who_stands_aside_lets_others_read() {
    let readers = readers(1);
    let slow: Vec<Held> = (0..20)
        .map(|_| hold(&readers, Urgency::Now, true))
        .collect();
    for job in &slow {
        job.begun.recv().unwrap();
    }
    assert_eq!(
        readers.submit(Urgency::Now, || 7).unwrap().blocking_recv(),
        Ok(7)
    );
    slow.into_iter().for_each(Held::finish);
}

#[test]
fn a_prefetch_aside_does_not_make_room_for_ever_more_of_it() {
    let readers = readers(3);
    let begun: Vec<Held> = (0..2)
        .map(|_| hold(&readers, Urgency::Ahead, true))
        .collect();
    for job in &begun {
        job.begun.recv().unwrap();
    }
    let third = hold(&readers, Urgency::Ahead, true);
    assert_eq!(
        readers.submit(Urgency::Now, || 7).unwrap().blocking_recv(),
        Ok(7)
    );
    assert!(third.begun.try_recv().is_err());
    begun.into_iter().for_each(Held::finish);
    third.begun.recv().unwrap();
    third.finish();
}

#[test]
fn a_job_that_dies_takes_no_thread_along() {
    let readers = readers(1);
    let dead = readers
        .submit(Urgency::Now, || panic!("a planted panic"))
        .unwrap();
    assert!(dead.blocking_recv().is_err());
    assert_eq!(
        readers.submit(Urgency::Now, || 7).unwrap().blocking_recv(),
        Ok(7)
    );
    assert_eq!(
        readers
            .submit(Urgency::Ahead, || 7)
            .unwrap()
            .blocking_recv(),
        Ok(7)
    );
}

#[test]
fn the_queue_is_bounded_and_closing_empties_it() {
    let readers = readers(1);
    let first = hold(&readers, Urgency::Now, false);
    first.begun.recv().unwrap();
    let waiting: Vec<_> = (0..QUEUE_MAX)
        .map(|_| readers.submit(Urgency::Ahead, || ()).unwrap())
        .collect();
    assert_eq!(
        readers.submit(Urgency::Ahead, || ()).unwrap_err(),
        Refused::Full
    );
    assert!(readers.submit(Urgency::Now, || ()).is_ok());
    first.go.send(()).unwrap();
    readers.close();
    assert_eq!(
        readers.submit(Urgency::Now, || ()).unwrap_err(),
        Refused::Closed
    );
    // Each was done or dropped; none is left hanging.
    for job in waiting {
        drop(job.blocking_recv());
    }
}

/// Many jobs of both kinds from many threads, some aside: all of them are done.
#[test]
fn nothing_is_lost_in_a_crowd() {
    let readers = readers(3);
    let crowd: Vec<_> = (0..8)
        .map(|who| {
            let readers = Arc::clone(&readers);
            thread::spawn(move || {
                let submit = |n: usize| {
                    let urgency = if (n + who).is_multiple_of(2) {
                        Urgency::Now
                    } else {
                        Urgency::Ahead
                    };
                    let inner = Arc::downgrade(&readers);
                    let job = move || {
                        if n.is_multiple_of(3) {
                            inner.upgrade().unwrap().aside(thread::yield_now);
                        }
                        n
                    };
                    readers.submit(urgency, job).unwrap()
                };
                let jobs: Vec<_> = (0..200).map(submit).collect();
                jobs.into_iter()
                    .map(|job| job.blocking_recv().unwrap())
                    .sum::<usize>()
            })
        })
        .collect();
    for thread in crowd {
        assert_eq!(thread.join().unwrap(), 199 * 100);
    }
    readers.close();
    let state = readers.shared.lock();
    assert_eq!(
        (
            state.reading,
            state.ahead_begun,
            state.now.len(),
            state.ahead.len()
        ),
        (0, 0, 0, 0)
    );
}
