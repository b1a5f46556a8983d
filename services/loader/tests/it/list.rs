use std::{
    fs,
    os::unix::{fs::symlink, net::UnixListener},
    path::Path,
};

use gguf::{Value, write::Writer};
use proto::loader::v1::{ListModelsRequest, Model, ModelStatus};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::support::{Daemon, gguf, gguf_with, reason, tempdir};

async fn list(daemon: &Daemon) -> Vec<Model> {
    daemon
        .client
        .clone()
        .list_models(ListModelsRequest {})
        .await
        .unwrap()
        .into_inner()
        .models
}

#[tokio::test]
async fn models_are_listed_with_what_they_are() {
    let daemon = Daemon::start_with(
        |models| {
            fs::create_dir(models.join("org")).unwrap();
            fs::write(
                models.join("org/tiny-Q8_0.gguf"),
                gguf(&[("a", 8), ("b", 64)]),
            )
            .unwrap();
            fs::write(models.join("notes.txt"), "no model").unwrap();
        },
        |config| config.pin = vec![loader::id::ModelId::parse("org/tiny-Q8_0").unwrap()],
    )
    .await;
    let models = list(&daemon).await;
    assert_eq!(models.len(), 1);
    let model = &models[0];
    assert_eq!(model.id, "org/tiny-Q8_0");
    assert_eq!(model.status(), ModelStatus::Available);
    assert_eq!(
        (model.reason.as_str(), model.architecture.as_str()),
        ("", "llama")
    );
    assert_eq!(
        (model.tensor_count, model.tensor_bytes, model.file_count),
        (2, 8 * 4 + 64 * 4, 1)
    );
    assert_eq!(
        model.file_bytes,
        fs::metadata(daemon.models().join("org/tiny-Q8_0.gguf"))
            .unwrap()
            .len()
    );
    assert_eq!((model.lease_count, model.pinned), (0, true));
    assert_eq!(
        (model.directory_hash.len(), model.digest.as_str()),
        (64, "")
    );
    assert!(model.generation > 0);
    assert_eq!(daemon.model("org/tiny-Q8_0").await.unwrap(), *model);
    daemon.end().await.unwrap();
}

fn split(number: u16, count: u16, tensors: &[(&str, u64)]) -> Vec<u8> {
    let writer = Writer::new()
        .metadata("split.no", Value::from(number))
        .metadata("split.count", Value::from(count))
        .metadata("split.tensors.count", Value::from(2_i32));
    gguf_with(writer, tensors)
}

#[tokio::test]
async fn parts_are_one_model() {
    let daemon = Daemon::start(|models| {
        fs::write(
            models.join("m-00001-of-00002.gguf"),
            split(0, 2, &[("a", 8)]),
        )
        .unwrap();
        fs::write(
            models.join("m-00002-of-00002.gguf"),
            split(1, 2, &[("b", 16)]),
        )
        .unwrap();
    })
    .await;
    let models = list(&daemon).await;
    assert_eq!(models.len(), 1, "{models:?}");
    assert_eq!(
        (models[0].id.as_str(), models[0].reason.as_str()),
        ("m", "")
    );
    assert_eq!(
        (
            models[0].file_count,
            models[0].tensor_count,
            models[0].tensor_bytes
        ),
        (2, 2, 8 * 4 + 16 * 4)
    );
    daemon.end().await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_used_is_listed_with_the_reason() {
    let outside = tempdir();
    fs::write(outside.path().join("secret.gguf"), gguf(&[("a", 8)])).unwrap();
    let good = gguf(&[("a", 64)]);
    let mut sockets = Vec::new();
    let daemon = Daemon::start(|models| {
        fs::write(models.join("magic.gguf"), "not a model at all").unwrap();
        fs::write(models.join("empty.gguf"), "").unwrap();
        fs::write(models.join("cut.gguf"), &good[..good.len() - 32]).unwrap();
        fs::create_dir(models.join("dir.gguf")).unwrap();
        fs::write(models.join("dir.gguf/inner.gguf"), &good).unwrap();
        fs::write(models.join("twice.gguf"), &good).unwrap();
        fs::write(models.join("twice-00001-of-00001.gguf"), &good).unwrap();
        fs::write(models.join("part-00001-of-00002.gguf"), &good).unwrap();
        fs::write(models.join("bad name.gguf"), &good).unwrap();
        symlink(
            outside.path().join("secret.gguf"),
            models.join("escapes.gguf"),
        )
        .unwrap();
        symlink(
            "../../../../../../../../../etc/hostname",
            models.join("climbs.gguf"),
        )
        .unwrap();
        symlink("nowhere.gguf", models.join("dangles.gguf")).unwrap();
        symlink("circle.gguf", models.join("circle.gguf")).unwrap();
        symlink("/proc/self/exe", models.join("magic-link.gguf")).unwrap();
        symlink(outside.path(), models.join("linked")).unwrap();
        sockets.push(UnixListener::bind(models.join("socket.gguf")).unwrap());
    })
    .await;
    let models = list(&daemon).await;
    let mut seen = Vec::new();
    for model in &models {
        assert_eq!(model.status(), ModelStatus::Invalid, "{model:?}");
        assert!(!model.reason.is_empty(), "{model:?}");
        assert_eq!(
            (model.architecture.as_str(), model.tensor_count),
            ("", 0),
            "{model:?}"
        );
        seen.push(model.id.as_str());
    }
    let expected = [
        "bad name",
        "circle",
        "climbs",
        "cut",
        "dangles",
        "dir",
        "empty",
        "escapes",
        "magic",
        "magic-link",
        "part",
        "socket",
        "twice",
    ];
    assert_eq!(seen, expected);
    let says = |id: &str, words: &str| {
        let reason = &models.iter().find(|model| model.id == id).unwrap().reason;
        assert!(reason.contains(words), "{id}: {reason}");
    };
    says("bad name", "characters");
    says("dir", "is a directory, not a regular file");
    says("twice", "doubled: twice.gguf, twice-00001-of-00001.gguf");
    says("part", "part 2 of 2 is missing");
    says("magic", "magic");
    daemon.end().await.unwrap();
}

#[tokio::test]
async fn links_that_stay_inside_are_followed() {
    let daemon = Daemon::start(|models| {
        fs::create_dir(models.join("blobs")).unwrap();
        fs::create_dir(models.join("snapshot")).unwrap();
        fs::write(models.join("blobs/0123"), gguf(&[("a", 8)])).unwrap();
        symlink("../blobs/0123", models.join("snapshot/m.gguf")).unwrap();
        symlink("snapshot", models.join("latest")).unwrap();
    })
    .await;
    let models = list(&daemon).await;
    let ids: Vec<(&str, &str)> = models
        .iter()
        .map(|model| (model.id.as_str(), model.reason.as_str()))
        .collect();
    assert_eq!(ids, [("latest/m", ""), ("snapshot/m", "")]);
    daemon.end().await.unwrap();
}

#[tokio::test]
async fn an_unknown_model_names_the_known_ones() {
    let daemon = Daemon::start(|models| {
        fs::write(models.join("a.gguf"), gguf(&[("a", 8)])).unwrap();
        fs::write(models.join("b.gguf"), "bad").unwrap();
    })
    .await;
    let status = daemon.model("../etc/passwd").await.unwrap_err();
    assert_eq!(reason(&status, Code::NotFound), "UNKNOWN_MODEL");
    assert_eq!(
        status.get_error_details().error_info().unwrap().metadata["known_models"],
        "a b"
    );
    daemon.end().await.unwrap();
}

#[tokio::test]
async fn an_empty_directory_is_an_empty_list() {
    let daemon = Daemon::start(|_: &Path| ()).await;
    assert!(list(&daemon).await.is_empty());
    daemon.end().await.unwrap();
}
