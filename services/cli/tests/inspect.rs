//! `hearth inspect` on good, malformed and impossible files.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use gguf::{TensorType, write::Writer};

fn inspect(args: &[&str], file: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hearth"))
        .arg("inspect")
        .args(args)
        .arg(file)
        .output()
        .expect("the binary runs")
}

/// A good file's bytes.
fn good() -> Vec<u8> {
    let header = Writer::new()
        .metadata("general.architecture", "llama")
        .metadata("general.name", "tiny")
        .tensor("token_embd.weight", &[32, 4], TensorType::Q8_0)
        .finish()
        .expect("a valid header");
    let mut bytes = header.bytes;
    bytes.resize(usize::try_from(header.file_len).expect("small"), 0);
    bytes
}

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Dir {
        Dir(tempfile::tempdir().expect("a temporary directory"))
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).expect("a temporary file");
        path
    }
}

#[test]
fn a_good_file_is_shown_without_colours_in_a_pipe() {
    let dir = Dir::new();
    let output = inspect(&[], &dir.file("tiny.gguf", &good()));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(output.status.success());
    assert!(output.stderr.is_empty());
    for part in [
        "tiny.gguf",
        "GGUF v3, llama, 128 parameters",
        "general.name",
        "\"tiny\"",
        "token_embd.weight  Q8_0  32×4",
    ] {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
    assert!(!text.contains('\x1b'), "{text}");
}

#[test]
fn json_is_one_object() {
    let dir = Dir::new();
    let output = inspect(&["--json"], &dir.file("tiny.gguf", &good()));
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(value["tensors"][0]["length_bytes"], 136);
    assert_eq!(value["metadata"][1]["value"], "tiny");
    assert_eq!(
        value["files"][0]["header_bytes"].as_u64(),
        value["tensors"][0]["offset_bytes"].as_u64()
    );
}

#[test]
fn malformed_files_name_the_problem() {
    let dir = Dir::new();
    let good = good();
    let with = |offset: usize, bytes: &[u8]| {
        let mut file = good.clone();
        file[offset..offset + bytes.len()].copy_from_slice(bytes);
        file
    };
    for (name, bytes, word) in [
        ("magic", with(0, b"GGML"), "not a GGUF file"),
        ("version", with(4, &9u32.to_le_bytes()), "version 9"),
        ("big-endian", with(4, &3u32.to_be_bytes()), "big-endian"),
        ("count", with(8, &u64::MAX.to_le_bytes()), "tensor count"),
        ("short", good[..40].to_vec(), "truncated"),
        (
            "no-data",
            good[..good.len() - 100].to_vec(),
            "token_embd.weight",
        ),
        ("empty", Vec::new(), "truncated"),
    ] {
        let output = inspect(&[], &dir.file(name, &bytes));
        let text = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(65), "{name}: {text}");
        assert!(
            text.contains(word) && text.lines().count() == 1,
            "{name}: {text}"
        );
        assert!(text.contains(&format!("{name}: ")), "{name}: {text}");
        assert!(output.stdout.is_empty(), "{name}");
    }
}

#[test]
fn what_is_no_file_is_refused() {
    let dir = Dir::new();
    for (path, status) in [
        (dir.0.path().join("missing.gguf"), 66),
        (dir.0.path().to_owned(), 66),
        (PathBuf::from("/dev/zero"), 74),
    ] {
        let output = inspect(&[], &path);
        assert_eq!(output.status.code(), Some(status), "{}", path.display());
    }
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    let dir = Dir::new();
    let mut writer = Writer::new();
    for index in 0..20_000 {
        writer = writer.metadata(format!("key.{index}"), index);
    }
    let header = writer.finish().expect("a valid header");
    let path = dir.file("long.gguf", &header.bytes);
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
    let mut child = command
        .arg("inspect")
        .arg(&path)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut first = [0; 16];
    let mut stdout = child.stdout.take().expect("a pipe");
    stdout.read_exact(&mut first).expect("some output");
    drop(stdout);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(output.status.success(), "{:?}", output.status);
}
