//! Experts come when a row was routed to them, and no sooner.

use std::collections::BTreeSet;
use std::sync::Arc;

use engine::{AttachRequest, EngineConfig, LoadProgress, LoadStats};
use gguf::ExtentId;
use tokio::sync::watch;

use crate::model::{File, N_USED, Tiny, write};
use crate::source::Memory;
use crate::support::{
    attach, complete, config, device_is_gpu, model_stats, prompt, request, start,
};

/// The extents of experts, layer by layer.
fn experts_of(file: &File) -> Vec<BTreeSet<ExtentId>> {
    let tensors = file.directory.tensors();
    let layers = (0..Tiny::EXPERTS.n_layers).map(|layer| {
        let prefix = format!("blk.{layer}.ffn_");
        let of_layer = tensors.iter().filter(|info| info.name.starts_with(&prefix));
        let experts = of_layer.filter(|info| info.name.contains("_exps."));
        experts.flat_map(|info| info.extent_ids()).collect()
    });
    layers.collect()
}

#[tokio::test]
async fn only_experts_that_a_row_goes_to_are_fetched() {
    let file = write(Tiny::EXPERTS);
    let engine = start(config());
    let source = attach(&engine, "m", &file).await;
    let first = complete(&engine, request("m", prompt(1, 1), 1)).await;
    let first = first.expect("an answer");
    let fetched: BTreeSet<ExtentId> = source.fetched().into_iter().collect();
    assert_eq!(fetched.len(), source.fetched().len(), "each extent once");
    let layers = experts_of(&file);
    for experts in &layers {
        // Gate, up and down of each.
        let of_layer = experts.intersection(&fetched).count();
        assert_eq!(of_layer, 3 * N_USED as usize, "one row in one step");
    }
    let dense = file.directory.extents().len() - layers.iter().map(BTreeSet::len).sum::<usize>();
    let n_chosen = layers.len() * 3 * N_USED as usize;
    assert_eq!(fetched.len(), dense + n_chosen, "everything else is needed");
    let resident_bytes = model_stats(&engine, "m").resident_bytes;
    assert_eq!(
        first.load.cold_bytes, resident_bytes,
        "what moved is what was used"
    );
    assert!(resident_bytes < source.total_bytes());

    // Whoever goes where another has been moves nothing.
    let again = complete(&engine, request("m", prompt(1, 1), 1)).await;
    assert_eq!(again.expect("an answer").load.hot_bytes, resident_bytes);
    assert_eq!(source.fetched().len(), fetched.len());

    // Many rows go nearly everywhere; nothing comes twice.
    complete(&engine, request("m", prompt(2, 100), 20))
        .await
        .expect("an answer");
    let distinct: BTreeSet<ExtentId> = source.fetched().into_iter().collect();
    assert!(distinct.len() > fetched.len());
    assert_eq!(distinct.len(), source.fetched().len(), "each extent once");

    let (progress, _watched) = watch::channel(LoadProgress::default());
    engine.load("m", progress).await.expect("room");
    assert_eq!(
        model_stats(&engine, "m").resident_bytes,
        source.total_bytes(),
        "an eager load brings all"
    );
}

/// With all of a model there, nobody need ask between its layers where the rows go; what is said and what is counted are the same.
#[tokio::test]
async fn experts_that_are_all_there_are_counted_when_they_are_used() {
    let file = write(Tiny::EXPERTS);
    let lazy = start(config());
    attach(&lazy, "m", &file).await;
    let engine = start(config());
    attach(&engine, "m", &file).await;
    let (progress, _watched) = watch::channel(LoadProgress::default());
    engine.load("m", progress).await.expect("room");
    for (n, len) in [(1, 1), (2, 1), (3, 30), (4, 1)] {
        // Decoding goes on for long enough that a step of each shape is recorded and run again.
        let request = || request("m", prompt(n, len), 6);
        let expected = complete(&lazy, request()).await.expect("an answer");
        let found = complete(&engine, request()).await.expect("an answer");
        assert_eq!(found.bits(), expected.bits(), "prompt {n}");
        let all = |load: LoadStats| load.cold_bytes + load.warm_bytes + load.hot_bytes;
        assert_eq!(found.load.hot_bytes, all(expected.load), "prompt {n}");
        assert_eq!(found.load.hot_bytes, all(found.load), "prompt {n}");
    }
    let [lazily, at_once] = [lazy, engine].map(|engine| {
        let extents = model_stats(&engine, "m").extents;
        extents.hits + extents.misses
    });
    assert_eq!(at_once, lazily, "extents that steps used");
}

#[tokio::test]
async fn experts_that_come_and_go_are_still_right() {
    let file = write(Tiny::EXPERTS);
    let roomy = start(config());
    attach(&roomy, "m", &file).await;
    let expected = complete(&roomy, request("m", prompt(1, 40), 20))
        .await
        .expect("an answer");
    let bytes = |id: &ExtentId| file.directory.extent(*id).len_bytes;
    let largest = experts_of(&file)[0].iter().map(bytes).sum::<u64>();
    let budget_bytes = largest + 20_000;
    let engine = start(EngineConfig {
        weights_budget_bytes: Some(budget_bytes),
        ..config()
    });
    let source = attach(&engine, "m", &file).await;
    assert!(budget_bytes < source.total_bytes());
    let squeezed = complete(&engine, request("m", prompt(1, 40), 20))
        .await
        .expect("an answer");
    assert_eq!(squeezed.bits(), expected.bits());
    let stats = engine.stats();
    assert!(stats.weights_used_bytes <= budget_bytes);
    let extents = stats.model("m").expect("attached").extents;
    assert!(extents.evictions > 20, "{extents:?}");
}

#[tokio::test]
async fn more_experts_than_a_device_chooses_from_are_refused_when_attached() {
    let file = write(Tiny {
        n_experts: 513,
        n_layers: 1,
        ..Tiny::EXPERTS
    });
    let engine = start(config());
    let attaching = engine.attach(AttachRequest {
        id: "m".to_owned(),
        weights: Memory::new(&file),
        tokenizer: Arc::clone(&file.tokenizer),
        pin: false,
    });
    match attaching.await {
        Ok(_) => assert!(!device_is_gpu(), "a GPU chooses from 512"),
        Err(error) => {
            assert!(device_is_gpu(), "{error}");
            let refusal = "needs 2 of 513 experts for each row; device hip has at most 32 of 512";
            let said = error.to_string();
            assert!(said.ends_with(refusal), "{said}");
        }
    }
}
