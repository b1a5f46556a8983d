use gguf::ExtentId;

use crate::support::{Daemon, drop_cache, tensors, until, write};

const MIB: u64 = 1 << 20;

async fn start() -> Daemon {
    Daemon::start_with(
        |models| {
            for name in ["a.gguf", "b.gguf"] {
                write(&models.join(name), &tensors(3));
                drop_cache(&models.join(name));
            }
        },
        |config| config.cache_budget_bytes = Some(4 * MIB),
    )
    .await
}

async fn resident(daemon: &Daemon, id: &str) -> u64 {
    daemon.residency(id).await.unwrap().resident_bytes
}

#[tokio::test]
async fn what_was_used_last_stays() {
    let daemon = start().await;
    daemon.prefetched("a", false).await.unwrap();
    let whole = resident(&daemon, "a").await;
    assert!(whole >= 3 * MIB - 2 * 4096);
    daemon.prefetched("b", false).await.unwrap();
    assert_eq!(resident(&daemon, "b").await, whole);
    let rest = resident(&daemon, "a").await;
    // One extent fits beside the other model; the pages that extents share may stay.
    assert!(rest <= MIB + 4 * 4096, "{rest}");
    daemon.end().await.unwrap();
}

#[tokio::test]
async fn what_a_service_holds_stays_until_it_lets_go() {
    let daemon = start().await;
    let token = daemon.acquire("a").await.unwrap().token;
    let weights = daemon.accept(token).await.unwrap();
    let weights = tokio::task::spawn_blocking(move || {
        for extent in 0..3 {
            weights.fetch(ExtentId(extent)).unwrap();
        }
        weights
    })
    .await
    .unwrap();
    daemon.prefetched("b", false).await.unwrap();
    let whole = 3 * MIB - 2 * 4096;
    assert!(resident(&daemon, "a").await >= whole);

    // Word of an eviction makes the extents idle, and the next to need room takes it from them. The word takes its time: so more than one may have to try.
    let weights = tokio::task::spawn_blocking(move || {
        for extent in 0..3 {
            weights.evict(ExtentId(extent));
        }
        weights
    })
    .await
    .unwrap();
    until(|| async {
        daemon.prefetched("b", false).await.unwrap();
        resident(&daemon, "a").await <= MIB + 4 * 4096
    })
    .await;
    drop(weights);
    daemon.end().await.unwrap();
}
