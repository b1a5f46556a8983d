//! Model ids: the name of a file becomes the name of a model.

use std::{borrow::Borrow, fmt, path::Path};

/// A model's id: its path below the model directory without `.gguf` and split suffix.
///
/// Segments of `[A-Za-z0-9._-]+` joined by `/`, none of them `.` or `..`, so an id never leads anywhere but down.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ModelId(String);

/// Which part of a split model a file is.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Part {
    /// From 1.
    pub number: u32,
    /// How many files the name promises.
    pub count: u32,
}

/// What a file's path says about the model in it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Named {
    /// The id, or the text that would have been one.
    pub id: Result<ModelId, String>,
    /// The part, when the name has a split suffix.
    pub part: Option<Part>,
}

// === impl ModelId ===

impl ModelId {
    /// Longer texts are no ids: nothing that a client sends is looked up at any length.
    pub const BYTES_MAX: usize = 1024;

    /// An id, if the text is one.
    #[must_use]
    pub fn parse(text: &str) -> Option<ModelId> {
        let fits = text.len() <= ModelId::BYTES_MAX && text.split('/').all(is_segment);
        fits.then(|| ModelId(text.to_owned()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for ModelId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

fn is_segment(segment: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !segment.is_empty() && segment != "." && segment != ".." && segment.bytes().all(allowed)
}

// === impl Named ===

impl Named {
    /// Reads the path of a file below the model directory; `None` if it is not named `*.gguf`.
    pub(crate) fn from_path(relative: &Path) -> Option<Named> {
        let text = relative.to_string_lossy();
        let stem = text
            .strip_suffix(".gguf")
            .filter(|stem| !stem.is_empty() && !stem.ends_with('/'))?;
        let (stem, part) = split_suffix(stem);
        // A name that is not UTF-8 becomes one with U+FFFD in it, which is outside the alphabet.
        let id = ModelId::parse(stem).ok_or_else(|| stem.to_owned());
        Some(Named { id, part })
    }
}

/// Cuts `-NNNNN-of-MMMMM`: five digits each, as the tools that split files write them.
fn split_suffix(stem: &str) -> (&str, Option<Part>) {
    const SUFFIX_LEN: usize = "-00001-of-00002".len();
    let cut = || {
        let at = stem
            .len()
            .checked_sub(SUFFIX_LEN)
            .filter(|at| *at > 0 && stem.is_char_boundary(*at))?;
        let (number, count) = stem[at..].strip_prefix('-')?.split_once("-of-")?;
        let digits = |text: &str| {
            text.bytes()
                .all(|byte| byte.is_ascii_digit())
                .then(|| text.parse().ok())?
        };
        let part = Part {
            number: digits(number)?,
            count: digits(count)?,
        };
        (number.len() == 5).then_some((&stem[..at], part))
    };
    cut().map_or((stem, None), |(stem, part)| (stem, Some(part)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        for good in ["a", "a/b", "Llama-3.1_8B", "..a", "a..", "...", "x/.hidden"] {
            assert!(ModelId::parse(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "a/../b",
            "a b",
            "ü",
            "a\\b",
            "a\0",
            &"x".repeat(1025),
        ] {
            assert!(ModelId::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn paths() {
        type Expected<'a> = Option<(Result<&'a str, &'a str>, Option<(u32, u32)>)>;
        let check = |path: &str, expected: Expected<'_>| {
            let named = Named::from_path(Path::new(path));
            let got = named.as_ref().map(|named| {
                let id = named
                    .id
                    .as_ref()
                    .map(ModelId::as_str)
                    .map_err(String::as_str);
                (id, named.part.map(|part| (part.number, part.count)))
            });
            assert_eq!(got, expected, "{path}");
        };
        check("a.gguf", Some((Ok("a"), None)));
        check("org/a-Q8_0.gguf", Some((Ok("org/a-Q8_0"), None)));
        check("a-00002-of-00010.gguf", Some((Ok("a"), Some((2, 10)))));
        check("a-00000-of-00000.gguf", Some((Ok("a"), Some((0, 0)))));
        check("a-0001-of-00010.gguf", Some((Ok("a-0001-of-00010"), None)));
        check(
            "a-000001-of-0010.gguf",
            Some((Ok("a-000001-of-0010"), None)),
        );
        check(
            "a-+0001-of-00010.gguf",
            Some((Err("a-+0001-of-00010"), None)),
        );
        check("-00001-of-00002.gguf", Some((Ok("-00001-of-00002"), None)));
        check("my model.gguf", Some((Err("my model"), None)));
        check("a.GGUF", None);
        check("a.gguf.part", None);
        check(".gguf", None);
        check("x/.gguf", None);
        check("gguf", None);
    }
}
