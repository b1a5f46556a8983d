//! Small vocabularies, and the same taken apart into what a fuzzer may change.

use gguf::{Array, Metadata, Value};

/// Names of the cuts into words, one of each published family.
pub(crate) const PRE_TOKENIZERS: [&str; 8] = [
    "default",
    "llama-bpe",
    "dbrx",
    "qwen2",
    "gpt-2",
    "starcoder",
    "falcon",
    "deepseek-coder",
];

/// Cut out of every text.
pub(crate) const USER_DEFINED: &str = "<tool>";

/// Token types, as files number them.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED_TYPE: i32 = 4;
const BYTE: i32 = 6;

/// Pairs that merge, best first: words, runs, and characters of two and of three bytes. Every one is made of bytes or of earlier ones.
const MERGES: [(&[u8], &[u8]); 13] = [
    (b"l", b"l"),
    (b"h", b"e"),
    (b"he", b"ll"),
    (b"hell", b"o"),
    (b" ", b"w"),
    (b"a", b"a"),
    (b"aa", b"aa"),
    (b"b", b"a"),
    (b"\xc3", b"\xa9"),
    (b"\xe6", b"\x97"),
    (b"\xe6\x97", b"\xa5"),
    (b" ", b" "),
    (b"1", b"2"),
];

/// Pieces of a SentencePiece vocabulary with their scores; equal ones and one that nothing leads to among them.
const PIECES: [(&str, f32); 14] = [
    ("▁", -100.0),
    ("a", -101.0),
    ("b", -102.0),
    ("c", -103.0),
    ("日", -104.0),
    ("aa", -1.0),
    ("aaaa", -2.0),
    ("ab", -5.0),
    ("bc", -5.0),
    ("abcab", 0.5),
    ("▁a", -6.0),
    ("▁▁", -3.0),
    ("▁▁▁▁", -3.0),
    ("日日", -7.0),
];

/// A byte-level vocabulary: every byte, what [`MERGES`] make, then `<s>`, `</s>` and [`USER_DEFINED`].
pub(crate) fn byte_level(pre: &str) -> Metadata {
    let merged = MERGES.map(|(left, right)| spell(left) + &spell(right));
    let mut tokens: Vec<String> = (0..=u8::MAX).map(|byte| spell(&[byte])).collect();
    tokens.extend(merged);
    let mut types = vec![NORMAL; tokens.len()];
    let bos = u32::try_from(tokens.len()).expect("it is small");
    tokens.extend(["<s>", "</s>", USER_DEFINED].map(str::to_owned));
    types.extend([CONTROL, CONTROL, USER_DEFINED_TYPE]);
    let merges = MERGES.map(|(left, right)| format!("{} {}", spell(left), spell(right)));
    Metadata::from_iter([
        ("tokenizer.ggml.model", "gpt2".into()),
        ("tokenizer.ggml.pre", pre.into()),
        ("tokenizer.ggml.tokens", strings(tokens)),
        ("tokenizer.ggml.token_type", Value::from(types)),
        ("tokenizer.ggml.merges", strings(merges)),
        ("tokenizer.ggml.bos_token_id", bos.into()),
        ("tokenizer.ggml.eos_token_id", (bos + 1).into()),
    ])
}

/// A SentencePiece vocabulary: `<unk>`, `<s>`, `</s>`, every byte, [`PIECES`], then [`USER_DEFINED`].
pub(crate) fn sentence_piece(space_prefix: bool) -> Metadata {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).into();
    let mut types = vec![UNKNOWN, CONTROL, CONTROL];
    tokens.extend((0..=u8::MAX).map(|byte| format!("<0x{byte:02X}>")));
    types.extend([BYTE; 256]);
    let mut scores = vec![0.0f32; tokens.len()];
    for (piece, score) in PIECES {
        tokens.push(piece.to_owned());
        types.push(NORMAL);
        scores.push(score);
    }
    tokens.push(USER_DEFINED.to_owned());
    types.push(USER_DEFINED_TYPE);
    scores.push(0.0);
    Metadata::from_iter([
        ("tokenizer.ggml.model", "llama".into()),
        ("tokenizer.ggml.tokens", strings(tokens)),
        ("tokenizer.ggml.token_type", Value::from(types)),
        ("tokenizer.ggml.scores", scores.into()),
        ("tokenizer.ggml.add_space_prefix", space_prefix.into()),
    ])
}

pub(crate) fn strings<S: AsRef<[u8]>>(strings: impl IntoIterator<Item = S>) -> Value {
    Value::Array(Array::String(strings.into_iter().collect()))
}

/// `bytes` in the alphabet of byte-level vocabularies: the printable ones of Latin-1 as they are, the others in ascending order as the characters from U+0100 on.
pub(crate) fn spell(bytes: &[u8]) -> String {
    let is_printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let character = |&byte: &u8| {
        if is_printable(byte) {
            return char::from(byte);
        }
        let moved = (0..byte).filter(|&byte| !is_printable(byte)).count();
        u32::try_from(0x100 + moved)
            .ok()
            .and_then(char::from_u32)
            .expect("there are 68 such bytes")
    };
    bytes.iter().map(character).collect()
}
