//! Models whose weights stay.

use engine::{Engine, EngineConfig, EngineError};

use crate::model::{Tiny, write};
use crate::source::Memory;
use crate::support::{
    attach, attach_source, complete, config, model_stats, prompt, request, start,
};

#[tokio::test]
async fn a_model_can_be_pinned_later() {
    let file = write(Tiny::LLAMA);
    let total_bytes = {
        let engine = start(config());
        let source = Memory::new(&file);
        let report = attach_source(&engine, "m", &file, &source).await;
        report.tensor_bytes
    };
    let resident = |engine: &Engine| model_stats(engine, "m").resident_bytes;
    let squeezed = |pinned| {
        let file = &file;
        async move {
            let engine = start(EngineConfig {
                weights_budget_bytes: Some(total_bytes * 3 / 2),
                ..config()
            });
            attach(&engine, "m", file).await;
            attach(&engine, "n", file).await;
            if pinned {
                engine.pin("m").await.expect("it fits");
            }
            assert_eq!(model_stats(&engine, "m").pinned, pinned);
            for model in ["m", "n"] {
                let request = request(model, prompt(1, 5), 2);
                complete(&engine, request).await.expect("an answer");
            }
            engine
        }
    };
    assert!(
        resident(&squeezed(false).await) < total_bytes,
        "it gave way"
    );
    let engine = squeezed(true).await;
    assert_eq!(resident(&engine), total_bytes);
    engine.pin("m").await.expect("pinned already");
    let refused = engine.pin("n").await;
    assert!(
        matches!(refused, Err(EngineError::DoesNotFit { .. })),
        "{refused:?}"
    );
    assert!(!model_stats(&engine, "n").pinned);
    let unknown = engine.pin("x").await;
    assert!(matches!(unknown, Err(EngineError::UnknownModel { .. })));
}
