use regex::Regex;

use crate::TokenizerError;
use crate::definitions::{DEFAULT, DEFINITIONS, Definition, LastSpace, Stage};

/// Cuts text into the words within which bytes are merged.
#[derive(Debug, Clone)]
pub(crate) struct PreTokenizer {
    stages: Vec<Cut>,
}

/// A stage, compiled.
#[derive(Debug, Clone)]
enum Cut {
    /// Anchored. A search for the next match would find its end and then look for its beginning, backwards: with such patterns that takes a hundred times as long on text of many scripts.
    Words(Regex, LastSpace),
    Isolate(Regex),
}

/// The definition under `name`; that for `None` if a file names none.
pub(crate) fn definition(name: Option<&str>) -> Result<&'static Definition, TokenizerError> {
    // An empty name is what some converters write for none.
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        return Ok(&DEFAULT);
    };
    let unsupported = || TokenizerError::UnsupportedPreTokenizer {
        name: name.to_owned(),
    };
    DEFINITIONS
        .iter()
        .find(|definition| definition.names.contains(&name))
        .ok_or_else(unsupported)
}

impl PreTokenizer {
    pub(crate) fn new(definition: &Definition) -> PreTokenizer {
        let compile = |pattern: &str| {
            Regex::new(pattern).expect("definitions are constants, compiled in tests")
        };
        let cut = |stage: &Stage| match stage {
            Stage::Words {
                pattern,
                last_space,
            } => Cut::Words(compile(&format!(r"\A(?:{pattern})")), *last_space),
            Stage::Isolate(pattern) => Cut::Isolate(compile(pattern)),
        };
        PreTokenizer {
            stages: definition.stages.iter().map(cut).collect(),
        }
    }

    /// Calls `each` with the words of `text` in order; together they are `text`.
    pub(crate) fn split<'t>(&self, text: &'t str, mut each: impl FnMut(&'t str)) {
        split(&self.stages, text, &mut each);
    }
}

fn split<'t>(stages: &[Cut], text: &'t str, each: &mut dyn FnMut(&'t str)) {
    let Some((stage, later)) = stages.split_first() else {
        if !text.is_empty() {
            each(text);
        }
        return;
    };
    let mut rest = text;
    // No pattern matches nothing, so every turn gets on.
    match stage {
        Cut::Words(pattern, last_space) => {
            while let Some(found) = pattern.find(rest) {
                let (word, behind) = rest.split_at(last_space.end_of(rest, found.end()));
                split(later, word, each);
                rest = behind;
            }
        }
        Cut::Isolate(pattern) => {
            while let Some(found) = pattern.find(rest) {
                split(later, &rest[..found.start()], each);
                split(later, found.as_str(), each);
                rest = &rest[found.end()..];
            }
        }
    }
    split(later, rest, each);
}

impl LastSpace {
    /// Where the word ends that matches the first `matched` bytes of `text`, once its last white space has been left to what follows.
    fn end_of(self, text: &str, matched: usize) -> usize {
        let leaves = |space: char| match self {
            LastSpace::Leaves => space.is_whitespace(),
            LastSpace::LeavesUnlessLineEnd => {
                space.is_whitespace() && !matches!(space, '\r' | '\n')
            }
        };
        // Matches that end in white space are runs of it, and as long as can be: what follows, if anything, is visible.
        match text[..matched].char_indices().next_back() {
            Some((before @ 1.., last)) if matched < text.len() && leaves(last) => before,
            _ => matched,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words<'t>(name: &str, text: &'t str) -> Vec<&'t str> {
        let mut words = Vec::new();
        PreTokenizer::new(definition(Some(name)).unwrap()).split(text, |word| words.push(word));
        words
    }

    #[test]
    fn gpt2_words() {
        let check =
            |text: &str, expected: &[&str]| assert_eq!(words("gpt-2", text), expected, "{text:?}");
        check("", &[]);
        check("Hello world", &["Hello", " world"]);
        check("I'm you'RE", &["I", "'m", " you", "'", "RE"]);
        check("a   b", &["a", "  ", " b"]);
        check("a\n\nb", &["a", "\n", "\n", "b"]);
        check("a  ", &["a", "  "]);
        check("x12 345!?", &["x", "12", " 345", "!?"]);
        check("\u{3000}\u{3000}日本", &["\u{3000}", "\u{3000}", "日本"]);
    }

    #[test]
    fn llama_words() {
        let check = |text: &str, expected: &[&str]| {
            assert_eq!(words("llama-bpe", text), expected, "{text:?}")
        };
        check("it'S 12345 ok", &["it", "'S", " ", "123", "45", " ok"]);
        check("a\n\n  b", &["a", "\n\n", " ", " b"]);
        check("a  \n b", &["a", "  \n", " b"]);
        check("(x) !\r\n", &["(x", ")", " !\r\n"]);
        check("\t\tx", &["\t", "\tx"]);
        check("   ", &["   "]);
        check("  12", &[" ", " ", "12"]);
    }

    #[test]
    fn stages_cut_what_the_ones_before_them_left() {
        assert_eq!(words("qwen2", "a12"), ["a", "1", "2"]);
        assert_eq!(words("starcoder", "a12 3"), ["a", "1", "2", " ", "3"]);
        assert_eq!(
            words("deepseek-coder", "a\n\n b, 12"),
            ["a", "\n", "\n", " b", ",", " ", "1", "2"]
        );
        assert_eq!(words("default", "12345 a+b"), ["123", "45", " a", "+", "b"]);
    }

    /// A word can begin with any character, or all text behind the first that none begins with would be one word.
    #[test]
    fn words_cover_every_character() {
        for cut in DEFINITIONS
            .iter()
            .flat_map(|definition| PreTokenizer::new(definition).stages)
        {
            let Cut::Words(pattern, _) = cut else {
                continue;
            };
            for character in ('\0'..=char::MAX).step_by(7).chain('\0'..'\u{3100}') {
                assert!(
                    pattern.is_match(character.encode_utf8(&mut [0; 4])),
                    "{pattern} {character:?}"
                );
            }
        }
    }

    #[test]
    fn unknown_names_are_refused() {
        assert_eq!(
            definition(Some("no-such")).unwrap_err(),
            TokenizerError::UnsupportedPreTokenizer {
                name: "no-such".to_owned()
            }
        );
        assert_eq!(definition(None).unwrap().names, DEFAULT.names);
        assert_eq!(definition(Some("")).unwrap().names, DEFAULT.names);
    }

    proptest::proptest! {
        #[test]
        fn words_are_the_text(text in "[a-z 0-9\\n\\r\\t'!é漢\u{300}\u{a0}]{0,40}|\\PC{0,40}", row in 0..DEFINITIONS.len()) {
            let mut joined = String::new();
            PreTokenizer::new(&DEFINITIONS[row]).split(&text, |word| {
                assert!(!word.is_empty());
                joined.push_str(word);
            });
            proptest::prop_assert_eq!(joined, text);
        }
    }
}
