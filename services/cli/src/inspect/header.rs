//! Reading no more of a file than its header.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use gguf::{Directory, ParseError};

use crate::failure::Failure;

/// First read: enough for a model without a vocabulary.
const STEP_BYTES_MIN: u64 = 64 << 10;
/// Later reads: a vocabulary of 128k tokens makes a header of several megabytes.
const STEP_BYTES_MAX: u64 = 1 << 20;
/// Most parts of a split model that are looked for.
const PARTS_MAX: u32 = 4096;

/// One file of a model.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) path: PathBuf,
    pub(super) file_bytes: u64,
}

/// Reads the header of one file.
///
/// # Errors
/// [`Failure::File`] if it cannot be read or is no regular file, [`Failure::Gguf`] if its header cannot be used.
pub(super) fn read(path: &Path) -> Result<(Part, Directory), Failure> {
    let open = || -> io::Result<(File, u64)> {
        let meta = std::fs::metadata(path)?;
        // Looked at before it is opened: opening a pipe that nobody writes to would wait for ever.
        if meta.is_dir() {
            return Err(io::Error::new(
                io::ErrorKind::IsADirectory,
                "this is a directory, not a GGUF file",
            ));
        }
        if !meta.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "this is not a regular file",
            ));
        }
        let file = File::open(path)?;
        Ok((file, meta.len()))
    };
    let (mut file, file_bytes) = open().map_err(Failure::file(path))?;
    let mut bytes = Vec::new();
    let mut step = STEP_BYTES_MIN;
    let mut need_bytes = 0;
    loop {
        let read = file
            .by_ref()
            .take(step)
            .read_to_end(&mut bytes)
            .map_err(Failure::file(path))?;
        let at_end = (read as u64) < step;
        step = (step * 2).min(STEP_BYTES_MAX);
        if (bytes.len() as u64) < need_bytes && !at_end {
            continue;
        }
        match Directory::parse(&bytes, file_bytes) {
            Ok(directory) => {
                return Ok((
                    Part {
                        path: path.to_owned(),
                        file_bytes,
                    },
                    directory,
                ));
            }
            Err(ParseError::Incomplete { need_bytes: more }) if !at_end => need_bytes = more,
            Err(source) => {
                return Err(Failure::Gguf {
                    path: path.to_owned(),
                    source,
                });
            }
        }
    }
}

/// The files of the split model that `path` is a part of, by its name (`NAME-00002-of-00005.gguf`); none if it is no part of one.
pub(super) fn siblings(path: &Path) -> Vec<PathBuf> {
    let name = path.file_name().and_then(|name| name.to_str());
    let Some((stem, count)) = name.and_then(split_name) else {
        return Vec::new();
    };
    (1..=count)
        .map(|number| path.with_file_name(format!("{stem}-{number:05}-of-{count:05}.gguf")))
        .collect()
}

/// `model-00002-of-00005.gguf` → `("model", 5)`.
fn split_name(name: &str) -> Option<(&str, u32)> {
    let (rest, count) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (stem, number) = rest.rsplit_once('-')?;
    let (number, count) = (five_digits(number)?, five_digits(count)?);
    (1..=count.min(PARTS_MAX))
        .contains(&number)
        .then_some((stem, count))
        .filter(|_| count <= PARTS_MAX)
}

fn five_digits(text: &str) -> Option<u32> {
    let plain = text.len() == 5 && text.bytes().all(|digit| digit.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_names() {
        for (name, expected) in [
            ("m-00002-of-00005.gguf", Some(("m", 5))),
            ("a-b-00001-of-00001.gguf", Some(("a-b", 1))),
            ("m.gguf", None),
            ("m-00006-of-00005.gguf", None),
            ("m-00000-of-00005.gguf", None),
            ("m-2-of-5.gguf", None),
            ("m-+0002-of-00005.gguf", None),
            ("m-00001-of-99999.gguf", None),
            ("m-00002-of-00005.bin", None),
        ] {
            assert_eq!(split_name(name), expected, "{name}");
        }
    }

    #[test]
    fn siblings_lie_side_by_side() {
        assert_eq!(
            siblings(Path::new("/x/m-00002-of-00002.gguf")),
            [
                PathBuf::from("/x/m-00001-of-00002.gguf"),
                PathBuf::from("/x/m-00002-of-00002.gguf")
            ]
        );
        assert!(siblings(Path::new("/x/m.gguf")).is_empty());
    }

    #[test]
    fn what_is_no_file_is_refused_before_it_is_opened() {
        let message = |path: &str| read(Path::new(path)).expect_err("refused").to_string();
        assert!(message("/proc").contains("directory"));
        assert!(message("/dev/null").contains("not a regular file"));
        assert!(message("/nowhere/at/all").contains("No such file"));
    }
}
