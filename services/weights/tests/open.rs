//! Opening: what is read, what is refused, and which files belong together.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "clippy takes only `#[test]` functions for tests"
)]

mod common;

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use common::{
    TENSOR_BYTES, assert_bytes, directory, extents, is_warm, make_cold, model, nearly, open_cold,
    write, writer,
};
use gguf::write::Writer;
use gguf::{Array, ExtentId, ParseError, SplitFault, StringArray, Value};
use weights::accounting::{StorageRead, measure};
use weights::source::Source;
use weights::{FilesystemKind, OpenError, Weights};

/// Gives a header about `bytes` of metadata.
fn with_vocabulary(writer: Writer, bytes: u64) -> Writer {
    let mut tokens = StringArray::default();
    (0..bytes / 32).for_each(|index| tokens.push(format!("token {index:>18}").as_bytes()));
    writer.metadata("tokenizer.ggml.tokens", Value::Array(Array::String(tokens)))
}

#[test]
fn opening_a_cold_model_leaves_no_tensor_page_behind() {
    let dir = directory();
    for header_bytes in [0, 60_000, 400_000, 6_000_000] {
        let path = write(
            &dir.path().join("model.gguf"),
            with_vocabulary(writer(&TENSOR_BYTES), header_bytes),
        );
        make_cold(&path);
        let (weights, storage) = measure(|| Weights::open(&path).unwrap());
        let header_len = weights.directory().header_len(0);
        assert!(header_len >= header_bytes);
        let StorageRead::Bytes(read) = storage else {
            panic!("this kernel does not account")
        };
        assert!(
            read >= header_len && read <= header_len + (5 << 20),
            "{read} bytes read for a header of {header_len}"
        );
        let residency = weights.residency().unwrap();
        assert_eq!(residency.resident_bytes, 0, "header of {header_len} bytes");
        let on_overlay = weights.filesystem(0) == FilesystemKind::Overlay;
        let source = if on_overlay { "mincore" } else { "cachestat" };
        assert_eq!(residency.source.name(), source);
        assert_eq!(
            residency.total_bytes,
            weights
                .directory()
                .extents()
                .last()
                .unwrap()
                .range()
                .end
                .next_multiple_of(4096)
                - header_len.next_multiple_of(4096)
        );
    }
}

#[test]
fn opening_a_warm_model_leaves_it_warm() {
    let (_dir, path) = model();
    let weights = open_cold(&path);
    for extent in extents(&weights) {
        weights
            .read_extent(extent, &mut |_| std::ops::ControlFlow::Continue(()))
            .unwrap();
    }
    let again = Weights::open(&path).unwrap();
    assert!(is_warm(&again));
}

#[test]
fn identity_and_hash_tell_contents_apart() {
    let (dir, path) = model();
    let weights = Weights::open(&path).unwrap();
    let same = Weights::open(&path).unwrap();
    assert_eq!(
        (weights.identity(), weights.directory_hash()),
        (same.identity(), same.directory_hash())
    );
    assert_eq!(weights.filesystem(0), same.filesystem(0));
    assert_eq!(weights.identity()[0].size, path.metadata().unwrap().len());
    assert_eq!(weights.generation(), None);
    assert!(!weights.lease_held() && !weights.poisoned());
    let copy = Weights::open(&write(&dir.path().join("copy.gguf"), writer(&TENSOR_BYTES))).unwrap();
    assert_eq!(copy.directory_hash(), weights.directory_hash());
    assert_ne!(copy.identity(), weights.identity());
    let other = Weights::open(&write(
        &dir.path().join("other.gguf"),
        writer(&TENSOR_BYTES[1..]),
    ))
    .unwrap();
    assert_ne!(other.directory_hash(), weights.directory_hash());
}

#[test]
fn what_is_no_model_is_refused_with_the_reason() {
    let dir = directory();
    let path = |name: &str| dir.path().join(name);
    let open = |name: &str| Weights::open(&path(name)).unwrap_err();
    assert!(
        matches!(open("missing"), OpenError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    );
    assert!(matches!(open("."), OpenError::NotRegular { .. }));
    nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(matches!(open("fifo"), OpenError::NotRegular { .. }));
    File::create(path("empty")).unwrap();
    assert!(matches!(open("empty"), OpenError::Parse { .. }));
    std::fs::write(
        path("text"),
        "not a model at all, but long enough to hold a header",
    )
    .unwrap();
    assert!(matches!(
        open("text"),
        OpenError::Parse {
            source: ParseError::Magic { .. },
            ..
        }
    ));
    let whole = write(&path("whole"), writer(&[8192]));
    let bytes = std::fs::read(whole).unwrap();
    std::fs::write(path("cut"), &bytes[..bytes.len() - 1]).unwrap();
    assert!(open("cut").to_string().contains("exceeds the file"));
    assert!(matches!(
        Weights::open(Path::new("/dev/null")),
        Err(OpenError::NotRegular { .. })
    ));
}

fn write_splits(dir: &Path, stem: &str, count: u16) -> Vec<PathBuf> {
    let part = |number: u16| {
        let bytes = TENSOR_BYTES[usize::from(number) % TENSOR_BYTES.len()];
        let writer = Writer::new()
            .metadata("split.no", number)
            .metadata("split.count", count)
            .metadata("split.tensors.count", i32::from(count));
        let writer = writer.tensor(
            format!("part.{number}"),
            &[bytes / 4],
            gguf::TensorType::F32,
        );
        write(
            &dir.join(format!("{stem}-{:05}-of-{count:05}.gguf", number + 1)),
            writer,
        )
    };
    (0..count).map(part).collect()
}

#[test]
fn splits_are_found_and_joined() {
    let dir = directory();
    let paths = write_splits(dir.path(), "big", 3);
    paths.iter().for_each(|path| make_cold(path));
    let weights = std::sync::Arc::new(Weights::open(&paths[0]).unwrap());
    assert_eq!(
        (weights.directory().split_count(), weights.identity().len()),
        (3, 3)
    );
    assert_eq!(weights.residency().unwrap().resident_bytes, 0);
    for extent in extents(&weights) {
        weights.fetch(extent).unwrap();
        assert_bytes(&weights, extent);
    }
    weights.drop_page_cache(&[ExtentId(1)]).unwrap();
    let residency = weights.residency().unwrap();
    let missing = residency.total_bytes - residency.resident_bytes;
    assert!(nearly(TENSOR_BYTES[1] / 4096 * 4096, missing), "{missing}");
    let mut byte = [0];
    assert_eq!(weights.read_at(2, 0, &mut byte).unwrap(), 1);
    assert_eq!(
        weights.read_at(3, 0, &mut byte).unwrap_err().kind(),
        std::io::ErrorKind::NotFound
    );
}

#[test]
fn splits_that_do_not_fit_are_refused() {
    let dir = directory();
    let paths = write_splits(dir.path(), "big", 3);
    assert!(matches!(
        Weights::open(&paths[1]),
        Err(OpenError::NotFirstSplit {
            number: 2,
            count: 3,
            ..
        })
    ));
    let renamed = dir.path().join("first.gguf");
    std::fs::copy(&paths[0], &renamed).unwrap();
    assert!(matches!(
        Weights::open(&renamed),
        Err(OpenError::Misnamed { count: 3, .. })
    ));
    std::fs::copy(&paths[0], &paths[1]).unwrap();
    let wrong_order = Weights::open(&paths[0]).unwrap_err();
    assert!(
        matches!(
            wrong_order,
            OpenError::Parse {
                source: ParseError::Split(SplitFault::Order { part: 1, number: 0 }),
                ..
            }
        ),
        "{wrong_order}"
    );
    std::fs::remove_file(&paths[2]).unwrap();
    let missing = Weights::open(&paths[0]).unwrap_err();
    assert!(
        matches!(&missing, OpenError::Io { path, .. } if *path == paths[2]),
        "{missing}"
    );
    let many = writer(&[64])
        .metadata("split.no", 0_u16)
        .metadata("split.count", 2000_u16);
    let many = write(&dir.path().join("many-00001-of-02000.gguf"), many);
    assert!(matches!(
        Weights::open(&many),
        Err(OpenError::TooManyFiles {
            count: 2000,
            limit: 1024
        })
    ));
}

#[test]
fn nothing_outside_the_model_directory_is_opened() {
    let dir = directory();
    let models = dir.path().join("models");
    std::fs::create_dir_all(models.join("inner")).unwrap();
    write(&dir.path().join("outside.gguf"), writer(&[4096]));
    write(&models.join("inner/model.gguf"), writer(&[4096]));
    symlink("inner/model.gguf", models.join("inside-link.gguf")).unwrap();
    symlink("../outside.gguf", models.join("outside-link.gguf")).unwrap();
    symlink("/proc/self/fd/0", models.join("magic-link.gguf")).unwrap();
    let root = File::open(&models).unwrap();
    let open = |relative: &str| Weights::open_beneath(root.as_fd(), Path::new(relative));
    open("inner/model.gguf").unwrap();
    open("inside-link.gguf").unwrap();
    for outside in [
        "../outside.gguf",
        "outside-link.gguf",
        "magic-link.gguf",
        "/etc/passwd",
        "inner/../../outside.gguf",
    ] {
        let error = open(outside).unwrap_err();
        assert!(
            matches!(&error, OpenError::Outside { path } if path == Path::new(outside)),
            "{outside}: {error}"
        );
    }
    assert!(matches!(open("inner"), Err(OpenError::NotRegular { .. })));
}
