use std::fs;

use tonic::Code;
use tonic_types::StatusExt as _;

use crate::support::{Daemon, all, drop_cache, patiently, reason, tensors, until, write};

const MIB: u64 = 1 << 20;

#[tokio::test]
async fn progress_ends_with_the_whole_model() {
    let daemon = Daemon::start(|models| {
        write(&models.join("m.gguf"), &tensors(4));
        drop_cache(&models.join("m.gguf"));
    })
    .await;
    let messages = all(daemon.prefetch("m", false).await.unwrap())
        .await
        .unwrap();
    let (last, before) = messages.split_last().unwrap();
    assert!(last.done && before.iter().all(|message| !message.done));
    assert!(messages.is_sorted_by_key(|message| message.done_bytes));
    assert_eq!((last.done_bytes, last.total_bytes), (4 * MIB, 4 * MIB));
    assert_eq!(last.cold_bytes + last.warm_bytes, 4 * MIB);
    assert!(last.cold_bytes >= 4 * MIB - 4 * 4096, "{last:?}");
    assert_eq!(last.pin_refused, "");

    let again = daemon.prefetched("m", false).await.unwrap();
    assert_eq!(
        (again.cold_bytes, again.warm_bytes, again.done),
        (0, 4 * MIB, true)
    );
    daemon.end().await.unwrap();
}

#[tokio::test]
async fn residency_follows_the_page_cache() {
    let daemon = Daemon::start(|models| write(&models.join("m.gguf"), &tensors(4))).await;
    drop_cache(&daemon.models().join("m.gguf"));
    let cold = daemon.residency("m").await.unwrap();
    assert!(cold.resident_bytes <= 4096 * 4, "{cold:?}");
    assert!(cold.total_bytes >= 4 * MIB - 2 * 4096, "{cold:?}");
    daemon.prefetched("m", false).await.unwrap();
    let warm = daemon.residency("m").await.unwrap();
    assert_eq!(warm.resident_bytes, warm.total_bytes);
    assert!(["cachestat", "mincore"].contains(&warm.source.as_str()));
    drop_cache(&daemon.models().join("m.gguf"));
    assert!(daemon.residency("m").await.unwrap().resident_bytes <= 4096 * 4);
    assert_eq!(
        reason(&daemon.residency("none").await.unwrap_err(), Code::NotFound),
        "UNKNOWN_MODEL"
    );
    daemon.end().await.unwrap();
}

#[tokio::test]
async fn a_slow_prefetch_tells_how_far_it_is_and_stops_with_its_caller() {
    let daemon = Daemon::start_with(
        |models| {
            write(&models.join("m.gguf"), &tensors(8));
            drop_cache(&models.join("m.gguf"));
        },
        // Eight MiB would take a day.
        |config| config.read_rate_max = Some(100),
    )
    .await;
    let mut stream = daemon.prefetch("m", false).await.unwrap();
    for _ in 0..5 {
        let message = patiently(stream.message()).await.unwrap().unwrap();
        assert!(
            !message.done && message.done_bytes < message.total_bytes,
            "{message:?}"
        );
    }
    drop(stream);
    // Would wait for the prefetch if that had not ended.
    daemon.end().await.unwrap();
}

#[tokio::test]
async fn the_callers_deadline_holds_for_the_whole_stream() {
    let daemon = Daemon::start_with(
        |models| {
            write(&models.join("m.gguf"), &tensors(8));
            drop_cache(&models.join("m.gguf"));
        },
        |config| config.read_rate_max = Some(100),
    )
    .await;
    let mut request = tonic::Request::new(proto::loader::v1::PrefetchRequest {
        model: "m".to_owned(),
        pin: false,
    });
    request
        .metadata_mut()
        .insert("grpc-timeout", "300m".parse().unwrap());
    let stream = daemon
        .client
        .clone()
        .prefetch(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        reason(&all(stream).await.unwrap_err(), Code::DeadlineExceeded),
        "DEADLINE"
    );
    daemon.end().await.unwrap();
}

#[tokio::test]
async fn a_pinned_model_comes_back_when_its_pages_vanish() {
    let daemon = Daemon::start(|models| write(&models.join("m.gguf"), &tensors(2))).await;
    let last = daemon.prefetched("m", true).await.unwrap();
    assert!(daemon.model("m").await.unwrap().pinned);
    drop_cache(&daemon.models().join("m.gguf"));
    if last.pin_refused.is_empty() {
        let residency = daemon.residency("m").await.unwrap();
        assert_eq!(
            residency.resident_bytes, residency.total_bytes,
            "locked pages cannot be dropped"
        );
    }
    until(|| async {
        let residency = daemon.residency("m").await.unwrap();
        residency.resident_bytes == residency.total_bytes
    })
    .await;
    daemon.end().await.unwrap();
}

#[tokio::test]
async fn a_model_pinned_from_the_start_is_brought_in() {
    let daemon = Daemon::start_with(
        |models| {
            write(&models.join("m.gguf"), &tensors(2));
            drop_cache(&models.join("m.gguf"));
        },
        |config| config.pin = vec![loader::id::ModelId::parse("m").unwrap()],
    )
    .await;
    until(|| async {
        let residency = daemon.residency("m").await.unwrap();
        residency.resident_bytes == residency.total_bytes
    })
    .await;
    daemon.end().await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_prefetched() {
    let daemon = Daemon::start_with(
        |models| {
            write(&models.join("large.gguf"), &tensors(3));
            fs::write(models.join("bad.gguf"), "bad").unwrap();
        },
        |config| config.cache_budget_bytes = Some(2 * MIB),
    )
    .await;
    let refused = |id: &'static str| async { daemon.prefetched(id, true).await.unwrap_err() };
    assert_eq!(
        reason(&refused("none").await, Code::NotFound),
        "UNKNOWN_MODEL"
    );
    assert_eq!(
        reason(&refused("bad").await, Code::FailedPrecondition),
        "INVALID_MODEL"
    );
    let status = refused("large").await;
    assert_eq!(
        reason(&status, Code::FailedPrecondition),
        "OVER_CACHE_BUDGET"
    );
    let facts = status
        .get_error_details()
        .error_info()
        .unwrap()
        .metadata
        .clone();
    assert_eq!(
        (
            facts["need_bytes"].as_str(),
            facts["shortfall_bytes"].as_str()
        ),
        ("3145728", "1048576")
    );
    assert!(!daemon.model("large").await.unwrap().pinned);
    daemon.end().await.unwrap();
}

#[tokio::test]
async fn a_file_that_shrinks_meanwhile_is_data_loss() {
    let daemon = Daemon::start_with(
        |models| {
            write(&models.join("m.gguf"), &tensors(8));
            drop_cache(&models.join("m.gguf"));
        },
        // Four seconds for all of it.
        |config| config.read_rate_max = Some(2_000_000),
    )
    .await;
    let mut stream = daemon.prefetch("m", false).await.unwrap();
    patiently(stream.message()).await.unwrap();
    let file = fs::File::options()
        .write(true)
        .open(daemon.models().join("m.gguf"))
        .unwrap();
    file.set_len(MIB).unwrap();
    assert_eq!(
        reason(&all(stream).await.unwrap_err(), Code::DataLoss),
        "FILE_TRUNCATED"
    );
    daemon.end().await.unwrap();
}
