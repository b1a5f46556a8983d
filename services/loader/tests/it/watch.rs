use std::{fs, os::unix::fs::symlink};

use proto::loader::v1::{ModelStatus, WatchModelsRequest, WatchModelsResponse};
use tonic::{Code, Streaming};

use crate::support::{Daemon, gguf, patiently, put, reason};

async fn watch(daemon: &Daemon) -> Streaming<WatchModelsResponse> {
    daemon
        .client
        .clone()
        .watch_models(WatchModelsRequest {})
        .await
        .unwrap()
        .into_inner()
}

async fn next(changes: &mut Streaming<WatchModelsResponse>) -> WatchModelsResponse {
    patiently(changes.message())
        .await
        .unwrap()
        .expect("the watch goes on")
}

/// Waits for a change of one model; others may come before it, as when a walk falls between two steps of a test.
async fn updated(
    changes: &mut Streaming<WatchModelsResponse>,
    id: &str,
) -> proto::loader::v1::Model {
    loop {
        if let Some(model) = next(changes)
            .await
            .updated
            .into_iter()
            .find(|model| model.id == id)
        {
            return model;
        }
    }
}

#[tokio::test]
async fn files_that_come_change_and_go_are_seen() {
    let daemon =
        Daemon::start(|models| fs::write(models.join("a.gguf"), gguf(&[("a", 8)])).unwrap()).await;
    let mut changes = watch(&daemon).await;
    let first = next(&mut changes).await;
    assert_eq!(
        first
            .updated
            .iter()
            .map(|model| model.id.as_str())
            .collect::<Vec<_>>(),
        ["a"]
    );

    put(&daemon.models().join("b.gguf"), &gguf(&[("b", 8)]));
    let added = next(&mut changes).await;
    assert_eq!(
        (
            added.updated.len(),
            added.updated[0].id.as_str(),
            added.removed.len()
        ),
        (1, "b", 0)
    );
    assert_eq!(added.updated[0].status(), ModelStatus::Available);

    put(
        &daemon.models().join("b.gguf"),
        &gguf(&[("b", 8), ("c", 8)]),
    );
    let changed = next(&mut changes).await;
    assert_eq!(
        (changed.updated.len(), changed.updated[0].tensor_count),
        (1, 2)
    );
    assert!(changed.updated[0].generation > added.updated[0].generation);
    assert_ne!(
        changed.updated[0].directory_hash,
        added.updated[0].directory_hash
    );

    fs::remove_file(daemon.models().join("b.gguf")).unwrap();
    let removed = next(&mut changes).await;
    assert_eq!(
        (removed.updated.len(), removed.removed),
        (0, vec!["b".to_owned()])
    );
    assert_eq!(
        reason(&daemon.model("b").await.unwrap_err(), Code::NotFound),
        "UNKNOWN_MODEL"
    );
    daemon.end().await.unwrap();
}

#[tokio::test]
async fn new_directories_are_followed_too() {
    let daemon = Daemon::start(|_| ()).await;
    let mut changes = watch(&daemon).await;
    next(&mut changes).await;

    fs::create_dir_all(daemon.models().join("x/y")).unwrap();
    put(&daemon.models().join("x/y/m.gguf"), &gguf(&[("a", 8)]));
    assert_eq!(
        updated(&mut changes, "x/y/m").await.status(),
        ModelStatus::Available
    );

    symlink("x", daemon.models().join("alias")).unwrap();
    assert_eq!(
        updated(&mut changes, "alias/y/m").await.status(),
        ModelStatus::Available
    );
    // The link's going takes a watch with it; the directory itself must still be followed.
    fs::remove_file(daemon.models().join("alias")).unwrap();
    assert_eq!(next(&mut changes).await.removed, ["alias/y/m"]);
    put(&daemon.models().join("x/y/n.gguf"), &gguf(&[("a", 8)]));
    assert_eq!(
        updated(&mut changes, "x/y/n").await.status(),
        ModelStatus::Available
    );

    fs::remove_dir_all(daemon.models().join("x")).unwrap();
    let mut gone = Vec::new();
    while gone.len() < 2 {
        gone.extend(next(&mut changes).await.removed);
    }
    assert_eq!(gone, ["x/y/m", "x/y/n"]);
    daemon.end().await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_written_in_place_becomes_good_and_bad() {
    let daemon =
        Daemon::start(|models| fs::write(models.join("m.gguf"), "half of it").unwrap()).await;
    let mut changes = watch(&daemon).await;
    assert_eq!(
        next(&mut changes).await.updated[0].status(),
        ModelStatus::Invalid
    );

    fs::write(daemon.models().join("m.gguf"), gguf(&[("a", 8)])).unwrap();
    while updated(&mut changes, "m").await.status() != ModelStatus::Available {}
    fs::write(daemon.models().join("m.gguf"), "broken again").unwrap();
    while updated(&mut changes, "m").await.status() != ModelStatus::Invalid {}
    daemon.end().await.unwrap();
}

#[tokio::test]
async fn a_pin_is_a_change() {
    let daemon =
        Daemon::start(|models| fs::write(models.join("m.gguf"), gguf(&[("a", 8)])).unwrap()).await;
    let mut changes = watch(&daemon).await;
    assert!(!next(&mut changes).await.updated[0].pinned);
    daemon.prefetched("m", true).await.unwrap();
    assert!(updated(&mut changes, "m").await.pinned);
    daemon.end().await.unwrap();
}

#[tokio::test]
async fn the_drain_ends_a_watch() {
    let daemon = Daemon::start(|_| ()).await;
    let mut changes = watch(&daemon).await;
    next(&mut changes).await;
    let ending = tokio::spawn(daemon.end());
    let status = patiently(changes.message()).await.unwrap_err();
    assert_eq!(reason(&status, Code::Unavailable), "SHUTTING_DOWN");
    patiently(ending).await.unwrap().unwrap();
}
