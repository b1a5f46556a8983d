//! `hearth inspect`: what a GGUF file says of itself, without a daemon and without reading a weight.

mod header;
mod json;
mod text;

use std::path::{Path, PathBuf};

use clap::Args;
use gguf::Directory;

use crate::{failure::Failure, output};

/// Flags of `hearth inspect`.
#[derive(Args, Debug)]
pub(crate) struct Inspect {
    /// GGUF file; naming any part of a split model shows the whole model
    #[arg(value_name = "FILE.gguf")]
    file: PathBuf,
    /// Print one JSON object, with every array in full
    #[arg(long)]
    json: bool,
    /// Do not shorten long strings and arrays
    #[arg(long)]
    full: bool,
    /// Leave the tensors out
    #[arg(long)]
    no_tensors: bool,
    /// Leave the metadata out
    #[arg(long)]
    no_metadata: bool,
}

/// The files of a model and what their headers say.
#[derive(Debug)]
struct Inspected {
    /// In split order.
    files: Vec<header::Part>,
    directory: Directory,
}

impl Inspect {
    /// Reads the headers and prints them.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let (inspected, missing) = read(&self.file)?;
        if let Some(missing) = missing {
            let mut stderr = output::stderr();
            let label = stderr.style.yellow("note:");
            let shown = output::one_line(&self.file.display().to_string());
            stderr.line(format!(
                "{label} only {shown} is shown: {} is missing",
                output::one_line(&missing.display().to_string())
            ))?;
        }
        let sections = text::Sections {
            metadata: !self.no_metadata,
            tensors: !self.no_tensors,
            full: self.full,
        };
        let mut stdout = output::stdout();
        if self.json {
            stdout.json(&json::File::new(&inspected, &sections))?;
            return Ok(());
        }
        let text = text::lines(&inspected, &sections, stdout.style).join("\n");
        stdout.line(text)?;
        Ok(())
    }
}

/// Reads `file` and, if it is a part of a split model, the other parts; a missing part is named and only `file` is read then.
fn read(file: &Path) -> Result<(Inspected, Option<PathBuf>), Failure> {
    let siblings = header::siblings(file);
    let missing = siblings.iter().find(|sibling| !sibling.exists()).cloned();
    if siblings.is_empty() || missing.is_some() {
        let (part, directory) = header::read(file)?;
        return Ok((
            Inspected {
                files: vec![part],
                directory,
            },
            missing,
        ));
    }
    let mut files = Vec::new();
    let mut directories = Vec::new();
    for sibling in &siblings {
        let (part, directory) = header::read(sibling)?;
        files.push(part);
        directories.push(directory);
    }
    let joined = Directory::join(directories);
    let directory = joined.map_err(|source| Failure::Gguf {
        path: file.to_owned(),
        source,
    })?;
    Ok((Inspected { files, directory }, None))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use gguf::{StringArray, TensorType, Value, write::Writer};

    use super::*;
    use crate::output::Style;

    /// Writes a small file with one of everything that is shown in its own way.
    fn sample(dir: &Path) -> PathBuf {
        let tokens: StringArray = ["<s>", "a", "\n"].iter().collect();
        let header = Writer::new()
            .metadata("general.architecture", "llama")
            .metadata("general.name", "tiny\x1b[2J")
            .metadata("llama.block_count", 1u32)
            .metadata("llama.rope.freq_base", 10000.0f32)
            .metadata("tokenizer.ggml.tokens", tokens)
            .metadata("tokenizer.ggml.scores", Value::from(vec![0.5f32; 100]))
            .metadata("tokenizer.chat_template", "x".repeat(100))
            .tensor("token_embd.weight", &[32, 3], TensorType::Q8_0)
            .tensor("blk.0.ffn_up_exps.weight", &[32, 2, 4], TensorType::F16)
            .tensor("output_norm.weight", &[32], TensorType::F32)
            .finish()
            .expect("a valid header");
        let path = dir.join("tiny.gguf");
        let mut bytes = header.bytes;
        bytes.resize(usize::try_from(header.file_len).expect("small"), 0);
        fs::write(&path, bytes).expect("a temporary file");
        path
    }

    const ALL: text::Sections = text::Sections {
        metadata: true,
        tensors: true,
        full: false,
    };

    #[test]
    fn text_shows_everything_at_a_glance() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (inspected, missing) = read(&sample(dir.path())).expect("a good file");
        assert_eq!(missing, None);
        let mut lines = text::lines(&inspected, &ALL, Style::PLAIN);
        assert!(lines[0].ends_with("tiny.gguf (1.8 KiB)"), "{}", lines[0]);
        lines.remove(0);
        let expected = include_str!("testdata/tiny.txt");
        assert_eq!(lines.join("\n"), expected.trim_end());
    }

    #[test]
    fn nothing_is_shortened_in_full() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (inspected, _) = read(&sample(dir.path())).expect("a good file");
        let full = text::Sections {
            full: true,
            tensors: false,
            ..ALL
        };
        let lines = text::lines(&inspected, &full, Style::PLAIN).join("\n");
        assert!(lines.contains(&"x".repeat(100)), "{lines}");
        assert_eq!(lines.matches("0.5").count(), 100, "{lines}");
        assert!(!lines.contains("EXTENTS"), "{lines}");
    }

    #[test]
    fn json_holds_arrays_in_full() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (inspected, _) = read(&sample(dir.path())).expect("a good file");
        let value = serde_json::to_value(json::File::new(&inspected, &ALL)).expect("plain data");
        assert_eq!(value["version"], 3);
        assert_eq!(
            value["metadata"][4]["value"],
            serde_json::json!(["<s>", "a", "\n"])
        );
        assert_eq!(value["metadata"][3]["type"], "f32");
        assert_eq!(value["metadata"][3]["value"], 10000.0);
        assert_eq!(value["tensors"][1]["name"], "blk.0.ffn_up_exps.weight");
        assert_eq!(value["tensors"][1]["extent_count"], 4);
        assert_eq!(value["tensors"][1]["shape"], serde_json::json!([32, 2, 4]));
    }

    #[test]
    fn a_part_without_its_siblings_is_shown_alone() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let part = dir.path().join("tiny-00001-of-00002.gguf");
        fs::rename(sample(dir.path()), &part).expect("the same directory");
        let (inspected, missing) = read(&part).expect("a good part");
        assert_eq!(inspected.files.len(), 1);
        assert_eq!(missing, Some(dir.path().join("tiny-00002-of-00002.gguf")));
    }

    #[test]
    fn a_file_that_ends_early_is_named() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = sample(dir.path());
        let bytes = fs::read(&path).expect("just written");
        fs::write(&path, &bytes[..200]).expect("a temporary file");
        let message = read(&path).expect_err("refused").to_string();
        assert!(
            message.contains("tiny.gguf: ") && message.contains("truncated"),
            "{message}"
        );
    }
}
