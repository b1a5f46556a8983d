use std::{fs, sync::Arc, time::Duration};

use gguf::ExtentId;
use proto::loader::v1::{AcquireLeaseRequest, ReadTensorRequest, ReleaseLeaseRequest};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use weights::handoff::{AcceptError, Refusal};

use crate::support::{Daemon, gguf, reason, tensors, until, write};

async fn release(daemon: &Daemon, token: &[u8]) -> Result<(), Status> {
    let request = ReleaseLeaseRequest {
        token: token.to_vec(),
    };
    daemon
        .client
        .clone()
        .release_lease(request)
        .await
        .map(|_| ())
}

async fn start() -> Daemon {
    Daemon::start(|models| {
        write(&models.join("m.gguf"), &gguf(&[("a", 1000), ("b", 64)]));
        fs::write(models.join("bad.gguf"), "bad").unwrap();
    })
    .await
}

fn refusal(error: AcceptError) -> Refusal {
    match error {
        AcceptError::Refused(refusal) => refusal,
        other => panic!("not a refusal: {other:?}"),
    }
}

#[tokio::test]
async fn acquire_accept_fetch_release() {
    let daemon = start().await;
    let lease = daemon.acquire("m").await.unwrap();
    assert_eq!(lease.handoff_socket, "l.sock.handoff");
    assert_eq!(lease.time_to_live.unwrap().seconds, 30);
    assert_eq!(daemon.model("m").await.unwrap().lease_count, 1);

    let weights = Arc::new(daemon.accept(lease.token.clone()).await.unwrap());
    assert!(weights.lease_held());
    assert_eq!(weights.generation(), Some(lease.generation));
    let fetching = Arc::clone(&weights);
    let fetched = tokio::task::spawn_blocking(move || fetching.fetch(ExtentId(0)))
        .await
        .unwrap()
        .unwrap();
    assert_eq!((fetched.total_bytes(), fetched.self_read), (4000, false));
    let file = fs::read(daemon.models().join("m.gguf")).unwrap();
    let extent = weights.directory().extent(ExtentId(0)).range();
    assert_eq!(
        weights.view(ExtentId(0)).as_ref(),
        &file[extent.start as usize..extent.end as usize]
    );

    // Held leases do not time out.
    daemon.hand.advance(Duration::from_secs(3600));
    assert_eq!(daemon.model("m").await.unwrap().lease_count, 1);
    drop(weights);
    until(|| async { daemon.model("m").await.unwrap().lease_count == 0 }).await;
    daemon.end().await.unwrap();
}

#[tokio::test]
async fn a_token_is_good_once() {
    let daemon = start().await;
    let lease = daemon.acquire("m").await.unwrap();
    let _held = daemon.accept(lease.token.clone()).await.unwrap();
    assert_eq!(
        refusal(daemon.accept(lease.token.clone()).await.unwrap_err()),
        Refusal::UnknownToken
    );
    assert_eq!(
        reason(
            &release(&daemon, &lease.token).await.unwrap_err(),
            Code::NotFound
        ),
        "UNKNOWN_LEASE"
    );
    let never_issued = vec![7; lease.token.len()];
    assert_eq!(
        refusal(daemon.accept(never_issued).await.unwrap_err()),
        Refusal::UnknownToken
    );
    assert_eq!(daemon.model("m").await.unwrap().lease_count, 1);
    daemon.end().await.unwrap();
}

#[tokio::test]
async fn an_unused_token_times_out() {
    let daemon = start().await;
    let lease = daemon.acquire("m").await.unwrap();
    daemon.hand.advance(Duration::from_millis(29_999));
    assert_eq!(daemon.model("m").await.unwrap().lease_count, 1);
    daemon.hand.advance(Duration::from_millis(1));
    assert_eq!(daemon.model("m").await.unwrap().lease_count, 0);
    assert_eq!(
        refusal(daemon.accept(lease.token.clone()).await.unwrap_err()),
        Refusal::UnknownToken
    );
    assert_eq!(
        reason(
            &release(&daemon, &lease.token).await.unwrap_err(),
            Code::NotFound
        ),
        "UNKNOWN_LEASE"
    );
    daemon.end().await.unwrap();
}

#[tokio::test]
async fn use_puts_the_end_off() {
    let daemon = start().await;
    let lease = daemon.acquire("m").await.unwrap();
    for _ in 0..3 {
        daemon.hand.advance(Duration::from_secs(20));
        let request = ReadTensorRequest {
            token: lease.token.clone(),
            tensor: "b".to_owned(),
            ..ReadTensorRequest::default()
        };
        let stream = daemon
            .client
            .clone()
            .read_tensor(request)
            .await
            .unwrap()
            .into_inner();
        assert_eq!(crate::support::all(stream).await.unwrap().len(), 1);
    }
    daemon.hand.advance(Duration::from_secs(30));
    assert_eq!(daemon.model("m").await.unwrap().lease_count, 0);
    daemon.end().await.unwrap();
}

#[tokio::test]
async fn a_released_token_is_worth_nothing() {
    let daemon = start().await;
    let lease = daemon.acquire("m").await.unwrap();
    release(&daemon, &lease.token).await.unwrap();
    assert_eq!(
        reason(
            &release(&daemon, &lease.token).await.unwrap_err(),
            Code::NotFound
        ),
        "UNKNOWN_LEASE"
    );
    assert_eq!(
        refusal(daemon.accept(lease.token).await.unwrap_err()),
        Refusal::UnknownToken
    );
    assert_eq!(
        reason(
            &release(&daemon, b"short").await.unwrap_err(),
            Code::NotFound
        ),
        "UNKNOWN_LEASE"
    );
    assert_eq!(daemon.model("m").await.unwrap().lease_count, 0);
    daemon.end().await.unwrap();
}

#[tokio::test]
async fn leases_of_one_peer_are_capped() {
    let daemon = Daemon::start_with(
        |models| fs::write(models.join("m.gguf"), gguf(&[("a", 8)])).unwrap(),
        |config| config.max_leases_per_peer = 2.try_into().unwrap(),
    )
    .await;
    let first = daemon.acquire("m").await.unwrap();
    daemon.acquire("m").await.unwrap();
    let status = daemon.acquire("m").await.unwrap_err();
    assert_eq!(reason(&status, Code::ResourceExhausted), "TOO_MANY");
    let details = status.get_error_details();
    assert_eq!(
        details.quota_failure().unwrap().violations[0].subject,
        "leases of one peer"
    );
    assert!(details.retry_info().is_some());
    release(&daemon, &first.token).await.unwrap();
    daemon.acquire("m").await.unwrap();
    daemon.end().await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_leased() {
    let daemon = start().await;
    assert_eq!(
        reason(
            &daemon.acquire("bad").await.unwrap_err(),
            Code::FailedPrecondition
        ),
        "INVALID_MODEL"
    );
    assert_eq!(
        reason(&daemon.acquire("none").await.unwrap_err(), Code::NotFound),
        "UNKNOWN_MODEL"
    );
    let request = AcquireLeaseRequest {
        model: "m".to_owned(),
        client: "x".repeat(129),
    };
    let status = daemon
        .client
        .clone()
        .acquire_lease(request)
        .await
        .unwrap_err();
    assert_eq!(reason(&status, Code::InvalidArgument), "BAD_FIELD");
    daemon.end().await.unwrap();
}

#[tokio::test]
async fn a_file_that_changed_is_never_handed_out_as_the_old_one() {
    let daemon = start().await;
    let before = daemon.acquire("m").await.unwrap();
    fs::write(daemon.models().join("m.gguf"), gguf(&[("c", 1000)])).unwrap();
    assert_eq!(
        refusal(daemon.accept(before.token).await.unwrap_err()),
        Refusal::Changed
    );
    // Until the list has caught up, the model is refused; then it is the new one.
    let after = loop {
        match daemon.acquire("m").await {
            Ok(lease) => break lease,
            Err(status) if status.code() == Code::FailedPrecondition => {}
            Err(status) => assert_eq!(reason(&status, Code::DataLoss), "FILE_CHANGED"),
        }
    };
    assert!(after.generation > before.generation);
    let weights = daemon.accept(after.token).await.unwrap();
    assert!(weights.directory().tensor("c").is_some());
    daemon.end().await.unwrap();
}

#[tokio::test]
async fn a_replaced_file_lives_as_long_as_its_lease() {
    let daemon = start().await;
    let lease = daemon.acquire("m").await.unwrap();
    let weights = Arc::new(daemon.accept(lease.token).await.unwrap());
    crate::support::put(&daemon.models().join("m.gguf"), &tensors(1));
    until(|| async { daemon.model("m").await.unwrap().generation > lease.generation }).await;
    let fetching = Arc::clone(&weights);
    let fetched = tokio::task::spawn_blocking(move || fetching.fetch(ExtentId(1)))
        .await
        .unwrap()
        .unwrap();
    assert_eq!((fetched.total_bytes(), fetched.self_read), (256, false));
    assert_eq!(daemon.model("m").await.unwrap().lease_count, 1);
    daemon.end().await.unwrap();
}
