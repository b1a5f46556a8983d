//! The same through real files and mappings.

use std::io::Write;
use std::sync::Arc;

use engine::{AttachRequest, Engine, EngineError};
use weights::Weights;

use crate::model::{File, Tiny, write};
use crate::support::{attach, complete, config, prompt, request, start};

async fn attach_file(engine: &Engine, file: &File) -> tempfile::NamedTempFile {
    let mut on_disk = tempfile::Builder::new()
        .suffix(".gguf")
        .tempfile()
        .expect("a place for files");
    on_disk.write_all(&file.bytes).expect("room on the disk");
    on_disk.flush().expect("room on the disk");
    let weights = Weights::open(on_disk.path()).expect("a sound file");
    let request = AttachRequest {
        id: "m".to_owned(),
        weights: Arc::new(weights),
        tokenizer: file.tokenizer.clone(),
        pin: false,
    };
    engine.attach(request).await.expect("a sound model");
    on_disk
}

#[tokio::test]
async fn a_mapped_file_says_what_memory_says() {
    let file = write(Tiny::LLAMA);
    let in_memory = start(config());
    attach(&in_memory, "m", &file).await;
    let expected = complete(&in_memory, request("m", prompt(1, 20), 10))
        .await
        .expect("an answer");

    let engine = start(config());
    let _on_disk = attach_file(&engine, &file).await;
    for _ in 0..2 {
        let found = complete(&engine, request("m", prompt(1, 20), 10))
            .await
            .expect("an answer");
        assert_eq!(found.bits(), expected.bits());
        assert_eq!(
            found.load.moved_bytes() + found.load.hot_bytes,
            file.directory.tensor_bytes()
        );
        assert!(engine.unload("m", true).await.expect("attached") > 0);
    }
}

#[tokio::test]
async fn a_truncated_file_is_data_loss_and_no_signal() {
    let file = write(Tiny::LLAMA);
    let engine = start(config());
    let on_disk = attach_file(&engine, &file).await;
    on_disk
        .as_file()
        .set_len(file.bytes.len() as u64 / 2)
        .expect("truncated");
    let error = complete(&engine, request("m", prompt(1, 20), 10))
        .await
        .expect_err("half of it is gone");
    assert!(
        matches!(error, EngineError::DataLoss { cause: Some(_), .. }),
        "{error}"
    );
    assert!(engine.is_running());
}
