//! A lazy load reads no weight; the first token reads them all, once; and this test notices when a load is not lazy.

use e2e::client;
use e2e::model::Llama;
use e2e::node::{Daemon, Launch, Service, workspace};
use e2e::proc;
use proto::inference::v1::{GetModelRequest, LoadMode, LoadModelRequest, Model, PlanCounters};
use proto::loader::v1::GetResidencyRequest;

/// What a load in some mode left behind, before any token was asked for.
struct AfterLoad {
    acquired_bytes: u64,
    resident_in_page_cache_bytes: u64,
}

impl AfterLoad {
    fn is_lazy(&self) -> bool {
        self.acquired_bytes == 0 && self.resident_in_page_cache_bytes == 0
    }
}

#[tokio::test]
async fn lazy_load_reads_nothing_and_the_first_token_reads_everything() {
    let home = workspace();
    let models = home.path().join("models");
    let file = models.join("large.gguf");
    let tensor_bytes = Llama::large_extents()
        .write(&file)
        .expect("the model is written");
    let daemon = Daemon::start(home.path(), &models, &Launch::new()).await;

    let service = Service::start(home.path(), "lazy", &daemon, &Launch::new()).await;
    proc::drop_page_cache(&file).expect("the cache can be dropped");
    let lazy = load(&service, &daemon, LoadMode::Lazy).await;
    assert!(
        lazy.is_lazy(),
        "{} bytes acquired, {} in the page cache",
        lazy.acquired_bytes,
        lazy.resident_in_page_cache_bytes
    );

    let answer = client::generate(
        &mut service.client().await,
        client::greedy("large", &[1, 2, 3], 1),
    )
    .await
    .expect("a token");
    let loaded = answer
        .prefilled
        .and_then(|prefilled| prefilled.load)
        .expect("`prefilled` reports its load");
    let counters = counters(&service).await;
    assert!(
        counters.loaded_bytes as f64 >= 0.95 * tensor_bytes as f64,
        "{} of {tensor_bytes} bytes acquired",
        counters.loaded_bytes
    );
    assert_eq!(
        counters.loads,
        u64::from(counters.extents),
        "every extent is loaded once"
    );
    assert_eq!(
        loaded.cold_bytes + loaded.warm_bytes,
        tensor_bytes,
        "the first pass accounts for every byte"
    );
    drop(service);

    // The same check must be able to fail: an eager load is not lazy.
    proc::drop_page_cache(&file).expect("the cache can be dropped");
    let service = Service::start(home.path(), "eager", &daemon, &Launch::new()).await;
    let eager = load(&service, &daemon, LoadMode::Eager).await;
    assert!(!eager.is_lazy(), "an eager load passes for a lazy one");
    assert_eq!(eager.acquired_bytes, tensor_bytes);
}

async fn load(service: &Service, daemon: &Daemon, mode: LoadMode) -> AfterLoad {
    let request = LoadModelRequest {
        model: "large".to_owned(),
        mode: mode.into(),
        ..LoadModelRequest::default()
    };
    let mut progress = service
        .models()
        .await
        .load_model(request)
        .await
        .expect("the load starts")
        .into_inner();
    let mut last = None;
    while let Some(message) = progress.message().await.expect("the load goes well") {
        last = Some(message);
    }
    assert!(
        last.is_some_and(|message| message.done),
        "the last message of a load says that it is done"
    );
    let residency = GetResidencyRequest {
        model: "large".to_owned(),
    };
    let residency = daemon
        .client()
        .await
        .get_residency(residency)
        .await
        .expect("residency is known")
        .into_inner();
    AfterLoad {
        acquired_bytes: counters(service).await.loaded_bytes,
        resident_in_page_cache_bytes: residency.resident_bytes,
    }
}

async fn counters(service: &Service) -> PlanCounters {
    model(service)
        .await
        .counters
        .expect("an attached model has counters")
}

async fn model(service: &Service) -> Model {
    let request = GetModelRequest {
        model: "large".to_owned(),
    };
    service
        .models()
        .await
        .get_model(request)
        .await
        .expect("the model is known")
        .into_inner()
        .model
        .expect("an answer holds its model")
}
