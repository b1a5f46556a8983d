use std::{sync::Arc, time::Instant};

use gguf::ExtentId;
use loader::Config;

use crate::support::{Daemon, all, drop_cache, patiently, tensors, write};

async fn start(change: impl FnOnce(&mut Config)) -> Daemon {
    Daemon::start_with(
        |models| {
            for name in ["cold.gguf", "warm.gguf"] {
                write(&models.join(name), &tensors(8));
            }
            drop_cache(&models.join("cold.gguf"));
        },
        change,
    )
    .await
}

#[tokio::test]
async fn a_model_that_crawls_in_does_not_hold_up_one_that_is_there() {
    // Less than a page a second.
    let daemon = start(|config| config.read_rate_max = Some(100)).await;
    let crawling = daemon
        .accept(daemon.acquire("cold").await.unwrap().token)
        .await
        .unwrap();
    let crawling = Arc::new(crawling);
    let mut prefetch = daemon.prefetch("cold", false).await.unwrap();
    patiently(prefetch.message()).await.unwrap();
    let fetches: Vec<_> = (0..8)
        .map(|extent| {
            let weights = Arc::clone(&crawling);
            tokio::task::spawn_blocking(move || weights.fetch(ExtentId(extent)))
        })
        .collect();

    // All reader threads would wait for their rate now, and forty of these for them.
    for _ in 0..5 {
        let warm = daemon
            .accept(daemon.acquire("warm").await.unwrap().token)
            .await
            .unwrap();
        let fetching = move || {
            (0..8)
                .map(|extent| warm.fetch(ExtentId(extent)).unwrap())
                .collect::<Vec<_>>()
        };
        for fetched in patiently(tokio::task::spawn_blocking(fetching))
            .await
            .unwrap()
        {
            assert_eq!(
                (fetched.cold_bytes, fetched.warm_bytes, fetched.self_read),
                (0, 1 << 20, false)
            );
        }
    }
    drop(prefetch);
    daemon.end().await.unwrap();
    for fetch in fetches {
        patiently(fetch).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn storage_is_read_at_the_rate_and_the_page_cache_is_free() {
    let daemon = start(|config| config.read_rate_max = Some(16 << 20)).await;
    let began = Instant::now();
    all(daemon.prefetch("cold", false).await.unwrap())
        .await
        .unwrap();
    // 8 MiB at 16 MiB/s.
    assert!(began.elapsed().as_millis() >= 450, "{:?}", began.elapsed());
    for _ in 0..8 {
        assert_eq!(
            daemon.prefetched("warm", false).await.unwrap().cold_bytes,
            0
        );
    }
    daemon.end().await.unwrap();
}
