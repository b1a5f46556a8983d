//! Byte-pair encoding as SentencePiece does it: over characters, by the score of the token that two others make, with bytes for characters that are no token.

use crate::lookup::Lookup;
use crate::merge::{LONGEST, Merger};
use crate::vocabulary::{Kind, Vocabulary};

/// Spelling of a space in SentencePiece vocabularies, U+2581. In pieces and in text to be encoded both are one, a space.
const SPACE: &[u8] = "\u{2581}".as_bytes();

/// A SentencePiece vocabulary's way from text to tokens.
pub(crate) struct SentencePiece {
    lookup: Lookup,
    /// Place of each token among all scores: the better, the lower. Empty if none has a score.
    ranks: Vec<u32>,
    /// The token of each byte.
    bytes: Vec<Option<u32>>,
    /// Stands for characters that neither are a token nor can be spelled in bytes; without it they vanish.
    unknown: Option<u32>,
}

/// Appends the bytes that `spelled` stands for to `out`; the answer says whether text can be encoded to it, which a literal space in the spelling prevents.
pub(crate) fn append_bytes(spelled: &[u8], out: &mut Vec<u8>) -> bool {
    let mut rest = spelled;
    while let Some((&first, after)) = rest.split_first() {
        let (byte, after) = match rest.strip_prefix(SPACE) {
            Some(after) => (b' ', after),
            None => (first, after),
        };
        out.push(byte);
        rest = after;
    }
    !spelled.contains(&b' ')
}

/// The byte that a token spelled `<0x0A>` stands for.
pub(crate) fn spelled_byte(spelled: &[u8]) -> Option<u8> {
    let digits = spelled.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    let &[high, low] = digits else { return None };
    let value = |digit: u8| char::from(digit).to_digit(16);
    u8::try_from(value(high)? << 4 | value(low)?).ok()
}

impl SentencePiece {
    /// `in_text` tells of each token whether text can be encoded to it. Without `scores` all are equal.
    pub(crate) fn new(
        vocabulary: &Vocabulary,
        in_text: &[bool],
        scores: Option<&[f32]>,
        unknown: Option<u32>,
    ) -> SentencePiece {
        let is_made_of_text = |id: u32| {
            in_text[id as usize]
                && matches!(
                    vocabulary.kind(id),
                    Some(Kind::Normal | Kind::UserDefined | Kind::Unused)
                )
        };
        let lookup = Lookup::of(vocabulary, is_made_of_text);
        let mut bytes = vec![None; 256];
        for id in (0..vocabulary.len()).filter(|&id| vocabulary.kind(id) == Some(Kind::Byte)) {
            if let Some([byte]) = vocabulary.piece(id) {
                bytes[usize::from(*byte)] = Some(id);
            }
        }
        let ranks = scores
            .unwrap_or_default()
            .iter()
            .map(|&score| rank(score))
            .collect();
        SentencePiece {
            lookup,
            ranks,
            bytes,
            unknown,
        }
    }

    /// Appends the tokens of `text`, preceded by a space if `prefix_space`, to `out`.
    pub(crate) fn encode(
        &self,
        vocabulary: &Vocabulary,
        text: &str,
        prefix_space: bool,
        out: &mut Vec<u32>,
    ) {
        let mut spaced = Vec::with_capacity(text.len() + 1);
        if prefix_space {
            spaced.push(b' ');
        }
        append_bytes(text.as_bytes(), &mut spaced);
        let mut merger = Merger::default();
        let mut rest = &spaced[..];
        while !rest.is_empty() {
            let (part, after) = rest.split_at(cut(rest, LONGEST));
            let rank_of = |pair: &[u8], _| {
                self.lookup
                    .find(vocabulary, pair)
                    .map(|token| self.ranks.get(token as usize).copied().unwrap_or_default())
            };
            merger.merge(part, character_lens(part), rank_of, |piece| {
                self.append(vocabulary, piece, out)
            });
            rest = after;
        }
    }

    /// Appends the token of what merging has left, or the tokens of its bytes if it is a character without a token.
    fn append(&self, vocabulary: &Vocabulary, piece: &[u8], out: &mut Vec<u32>) {
        if let Some(token) = self.lookup.find(vocabulary, piece) {
            out.push(token);
            return;
        }
        // A vocabulary without a token for the space sees it as it would be spelled.
        let bytes = if piece == b" " { SPACE } else { piece };
        let tokens = bytes.iter().map(|&byte| self.bytes[usize::from(byte)]);
        if tokens.clone().all(|token| token.is_some()) {
            out.extend(tokens.flatten());
        } else {
            out.extend(self.unknown);
        }
    }
}

/// Where to cut `text` so that at most `longest` bytes, at least 4, come before, and no character is cut.
fn cut(text: &[u8], longest: usize) -> usize {
    if text.len() <= longest {
        return text.len();
    }
    // A character has at most three bytes behind its first.
    (longest - 3..=longest)
        .rfind(|&at| is_first(text[at]))
        .unwrap_or(longest)
}

/// The lengths of the characters of `text`, in bytes.
fn character_lens(text: &[u8]) -> impl Iterator<Item = usize> + '_ {
    text.chunk_by(|_, &byte| !is_first(byte)).map(<[u8]>::len)
}

/// Whether a character begins with `byte`.
fn is_first(byte: u8) -> bool {
    byte & 0xc0 != 0x80
}

/// A number that falls as the score rises; what is no number comes last.
fn rank(score: f32) -> u32 {
    if score.is_nan() {
        return u32::MAX;
    }
    // Adding zero makes one of the two zeros, which are equal scores.
    let bits = (score + 0.0).to_bits();
    // Bits of positive floats rise with their value, bits of negative ones fall.
    if bits >> 31 == 0 {
        (1 << 31) - 1 - bits
    } else {
        bits
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{cut, rank, spelled_byte};
    use crate::testing::{self, ADD, PARSE, PLAIN, pieces};

    const PIECES: &[(&str, f32)] = &[
        ("▁", -100.0),
        ("a", -101.0),
        ("b", -102.0),
        ("c", -103.0),
        ("aa", -1.0),
        ("aaaa", -2.0),
        ("ab", -5.0),
        ("bc", -4.0),
        ("▁a", -6.0),
        ("▁▁", -3.0),
        ("日", -104.0),
    ];

    #[test]
    fn merges_by_score_then_from_the_left() {
        let tokenizer = testing::tokenizer(&testing::sentence_piece(PIECES));
        let check = |text: &str, expected: &str| {
            assert_eq!(
                pieces(&tokenizer, &tokenizer.encode(text, PLAIN)),
                expected,
                "{text:?}"
            )
        };
        check("", "");
        check("abc", " a|bc");
        check("aaa", " |aa|a");
        check(" a", "  |a");
        check("▁b", "  |b");
        check("日c", " |日|c");
    }

    #[test]
    fn characters_without_a_token_are_spelled_in_bytes() {
        let tokenizer = testing::tokenizer(&testing::sentence_piece(PIECES));
        let byte = |byte: u8| 3 + u32::from(byte);
        assert_eq!(tokenizer.encode("é", PLAIN)[1..], [byte(0xc3), byte(0xa9)]);
        assert_eq!(tokenizer.decode(&[byte(0xc3), byte(0xa9)]), "é".as_bytes());
        // Without a token for the space it is spelled too, as what it is in the vocabulary's eyes.
        let spaceless = testing::tokenizer(&testing::sentence_piece(&[("a", 0.0)]));
        assert_eq!(
            spaceless.encode("a", PLAIN),
            [byte(0xe2), byte(0x96), byte(0x81), 259]
        );
    }

    #[test]
    fn without_bytes_a_character_is_unknown() {
        let entries = vec![
            ("tokenizer.ggml.model", "llama".into()),
            (
                "tokenizer.ggml.tokens",
                testing::strings(["<unk>", "<s>", "</s>", "▁", "a"]),
            ),
        ];
        let tokenizer = testing::tokenizer(&entries);
        assert_eq!(tokenizer.encode("a日a", PLAIN), [3, 4, 0, 4]);
        assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(1), Some(2)));
    }

    #[test]
    fn a_space_goes_before_text_but_not_between_its_parts() {
        let entries = testing::sentence_piece(PIECES);
        let check = |entries: &testing::Entries, options, expected: &str| {
            let tokenizer = testing::tokenizer(entries);
            assert_eq!(
                pieces(&tokenizer, &tokenizer.encode("b<s>c", options)),
                expected
            );
        };
        check(&entries, PARSE, " |b|<s>| |c");
        check(&entries, ADD, "<s>| |b|<|s|>|c");
        check(
            &testing::with(&entries, "tokenizer.ggml.add_space_prefix", false),
            PARSE,
            "b|<s>|c",
        );
    }

    #[test]
    fn decoding_drops_the_space_in_front() {
        let tokenizer = testing::tokenizer(&testing::sentence_piece(PIECES));
        for text in ["ab c", " a", "", "  ", "日é"] {
            assert_eq!(
                tokenizer.decode(&tokenizer.encode(text, ADD)),
                text.as_bytes(),
                "{text:?}"
            );
        }
    }

    #[test]
    fn better_scores_come_first() {
        let scores = [
            f32::INFINITY,
            2.5,
            0.0,
            -0.5,
            -1e30,
            f32::NEG_INFINITY,
            f32::NAN,
        ];
        assert!(scores.map(rank).is_sorted_by(|a, b| a < b));
        assert_eq!(rank(0.0), rank(-0.0));
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let check = |text: &str, longest: usize, expected: usize| {
            assert_eq!(cut(text.as_bytes(), longest), expected, "{text}")
        };
        check("abcdef", 6, 6);
        check("abcdef", 5, 5);
        check("日日日", 8, 6);
        check("a😀😀", 7, 5);
    }

    #[test]
    fn bytes_are_read_from_their_spelling() {
        let check = |spelled: &str, expected: Option<u8>| {
            assert_eq!(spelled_byte(spelled.as_bytes()), expected, "{spelled}")
        };
        check("<0x0A>", Some(10));
        check("<0xff>", Some(255));
        for none in ["<0x>", "<0x1>", "<0x+1>", "<0x123>", "<0xg0>", "0x0A", ""] {
            check(none, None);
        }
    }

    /// There is no clock here: with quadratic work the test would not end.
    #[test]
    fn long_runs_are_soon_done() {
        let tokenizer = testing::tokenizer(&testing::sentence_piece(PIECES));
        for pattern in ["a", " ", "ab", "é", "日"] {
            let text = pattern.repeat((1 << 18) / pattern.len());
            assert!(
                tokenizer.decode(&tokenizer.encode(&text, PLAIN)) == text.as_bytes(),
                "{pattern:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn merging_equals_the_textbook(text in "[abc 日]{1,30}") {
            let tokenizer = testing::tokenizer(&testing::sentence_piece(PIECES));
            let mut parts: Vec<String> = format!("▁{}", text.replace(' ', "▁")).chars().map(String::from).collect();
            let score = |piece: &str| PIECES.iter().find(|(other, _)| *other == piece).map(|(_, score)| *score);
            loop {
                let pairs = parts.windows(2).enumerate().filter_map(|(at, pair)| Some((score(&pair.concat())?, at)));
                let Some((_, at)) = pairs.max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1))) else { break };
                let right = parts.remove(at + 1);
                parts[at].push_str(&right);
            }
            prop_assert_eq!(pieces(&tokenizer, &tokenizer.encode(&text, PLAIN)), parts.join("|").replace('▁', " "));
        }
    }
}
