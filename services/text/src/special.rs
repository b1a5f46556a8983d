use std::ops::Range;

/// The longest spelling that is looked for in text, in bytes. Real ones stay below 100; the limit bounds the work that a hostile file can ask for at each position of a text.
const LONGEST: usize = 128;

/// Tokens that are cut out of a text where they are spelled out, before anything else is done to it.
#[derive(Debug, Clone, Default)]
pub(crate) struct SpecialTokens {
    bytes: Vec<u8>,
    /// Sorted by spelling, no two alike.
    entries: Vec<Entry>,
    /// First bytes that some spelling has.
    begins: Vec<bool>,
}

#[derive(Debug, Clone)]
struct Entry {
    spelling: Range<usize>,
    token: SpecialToken,
}

/// A token to look for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SpecialToken {
    pub(crate) id: u32,
    /// White space behind it is swallowed.
    pub(crate) swallows_space: bool,
}

/// A part of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part<'t> {
    /// A special token.
    Special(u32),
    /// Text between special tokens, never empty.
    Text(&'t str),
}

impl SpecialTokens {
    /// Of several tokens with one spelling the last is kept, as in [`crate::lookup::Lookup`]. Spellings that cannot occur in text (empty, not UTF-8) or are longer than [`LONGEST`] are left out.
    pub(crate) fn new<'s>(tokens: impl Iterator<Item = (&'s [u8], SpecialToken)>) -> SpecialTokens {
        let mut tokens: Vec<_> = tokens
            .filter(|(spelled, _)| {
                (1..=LONGEST).contains(&spelled.len()) && std::str::from_utf8(spelled).is_ok()
            })
            .collect();
        tokens.sort_by(|a, b| a.0.cmp(b.0).then(b.1.id.cmp(&a.1.id)));
        tokens.dedup_by_key(|(spelled, _)| *spelled);

        let mut special = SpecialTokens {
            begins: vec![false; 256],
            ..SpecialTokens::default()
        };
        for (spelled, token) in tokens {
            let start = special.bytes.len();
            special.bytes.extend_from_slice(spelled);
            special.entries.push(Entry {
                spelling: start..special.bytes.len(),
                token,
            });
            special.begins[usize::from(spelled[0])] = true;
        }
        special
    }

    /// Calls `each` with the parts of `text` in order. At the leftmost place where any token is spelled out the longest such token is taken.
    pub(crate) fn split<'t>(&self, text: &'t str, mut each: impl FnMut(Part<'t>)) {
        let mut plain_from = 0;
        let mut at = 0;
        while let Some(skipped) = self.next_candidate(&text.as_bytes()[at..]) {
            at += skipped;
            let Some(entry) = self.longest_at(&text.as_bytes()[at..]) else {
                at += 1;
                continue;
            };
            if plain_from < at {
                each(Part::Text(&text[plain_from..at]));
            }
            each(Part::Special(entry.token.id));
            at += entry.spelling.len();
            if entry.token.swallows_space {
                at += text.as_bytes()[at..]
                    .iter()
                    .take_while(|byte| matches!(byte, b' ' | b'\t'..=b'\r'))
                    .count();
            }
            plain_from = at;
        }
        if plain_from < text.len() {
            each(Part::Text(&text[plain_from..]));
        }
    }

    /// Every place of `text` where a token is spelled out, overlapping ones included, with the longest such token.
    pub(crate) fn places<'t>(&'t self, text: &'t str) -> impl Iterator<Item = (usize, u32)> + 't {
        let mut from = 0;
        std::iter::from_fn(move || {
            loop {
                let at = from + self.next_candidate(text.as_bytes().get(from..)?)?;
                from = at + 1;
                if let Some(entry) = self.longest_at(&text.as_bytes()[at..]) {
                    return Some((at, entry.token.id));
                }
            }
        })
    }

    /// Whether some spelling has this character.
    pub(crate) fn has_character(&self, character: char) -> bool {
        let mut buffer = [0; 4];
        let wanted = character.encode_utf8(&mut buffer).as_bytes();
        self.bytes
            .windows(wanted.len())
            .any(|bytes| bytes == wanted)
    }

    /// How many bytes come before the first one that may begin a spelling.
    fn next_candidate(&self, text: &[u8]) -> Option<usize> {
        if self.entries.is_empty() {
            return None;
        }
        text.iter().position(|&byte| self.begins[usize::from(byte)])
    }

    /// The entry with the longest spelling that `text` starts with.
    fn longest_at(&self, text: &[u8]) -> Option<&Entry> {
        let byte_at = |entry: &Entry, depth: usize| self.bytes[entry.spelling.start + depth];
        // All candidates share the first `depth` bytes with the text; the shortest of them comes first.
        let mut candidates = &self.entries[..];
        let mut longest = None;
        for depth in 0.. {
            if let Some((first, rest)) = candidates.split_first()
                && first.spelling.len() == depth
            {
                longest = Some(first);
                candidates = rest;
            }
            let (Some(&byte), Some(first), Some(last)) =
                (text.get(depth), candidates.first(), candidates.last())
            else {
                break;
            };
            // Nearly always all candidates go on alike, or none goes on like the text.
            if !(byte_at(first, depth)..=byte_at(last, depth)).contains(&byte) {
                break;
            }
            let before = leading(candidates.len(), |index| {
                byte_at(&candidates[index], depth) < byte
            });
            let rest = &candidates[before..];
            let after = leading(rest.len(), |index| {
                byte_at(&rest[rest.len() - 1 - index], depth) > byte
            });
            candidates = &rest[..rest.len() - after];
        }
        longest
    }
}

/// How many of `0..len` come before the first that `holds` does not hold for. Takes the logarithm of the answer: nothing if few are to be dropped from many.
fn leading(len: usize, holds: impl Fn(usize) -> bool) -> usize {
    let (mut known, mut step) = (0, 1);
    while known + step <= len && holds(known + step - 1) {
        known += step;
        step *= 2;
    }
    while step > 0 {
        if known + step <= len && holds(known + step - 1) {
            known += step;
        }
        step /= 2;
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(spellings: &[&str]) -> SpecialTokens {
        let token = |id| SpecialToken {
            id,
            swallows_space: false,
        };
        SpecialTokens::new(
            spellings
                .iter()
                .zip(0..)
                .map(|(spelled, id)| (spelled.as_bytes(), token(id))),
        )
    }

    fn parts<'t>(special: &SpecialTokens, text: &'t str) -> Vec<Part<'t>> {
        let mut parts = Vec::new();
        special.split(text, |part| parts.push(part));
        parts
    }

    #[test]
    fn cuts_out_spelled_tokens() {
        let special = tokens(&["<s>", "</s>", "<", "ä", "aaa", "a", ""]);
        let check = |text: &str, expected: &[Part<'_>]| {
            assert_eq!(parts(&special, text), expected, "{text}")
        };
        check("", &[]);
        check("xyz", &[Part::Text("xyz")]);
        check(
            "<s>x</s>",
            &[Part::Special(0), Part::Text("x"), Part::Special(1)],
        );
        check("x<s", &[Part::Text("x"), Part::Special(2), Part::Text("s")]);
        check(
            "<<s>>",
            &[Part::Special(2), Part::Special(0), Part::Text(">")],
        );
        check("öäö", &[Part::Text("ö"), Part::Special(3), Part::Text("ö")]);
        check(
            "aaaaa",
            &[Part::Special(4), Part::Special(5), Part::Special(5)],
        );
    }

    #[test]
    fn swallows_space_behind_a_token() {
        let token = |id, swallows_space| SpecialToken { id, swallows_space };
        let special = SpecialTokens::new(
            [(&b"<e>"[..], token(1, true)), (b"<s>", token(2, false))].into_iter(),
        );
        let expected = [
            Part::Special(1),
            Part::Text("x "),
            Part::Special(2),
            Part::Text(" y"),
            Part::Special(1),
        ];
        assert_eq!(parts(&special, "<e> \n\t x <s> y<e>  "), expected);
    }

    #[test]
    fn what_cannot_be_looked_for_is_left_out() {
        let long = "l".repeat(LONGEST + 1);
        let token = SpecialToken {
            id: 7,
            swallows_space: false,
        };
        let special = SpecialTokens::new(
            [
                (&b"\xc3"[..], token),
                (long.as_bytes(), token),
                (b"", token),
            ]
            .into_iter(),
        );
        assert_eq!(parts(&special, &long), [Part::Text(&long)]);
        assert_eq!(parts(&special, "é"), [Part::Text("é")]);
    }

    #[test]
    fn leading_places_are_counted() {
        for len in 0..20 {
            for expected in 0..=len {
                assert_eq!(leading(len, |index| index < expected), expected, "of {len}");
            }
        }
    }

    #[test]
    fn places_overlap() {
        let special = tokens(&["<s>", "</s>", "s><", "é"]);
        let found: Vec<_> = special.places("<s></s>é").collect();
        assert_eq!(found, [(0, 0), (1, 2), (3, 1), (7, 3)]);
        assert_eq!(special.places("x").next(), None);
        assert_eq!(tokens(&[]).places("<s>").next(), None);
        assert!(special.has_character('é') && special.has_character('/'));
        assert!(!special.has_character('x') && !tokens(&[]).has_character('<'));
    }

    #[test]
    fn the_last_of_equal_spellings_is_taken() {
        assert_eq!(parts(&tokens(&["x", "y", "x"]), "x"), [Part::Special(2)]);
    }

    proptest::proptest! {
        #[test]
        fn equals_a_naive_search(spellings in proptest::collection::vec("[ab]{1,4}", 0..6), text in "[abc]{0,30}") {
            let spellings: Vec<&str> = spellings.iter().map(String::as_str).collect();
            let special = tokens(&spellings);
            let mut found = Vec::new();
            special.split(&text, |part| found.push(match part {
                Part::Special(id) => format!("<{}>", spellings[id as usize]),
                Part::Text(text) => text.to_owned(),
            }));
            let mut expected = Vec::new();
            let (mut plain, mut rest) = (String::new(), &text[..]);
            while let Some(character) = rest.chars().next() {
                match spellings.iter().filter(|spelled| rest.starts_with(**spelled)).max_by_key(|spelled| spelled.len()) {
                    Some(spelled) => {
                        expected.extend((!plain.is_empty()).then(|| std::mem::take(&mut plain)));
                        expected.push(format!("<{spelled}>"));
                        rest = &rest[spelled.len()..];
                    }
                    None => {
                        plain.push(character);
                        rest = &rest[1..];
                    }
                }
            }
            expected.extend((!plain.is_empty()).then_some(plain));
            proptest::prop_assert_eq!(found, expected);
        }
    }
}
