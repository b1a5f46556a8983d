use std::fs;

use gguf::write::Writer;
use proto::loader::v1::{GetDirectoryRequest, GetDirectoryResponse};
use tonic::{Code, Status};

use crate::support::{Daemon, gguf_with, reason};

async fn directory(
    daemon: &Daemon,
    model: &str,
    omit_metadata: bool,
) -> Result<GetDirectoryResponse, Status> {
    let request = GetDirectoryRequest {
        model: model.to_owned(),
        omit_metadata,
    };
    daemon
        .client
        .clone()
        .get_directory(request)
        .await
        .map(tonic::Response::into_inner)
}

#[tokio::test]
async fn tensors_and_metadata_are_as_in_the_file() {
    let writer = Writer::new()
        .metadata("general.architecture", "llama")
        .metadata("llama.block_count", 2_u32);
    let file = gguf_with(writer, &[("token_embd.weight", 64), ("output.weight", 8)]);
    let parsed = gguf::Directory::parse(&file, file.len() as u64).unwrap();
    let daemon = Daemon::start(|models| {
        fs::write(models.join("m.gguf"), &file).unwrap();
        fs::write(models.join("bad.gguf"), "bad").unwrap();
    })
    .await;

    let answer = directory(&daemon, "m", false).await.unwrap();
    assert_eq!(
        answer.generation,
        daemon.model("m").await.unwrap().generation
    );
    assert_eq!(answer.tensors.len(), parsed.tensors().len());
    for (sent, parsed) in answer.tensors.iter().zip(parsed.tensors()) {
        assert_eq!(
            (&sent.name, &sent.shape[..]),
            (&parsed.name, parsed.shape.dims())
        );
        assert_eq!(
            (
                sent.tensor_type.as_str(),
                sent.split_index,
                sent.extent_count
            ),
            ("F32", 0, 1)
        );
        assert_eq!(
            (sent.offset_bytes, sent.length_bytes),
            (parsed.offset_bytes, parsed.len_bytes)
        );
    }
    let metadata: Vec<_> = answer
        .metadata
        .iter()
        .map(|entry| {
            (
                entry.key.as_str(),
                entry.value_type.as_str(),
                entry.value_json.as_str(),
            )
        })
        .collect();
    assert_eq!(
        metadata,
        [
            ("general.architecture", "string", "\"llama\""),
            ("llama.block_count", "u32", "2")
        ]
    );

    let bare = directory(&daemon, "m", true).await.unwrap();
    assert_eq!((bare.tensors, bare.metadata.len()), (answer.tensors, 0));
    assert_eq!(
        reason(
            &directory(&daemon, "bad", false).await.unwrap_err(),
            Code::FailedPrecondition
        ),
        "INVALID_MODEL"
    );
    assert_eq!(
        reason(
            &directory(&daemon, "none", false).await.unwrap_err(),
            Code::NotFound
        ),
        "UNKNOWN_MODEL"
    );
    daemon.end().await.unwrap();
}
