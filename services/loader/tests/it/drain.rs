use std::time::Duration;

use loader::Config;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::support::{Daemon, all, drop_cache, patiently, reason, tensors, until, write};

async fn start(change: impl FnOnce(&mut Config)) -> Daemon {
    Daemon::start_with(
        |models| {
            write(&models.join("m.gguf"), &tensors(8));
            drop_cache(&models.join("m.gguf"));
        },
        change,
    )
    .await
}

#[tokio::test]
async fn calls_under_way_finish_and_new_ones_are_refused() {
    // Eight MiB in about a second.
    let mut daemon = start(|config| config.read_rate_max = Some(8_000_000)).await;
    let mut stream = daemon.prefetch("m", false).await.unwrap();
    patiently(stream.message()).await.unwrap();
    daemon.ask_to_end();
    until(|| async { daemon.model("m").await.is_err() }).await;
    let status = daemon.model("m").await.unwrap_err();
    assert_eq!(reason(&status, Code::Unavailable), "SHUTTING_DOWN");
    assert!(status.get_error_details().retry_info().is_some());
    let last = all(stream).await.unwrap().pop().unwrap();
    assert!(last.done);
    daemon.end().await.unwrap();
}

#[tokio::test]
async fn calls_that_do_not_end_are_cut_off() {
    let daemon = start(|config| {
        config.read_rate_max = Some(100);
        config.drain_timeout = Duration::from_millis(50);
    })
    .await;
    let mut stream = daemon.prefetch("m", false).await.unwrap();
    patiently(stream.message()).await.unwrap();
    daemon.end().await.unwrap();
    let status = all(stream).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
}

#[tokio::test]
async fn a_held_lease_does_not_hold_up_the_end_and_outlives_it() {
    let daemon = start(|_| ()).await;
    let token = daemon.acquire("m").await.unwrap().token;
    let weights = daemon.accept(token).await.unwrap();
    let (socket, handoff) = (daemon.socket(), daemon.handoff());
    daemon.end().await.unwrap();
    assert!(!socket.exists() && !handoff.exists());
    let fetched = tokio::task::spawn_blocking(move || weights.fetch(gguf::ExtentId(0)))
        .await
        .unwrap()
        .unwrap();
    assert!(fetched.self_read);
}
