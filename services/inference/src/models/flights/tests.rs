use std::{
    future::pending,
    sync::atomic::{AtomicUsize, Ordering},
};

use tokio::sync::oneshot;

use super::*;

/// A flight that counts its starts and lands when told to.
#[derive(Clone, Default)]
struct Attach {
    starts: Arc<AtomicUsize>,
}

impl Attach {
    fn starts(&self) -> usize {
        self.starts.load(Ordering::Relaxed)
    }

    fn until(
        &self,
        told: oneshot::Receiver<Result<u32, Error>>,
    ) -> impl FnOnce() -> Flight + use<> {
        let starts = Arc::clone(&self.starts);
        move || {
            starts.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move { told.await.expect("the test tells") })
        }
    }

    fn at_once(&self, outcome: Result<u32, Error>) -> impl FnOnce() -> Flight + use<> {
        let starts = Arc::clone(&self.starts);
        move || {
            starts.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move { outcome })
        }
    }
}

type Flight = std::pin::Pin<Box<dyn Future<Output = Result<u32, Error>> + Send>>;

fn clone(flights: &Flights<u32>) -> Flights<u32> {
    Flights {
        slots: Arc::clone(&flights.slots),
    }
}

/// Starts a caller of `get` and lets it run until it waits.
async fn ask(
    flights: &Flights<u32>,
    start: impl FnOnce() -> Flight + Send + 'static,
) -> tokio::task::JoinHandle<Result<u32, Error>> {
    let flights = clone(flights);
    let task = tokio::spawn(async move { flights.get("m", start).await });
    tokio::task::yield_now().await;
    task
}

#[tokio::test]
async fn many_callers_share_one_flight() {
    let (flights, attach) = (Flights::default(), Attach::default());
    let (tell, told) = oneshot::channel();
    let first = ask(&flights, attach.until(told)).await;
    let mut others = Vec::new();
    for _ in 0..8 {
        others.push(ask(&flights, attach.at_once(Ok(99))).await);
    }
    assert!(flights.is_flying("m") && flights.landed("m").is_none());
    tell.send(Ok(7)).unwrap();
    assert_eq!(first.await.unwrap().unwrap(), 7);
    for other in others {
        assert_eq!(other.await.unwrap().unwrap(), 7);
    }
    assert_eq!(attach.starts(), 1);
    assert_eq!(flights.get("m", attach.at_once(Ok(99))).await.unwrap(), 7);
    assert_eq!(flights.all_landed(), [("m".to_owned(), 7)]);
}

#[tokio::test]
async fn a_failure_is_told_to_all_and_can_be_tried_again() {
    let (flights, attach) = (Flights::default(), Attach::default());
    let (tell, told) = oneshot::channel();
    let first = ask(&flights, attach.until(told)).await;
    let second = ask(&flights, attach.at_once(Ok(99))).await;
    tell.send(Err(Error::Draining)).unwrap();
    assert!(matches!(first.await.unwrap(), Err(Error::Draining)));
    assert!(matches!(second.await.unwrap(), Err(Error::Draining)));
    assert_eq!(flights.get("m", attach.at_once(Ok(7))).await.unwrap(), 7);
    assert_eq!(attach.starts(), 2);
}

#[tokio::test]
async fn a_caller_who_gives_up_does_not_end_the_flight() {
    let (flights, attach) = (Flights::default(), Attach::default());
    let (tell, told) = oneshot::channel();
    let first = ask(&flights, attach.until(told)).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    tell.send(Ok(7)).unwrap();
    assert_eq!(flights.get("m", attach.at_once(Ok(99))).await.unwrap(), 7);
    assert_eq!(attach.starts(), 1);
}

#[tokio::test]
async fn a_flight_that_panics_frees_its_slot() {
    let flights = Flights::<u32>::default();
    let crash = || -> Flight { Box::pin(async { panic!("a bug") }) };
    assert!(matches!(
        flights.get("m", crash).await,
        Err(Error::Lost { .. })
    ));
    assert_eq!(
        flights
            .get("m", Attach::default().at_once(Ok(7)))
            .await
            .unwrap(),
        7
    );
}

#[tokio::test]
async fn different_names_do_not_wait_for_each_other() {
    let flights = Flights::<u32>::default();
    let stuck = ask(&flights, || Box::pin(pending())).await;
    let other = flights
        .get("other", Attach::default().at_once(Ok(7)))
        .await
        .unwrap();
    assert_eq!(other, 7);
    stuck.abort();
}

#[tokio::test]
async fn who_comes_while_a_model_leaves_waits_and_starts_anew() {
    let (flights, attach) = (Flights::default(), Attach::default());
    flights.get("m", attach.at_once(Ok(1))).await.unwrap();
    let (tell, told) = oneshot::channel();
    let leaving = {
        let flights = clone(&flights);
        tokio::spawn(async move {
            let work = |old| async move { told.await.map(|()| old).map_err(|_| Error::Draining) };
            flights.leave("m", work).await
        })
    };
    tokio::task::yield_now().await;
    assert_eq!(flights.landed("m"), None);
    let next = ask(&flights, attach.at_once(Ok(2))).await;
    assert_eq!(attach.starts(), 1, "the old one is not gone yet");
    tell.send(()).unwrap();
    assert_eq!(leaving.await.unwrap().unwrap().unwrap(), 1);
    assert_eq!(next.await.unwrap().unwrap(), 2);
}

#[tokio::test]
async fn leaving_waits_for_a_flight_to_land() {
    let (flights, attach) = (Flights::default(), Attach::default());
    let (tell, told) = oneshot::channel();
    let flying = ask(&flights, attach.until(told)).await;
    let leaving = {
        let flights = clone(&flights);
        tokio::spawn(async move { flights.leave("m", |old| async move { Ok(old) }).await })
    };
    tokio::task::yield_now().await;
    tell.send(Ok(7)).unwrap();
    assert_eq!(flying.await.unwrap().unwrap(), 7);
    assert_eq!(leaving.await.unwrap().unwrap().unwrap(), 7);
    assert!(flights.all_landed().is_empty());
}

#[tokio::test]
async fn what_is_not_there_cannot_leave() {
    let flights = Flights::<u32>::default();
    assert!(
        flights
            .leave("m", |old| async move { Ok(old) })
            .await
            .is_none()
    );
}
