//! Small vocabularies for tests.

use gguf::{Array, Metadata, Value};
use proptest::prelude::*;

use crate::{EncodeOptions, Tokenizer, byte_level};

/// Token types, as files number them.
pub(crate) const NORMAL: i32 = 1;
pub(crate) const UNKNOWN: i32 = 2;
pub(crate) const CONTROL: i32 = 3;
pub(crate) const USER_DEFINED: i32 = 4;
pub(crate) const BYTE: i32 = 6;

pub(crate) const PLAIN: EncodeOptions = EncodeOptions {
    add_special: false,
    parse_special: false,
};
pub(crate) const ADD: EncodeOptions = EncodeOptions {
    add_special: true,
    parse_special: false,
};
pub(crate) const PARSE: EncodeOptions = EncodeOptions {
    add_special: false,
    parse_special: true,
};

pub(crate) fn strings<S: AsRef<[u8]>>(strings: impl IntoIterator<Item = S>) -> Value {
    Value::Array(Array::String(strings.into_iter().collect()))
}

/// Metadata entries, easily changed.
pub(crate) type Entries = Vec<(&'static str, Value)>;

pub(crate) fn tokenizer(entries: &Entries) -> Tokenizer {
    Tokenizer::from_metadata(&metadata(entries)).expect("the vocabulary is sound")
}

pub(crate) fn metadata(entries: &Entries) -> Metadata {
    entries.iter().cloned().collect()
}

/// `entries` with `key` set to `value`.
pub(crate) fn with(entries: &Entries, key: &'static str, value: impl Into<Value>) -> Entries {
    let mut entries = without(entries, key);
    entries.push((key, value.into()));
    entries
}

/// `entries` without `key`.
pub(crate) fn without(entries: &Entries, key: &str) -> Entries {
    entries
        .iter()
        .filter(|(other, _)| *other != key)
        .cloned()
        .collect()
}

/// Two byte strings that merge.
pub(crate) type Pair = (&'static [u8], &'static [u8]);

/// Enough to make a few words, runs of `a`, and one character of two bytes.
pub(crate) const MERGES: &[Pair] = &[
    (b"l", b"l"),
    (b"h", b"e"),
    (b"he", b"ll"),
    (b"hell", b"o"),
    (b" ", b"w"),
    (b"a", b"a"),
    (b"aa", b"aa"),
    (b"\xc3", b"\xa9"),
    (b" ", b" "),
];

/// Spelling of `bytes` in the byte-level alphabet.
pub(crate) fn spell(bytes: &[u8]) -> String {
    bytes.iter().copied().map(byte_level::character).collect()
}

/// A byte-level vocabulary: a token of every byte, with the byte as its id; then what `merges` make, in order; then the control tokens `<s>` and `</s>`, which are BOS and EOS, and the user-defined `<tool>`.
pub(crate) fn byte_level(pre: &str, merges: &[Pair]) -> Entries {
    let mut tokens: Vec<String> = (0..=u8::MAX).map(|byte| spell(&[byte])).collect();
    tokens.extend(
        merges
            .iter()
            .map(|(left, right)| spell(left) + &spell(right)),
    );
    let mut types = vec![NORMAL; tokens.len()];
    let bos = u32::try_from(tokens.len()).expect("it is small");
    tokens.extend(["<s>", "</s>", "<tool>"].map(str::to_owned));
    types.extend([CONTROL, CONTROL, USER_DEFINED]);
    let merges = merges
        .iter()
        .map(|(left, right)| format!("{} {}", spell(left), spell(right)));
    vec![
        ("tokenizer.ggml.model", "gpt2".into()),
        ("tokenizer.ggml.pre", pre.into()),
        ("tokenizer.ggml.tokens", strings(&tokens)),
        ("tokenizer.ggml.token_type", types.into()),
        ("tokenizer.ggml.merges", strings(merges)),
        ("tokenizer.ggml.bos_token_id", bos.into()),
        ("tokenizer.ggml.eos_token_id", (bos + 1).into()),
    ]
}

/// A byte-level tokenizer in which every byte is a token with its own id.
pub(crate) fn byte_tokenizer() -> Tokenizer {
    tokenizer(&byte_level("gpt-2", MERGES))
}

/// The bytes of the token of each id, as text, with `|` between them.
pub(crate) fn pieces(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let piece = |&id: &u32| {
        String::from_utf8_lossy(
            tokenizer
                .token_spelling(id)
                .expect("an id of the vocabulary"),
        )
    };
    ids.iter().map(piece).collect::<Vec<_>>().join("|")
}

/// A SentencePiece vocabulary: `<unk>`, `<s>`, `</s>`, the 256 bytes, then `pieces` with their scores.
pub(crate) fn sentence_piece(pieces: &[(&str, f32)]) -> Entries {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).into();
    let mut types = vec![UNKNOWN, CONTROL, CONTROL];
    tokens.extend((0..=u8::MAX).map(|byte| format!("<0x{byte:02X}>")));
    types.extend([BYTE; 256]);
    let mut scores = vec![0.0f32; tokens.len()];
    for &(piece, score) in pieces {
        tokens.push(piece.to_owned());
        types.push(NORMAL);
        scores.push(score);
    }
    vec![
        ("tokenizer.ggml.model", "llama".into()),
        ("tokenizer.ggml.tokens", strings(&tokens)),
        ("tokenizer.ggml.token_type", types.into()),
        ("tokenizer.ggml.scores", scores.into()),
    ]
}

/// Bytes that are often, but not always, UTF-8, and often cut within a character.
pub(crate) fn nearly_utf8() -> impl Strategy<Value = Vec<u8>> {
    let lead_or_trail = prop::sample::select(vec![
        0x80u8, 0xbf, 0xc3, 0xe2, 0x82, 0xac, 0xf0, 0x9f, 0x98, 0x80, 0xff, b'a',
    ]);
    prop_oneof![
        "\\PC{0,6}".prop_map(String::into_bytes),
        prop::collection::vec(lead_or_trail, 0..6),
        ("\\PC{1,4}", 1usize..4).prop_map(|(text, cut)| text
            .into_bytes()
            .into_iter()
            .skip(cut)
            .collect()),
    ]
}
