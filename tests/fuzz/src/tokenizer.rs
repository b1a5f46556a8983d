//! Text, as anybody may send it, and tokens, as any model may generate them, under sound vocabularies.

use std::sync::{Arc, LazyLock};

use text::{Detokenizer, EncodeOptions, StopMatcher, Tokenizer};

use crate::input::Input;
use crate::vocabulary::{PRE_TOKENIZERS, USER_DEFINED, byte_level, sentence_piece};

const PLAIN: EncodeOptions = EncodeOptions {
    add_special: false,
    parse_special: false,
};

/// Stop strings of one input.
const STOPS_MAX: usize = 4;
/// Bytes of a stop string.
const STOP_BYTES_MAX: usize = 8;

/// A tokenizer and how it writes spaces.
struct Vocabulary {
    tokenizer: Arc<Tokenizer>,
    spaces: Spaces,
}

#[derive(Clone, Copy)]
enum Spaces {
    /// Byte for byte.
    AsGiven,
    /// U+2581 is a space.
    Marked,
    /// The same, and one more goes before the text and behind every special token.
    MarkedAndPrefixed,
}

static VOCABULARIES: LazyLock<Vec<Vocabulary>> = LazyLock::new(|| {
    let byte_level = PRE_TOKENIZERS.map(|pre| (byte_level(pre), Spaces::AsGiven));
    let pieces = [
        (sentence_piece(false), Spaces::Marked),
        (sentence_piece(true), Spaces::MarkedAndPrefixed),
    ];
    let load = |(metadata, spaces)| Vocabulary {
        tokenizer: Arc::new(Tokenizer::from_metadata(&metadata).expect("the vocabulary is sound")),
        spaces,
    };
    byte_level.into_iter().chain(pieces).map(load).collect()
});

/// Encoding loses nothing; streamed text is the text of all tokens; stop strings are found where a plain search finds them, however the text is cut.
///
/// # Panics
/// If that does not hold of the texts and tokens that `bytes` describes.
pub fn check(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let vocabulary = &VOCABULARIES[usize::from(input.byte()) % VOCABULARIES.len()];
    let cuts: [u8; 4] = input.array();
    let stop_count = usize::from(input.byte()) % (STOPS_MAX + 1);
    let stops: Vec<String> = (0..stop_count)
        .map(|_| {
            let len = usize::from(input.byte()) % (STOP_BYTES_MAX + 1);
            String::from_utf8_lossy(input.take(len)).into_owned()
        })
        .collect();
    let rest = input.rest();
    let text = String::from_utf8_lossy(rest);
    check_encoding(vocabulary, &text);
    check_streaming(&vocabulary.tokenizer, rest);
    check_stops(&stops, &text, cuts);
}

fn check_encoding(vocabulary: &Vocabulary, text: &str) {
    let Vocabulary { tokenizer, spaces } = vocabulary;
    let plain = tokenizer.encode(text, PLAIN);
    let expected = spaces.expected(text);
    assert_eq!(
        show(&tokenizer.decode(&plain)),
        expected,
        "{text:?} became {plain:?}"
    );

    let added = tokenizer.encode(
        text,
        EncodeOptions {
            add_special: true,
            ..PLAIN
        },
    );
    assert!(
        added.ends_with(&plain) && added.len() <= plain.len() + 1,
        "{text:?} became {added:?}"
    );
    let parsed = tokenizer.encode(
        text,
        EncodeOptions {
            parse_special: true,
            ..PLAIN
        },
    );
    if let Spaces::AsGiven = spaces {
        let spelled = parsed.iter().flat_map(|&id| {
            tokenizer
                .token_spelling(id)
                .expect("encoding gives ids of the vocabulary")
        });
        assert_eq!(
            show(&spelled.copied().collect::<Vec<u8>>()),
            text,
            "it became {parsed:?}"
        );
    }
    assert!(parsed.iter().all(|&id| id < tokenizer.n_vocab()));
}

impl Spaces {
    /// What is left of `text` when it has been encoded and decoded.
    fn expected(self, text: &str) -> String {
        let marked = || text.replace('\u{2581}', " ");
        match self {
            Spaces::AsGiven => text.to_owned(),
            Spaces::Marked => marked(),
            Spaces::MarkedAndPrefixed => {
                let prefixed = |part: &str| {
                    if part.is_empty() {
                        String::new()
                    } else {
                        format!(" {part}")
                    }
                };
                let whole = marked()
                    .split(USER_DEFINED)
                    .map(prefixed)
                    .collect::<Vec<_>>()
                    .join(USER_DEFINED);
                whole.strip_prefix(' ').unwrap_or(&whole).to_owned()
            }
        }
    }
}

fn show(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text was encoded")
}

/// Any ids, some of them beyond the vocabulary.
fn check_streaming(tokenizer: &Arc<Tokenizer>, bytes: &[u8]) {
    let (pairs, _) = bytes.as_chunks();
    let ids: Vec<u32> = pairs
        .iter()
        .map(|&pair| u32::from(u16::from_le_bytes(pair)) % (tokenizer.n_vocab() + 4))
        .collect();
    let mut detokenizer = Detokenizer::new(Arc::clone(tokenizer));
    let mut streamed: String = ids.iter().map(|&id| detokenizer.push(id)).collect();
    streamed.push_str(&detokenizer.finish());
    let whole: Vec<u8> = ids
        .iter()
        .flat_map(|&id| tokenizer.token_bytes(id).unwrap_or_default())
        .copied()
        .collect();
    assert_eq!(streamed, String::from_utf8_lossy(&whole), "{ids:?}");
    assert!(whole.ends_with(&tokenizer.decode(&ids)));
}

fn check_stops(stops: &[String], text: &str, cuts: [u8; 4]) {
    let mut matcher = StopMatcher::new(stops.to_vec());
    let mut emitted = String::new();
    let mut matched = None;
    let mut rest = text;
    // None at all now and then, but one at least in every round, or the end would never come.
    let [a, b, c, d] = cuts.map(|cut| usize::from(cut % 8));
    for characters in [a, b, c, d + 1].into_iter().cycle() {
        if rest.is_empty() || matched.is_some() {
            break;
        }
        let end = rest
            .char_indices()
            .nth(characters)
            .map_or(rest.len(), |(at, _)| at);
        let (piece, after) = rest.split_at(end);
        let step = matcher.push(piece);
        emitted.push_str(&step.emit);
        matched = step.matched;
        rest = after;
        let seen = &text[..text.len() - rest.len()];
        if matched.is_none() {
            let held = seen
                .strip_prefix(emitted.as_str())
                .expect("what comes out is what went in");
            assert!(
                held.is_empty() || stops.iter().any(|stop| stop.starts_with(held)),
                "{held:?} is held back for {stops:?}"
            );
        }
    }
    emitted.push_str(&matcher.finish());
    assert_eq!(
        (emitted.as_str(), matched),
        searched(stops, text),
        "{stops:?} in {text:?} cut by {cuts:?}"
    );
}

/// The text before the stop string that is complete first, the longest of those, the first given of equal ones; and which it is.
fn searched<'t>(stops: &[String], text: &'t str) -> (&'t str, Option<usize>) {
    let at_end = |end: usize| {
        let complete = stops.iter().enumerate().filter(move |(_, stop)| {
            !stop.is_empty() && text.as_bytes()[..end].ends_with(stop.as_bytes())
        });
        complete
            .rev()
            .max_by_key(|(_, stop)| stop.len())
            .map(|(index, stop)| (&text[..end - stop.len()], Some(index)))
    };
    (1..=text.len()).find_map(at_end).unwrap_or((text, None))
}

/// A text of everything that vocabularies treat apart, under each of them; and stop strings that begin alike.
pub fn seeds() -> Vec<Vec<u8>> {
    let text = "hello  world<tool> he'll <s>aaaa</s>\r\n\n 12345 日本é\u{301}▁▁abcab\t<0x0A>";
    let header = |vocabulary: usize, stops: &[&str]| {
        let mut seed = vec![
            u8::try_from(vocabulary).expect("there are few"),
            1,
            0,
            3,
            7,
            u8::try_from(stops.len()).expect("there are few"),
        ];
        for stop in stops {
            seed.push(u8::try_from(stop.len()).expect("they are short"));
            seed.extend_from_slice(stop.as_bytes());
        }
        seed
    };
    let texts = (0..VOCABULARIES.len())
        .map(|vocabulary| [header(vocabulary, &[]), text.as_bytes().to_vec()].concat());
    let stops = [
        header(0, &["aab", "aaab", "", "b"]),
        b"aaaaacaabaab".to_vec(),
    ]
    .concat();
    texts.chain([stops]).collect()
}
