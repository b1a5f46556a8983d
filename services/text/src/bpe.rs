//! Byte-level byte-pair encoding, as GPT-2 introduced it.

use gguf::StringArray;

use crate::TokenizerError;
use crate::definitions::Definition;
use crate::lookup::Lookup;
use crate::merge::{LONGEST, Merger};
use crate::pretokenizer::PreTokenizer;
use crate::ranks::Ranks;
use crate::vocabulary::{Kind, Vocabulary};

/// A byte-level vocabulary's way from text to tokens.
pub(crate) struct BytePairs {
    pre_tokenizer: PreTokenizer,
    lookup: Lookup,
    ranks: Ranks,
    ignore_merges: bool,
    /// Stands for bytes that the vocabulary does not have; without it they vanish.
    unknown: Option<u32>,
}

impl BytePairs {
    /// `in_alphabet` tells of each token whether its spelling is of the byte-level alphabet.
    /// # Errors
    /// [`TokenizerError::TooLarge`] for merges without measure.
    pub(crate) fn new(
        vocabulary: &Vocabulary,
        in_alphabet: &[bool],
        merges: &StringArray,
        definition: &Definition,
        unknown: Option<u32>,
    ) -> Result<BytePairs, TokenizerError> {
        let is_made_of_text = |id: u32| {
            in_alphabet[id as usize]
                && matches!(vocabulary.kind(id), Some(Kind::Normal | Kind::Unused))
        };
        Ok(BytePairs {
            pre_tokenizer: PreTokenizer::new(definition),
            lookup: Lookup::of(vocabulary, is_made_of_text),
            ranks: Ranks::new(merges)?,
            ignore_merges: definition.ignore_merges,
            unknown,
        })
    }

    /// Appends the tokens of `text` to `out`.
    pub(crate) fn encode(&self, vocabulary: &Vocabulary, text: &str, out: &mut Vec<u32>) {
        let mut merger = Merger::default();
        self.pre_tokenizer.split(text, |word| {
            let whole = if self.ignore_merges {
                self.lookup.find(vocabulary, word.as_bytes())
            } else {
                None
            };
            if let Some(token) = whole {
                out.push(token);
                return;
            }
            for part in word.as_bytes().chunks(LONGEST) {
                let bytes = std::iter::repeat_n(1, part.len());
                merger.merge(
                    part,
                    bytes,
                    |pair, left_len| self.ranks.find(pair, left_len),
                    |piece| self.append(vocabulary, piece, out),
                );
            }
        });
    }

    /// Appends the token of what merging has left, or the tokens of its bytes if a merge makes what is no token.
    fn append(&self, vocabulary: &Vocabulary, piece: &[u8], out: &mut Vec<u32>) {
        match self.lookup.find(vocabulary, piece) {
            Some(token) => out.push(token),
            None => out.extend(
                piece
                    .iter()
                    .filter_map(|&byte| self.lookup.find(vocabulary, &[byte]).or(self.unknown)),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::testing::{self, ADD, MERGES, PARSE, PLAIN, pieces};

    #[test]
    fn merges_by_rank_then_from_the_left() {
        let tokenizer = testing::byte_tokenizer();
        let check = |text: &str, expected: &str| {
            assert_eq!(
                pieces(&tokenizer, &tokenizer.encode(text, PLAIN)),
                expected,
                "{text:?}"
            )
        };
        check("", "");
        check("hello", "hello");
        check("hellll world", "hell|ll| w|o|r|l|d");
        check("aaaaaaa", "aaaa|aa|a");
        check("é", "é");
        check("   x", "  | |x");
    }

    #[test]
    fn words_that_are_tokens_are_not_merged_where_the_vocabulary_says_so() {
        // Of `abc` the merges make `a` and `bc`.
        const MERGES: &[testing::Pair] = &[(b"b", b"c"), (b"a", b"b"), (b"ab", b"c")];
        let check = |pre: &str, expected: &str| {
            let tokenizer = testing::tokenizer(&testing::byte_level(pre, MERGES));
            assert_eq!(
                pieces(&tokenizer, &tokenizer.encode("abc", PLAIN)),
                expected,
                "{pre}"
            );
        };
        check("llama-bpe", "abc");
        check("gpt-2", "a|bc");
    }

    #[test]
    fn merges_that_cannot_apply_are_passed_over() {
        let entries = testing::byte_level("gpt-2", MERGES);
        let lines = [
            "", " ", "nospace", "l l", "q ", " q", "no such", "h e", "e h", "l l l", "he llo",
            "<s> a", "é é",
        ];
        let mut lines: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
        lines.push(b"\xff \xfe");
        let tokenizer = testing::tokenizer(&testing::with(
            &entries,
            "tokenizer.ggml.merges",
            testing::strings(&lines),
        ));
        assert_eq!(
            pieces(&tokenizer, &tokenizer.encode("hell<s>", PLAIN)),
            "he|ll|<|s|>"
        );
    }

    #[test]
    fn bytes_without_a_token_are_unknown_or_vanish() {
        let entries = vec![
            ("tokenizer.ggml.model", "gpt2".into()),
            (
                "tokenizer.ggml.tokens",
                testing::strings(["a", "b", "ab", "?"]),
            ),
            ("tokenizer.ggml.merges", testing::strings(["a b"])),
        ];
        let check = |entries: &testing::Entries, expected: &[u32]| {
            assert_eq!(testing::tokenizer(entries).encode("abxb", PLAIN), expected)
        };
        check(&entries, &[2, 1]);
        check(
            &testing::with(&entries, "tokenizer.ggml.unknown_token_id", 3u32),
            &[2, 3, 1],
        );
    }

    #[test]
    fn special_tokens_and_those_around_a_text() {
        let entries = testing::byte_level("llama-bpe", &[]);
        let (bos, eos, tool) = (256, 257, 258);
        let check = |entries: &testing::Entries, text: &str, options, expected: &[u32]| {
            assert_eq!(
                testing::tokenizer(entries).encode(text, options),
                expected,
                "{text}"
            )
        };
        check(&entries, "", ADD, &[bos]);
        check(&entries, "", PLAIN, &[]);
        check(&entries, "a<tool>", PLAIN, &[97, tool]);
        check(&entries, "</s>", PARSE, &[eos]);
        check(&entries, "</s>", PLAIN, b"</s>".map(u32::from).as_slice());
        let without_bos = testing::with(&entries, "tokenizer.ggml.add_bos_token", false);
        check(&without_bos, "a", ADD, &[97]);
        check(
            &testing::with(&without_bos, "tokenizer.ggml.add_eos_token", true),
            "a",
            ADD,
            &[97, eos],
        );
    }

    /// There is no clock here: with quadratic work the test would not end.
    #[test]
    fn long_runs_are_soon_done() {
        let llama = testing::tokenizer(&testing::byte_level("llama-bpe", MERGES));
        let default = testing::tokenizer(&testing::byte_level("default", MERGES));
        let deepseek = testing::tokenizer(&testing::byte_level("deepseek-coder", MERGES));
        for pattern in [
            "a", " ", "\n", " \n", "\n ", "\u{a0}", "é", "1", "'", "'s", "<", "<tool", "a1", "! ",
            "\u{301}", "漢", " a\n\n",
        ] {
            let text = pattern.repeat((1 << 18) / pattern.len());
            for tokenizer in [&llama, &default, &deepseek] {
                let ids = tokenizer.encode(&text, PARSE);
                assert!(tokenizer.decode(&ids) == text.as_bytes(), "{pattern:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn decoding_gives_the_text_back(text in "[a-e hlo\\nw\u{e9}<>/ts]{0,60}|\\PC{0,60}", pre in prop::sample::select(vec!["llama-bpe", "gpt-2", "qwen2", "default", "deepseek-coder"])) {
            let tokenizer = testing::tokenizer(&testing::byte_level(pre, MERGES));
            let ids = tokenizer.encode(&text, PLAIN);
            prop_assert_eq!(String::from_utf8(tokenizer.decode(&ids)).unwrap(), text);
        }

        #[test]
        fn merging_equals_the_textbook(word in "[ahelo]{0,40}") {
            let tokenizer = testing::byte_tokenizer();
            let mut parts: Vec<Vec<u8>> = word.bytes().map(|byte| vec![byte]).collect();
            // The textbook: merge the leftmost pair of the lowest rank, begin again.
            let rank = |pair: &[Vec<u8>]| MERGES.iter().position(|(left, right)| pair[0] == *left && pair[1] == *right);
            while let Some((_, at)) = parts.windows(2).enumerate().filter_map(|(at, pair)| Some((rank(pair)?, at))).min() {
                let right = parts.remove(at + 1);
                parts[at].extend(right);
            }
            let expected = parts.iter().map(|part| String::from_utf8_lossy(part).into_owned()).collect::<Vec<_>>().join("|");
            prop_assert_eq!(pieces(&tokenizer, &tokenizer.encode(&word, PLAIN)), expected);
        }
    }
}
