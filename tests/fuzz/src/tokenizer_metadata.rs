//! Vocabularies, as any file may hold them.

use gguf::{Directory, Metadata, Value, write::Writer};
use text::{EncodeOptions, Tokenizer};

use crate::input::Input;
use crate::vocabulary::{PRE_TOKENIZERS, byte_level, sentence_piece, spell, strings};

/// Bytes of the text that a vocabulary is tried on: its own spellings, one after the other.
const TEXT_BYTES_MAX: usize = 1024;

/// A vocabulary is refused, or encodes any text to tokens that it has.
///
/// `bytes`: a GGUF header, or else what [`described`] makes a vocabulary of. Few changes to a header leave one behind, all changes to the latter do.
///
/// # Panics
/// If that does not hold.
pub fn check(bytes: &[u8]) {
    let metadata = if bytes.starts_with(&gguf::MAGIC) {
        let Ok(directory) = Directory::parse(bytes, bytes.len() as u64) else {
            return;
        };
        directory.metadata().clone()
    } else {
        described(&mut Input::new(bytes))
    };
    match Tokenizer::from_metadata(&metadata) {
        Ok(tokenizer) => check_tokenizer(&tokenizer),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn check_tokenizer(tokenizer: &Tokenizer) {
    let n_vocab = tokenizer.n_vocab();
    assert!(
        [tokenizer.bos(), tokenizer.eos()]
            .into_iter()
            .flatten()
            .all(|id| id < n_vocab)
    );
    assert_eq!(tokenizer.token_bytes(n_vocab), None);
    assert!(!tokenizer.is_end_of_generation(n_vocab));
    let mut text = String::from(" a");
    for id in 0..n_vocab {
        if text.len() >= TEXT_BYTES_MAX {
            break;
        }
        text.push_str(&String::from_utf8_lossy(
            tokenizer.token_spelling(id).expect("the id is in range"),
        ));
    }
    for (add_special, parse_special) in [(false, false), (true, true)] {
        let ids = tokenizer.encode(
            &text,
            EncodeOptions {
                add_special,
                parse_special,
            },
        );
        assert!(ids.iter().all(|&id| id < n_vocab), "{ids:?}");
        // A byte is a token at most, and more than one only where a space is spelled in three.
        assert!(
            ids.len() <= 3 * (2 * text.len() + 2),
            "{text:?} became {} tokens",
            ids.len()
        );
        let decoded = tokenizer.decode(&ids);
        assert!(
            ids.iter()
                .map(|&id| tokenizer.token_bytes(id).expect("the id is in range").len())
                .sum::<usize>()
                <= decoded.len() + 1
        );
    }
}

/// A vocabulary in few bytes: model, cut, flags; tokens as length, type and spelling, in the byte-level alphabet or as it stands; merges as pairs of tokens; scores as bytes.
fn described(input: &mut Input<'_>) -> Metadata {
    let model = input.pick(&["gpt2", "llama"]);
    let pre = input.pick(&PRE_TOKENIZERS);
    let flags = input.byte();
    let ids: [u8; 3] = input.array();
    let token_count = usize::from(input.byte());
    let mut tokens = Vec::with_capacity(token_count);
    let mut types = Vec::with_capacity(token_count);
    for _ in 0..token_count {
        let shape = input.byte();
        let bytes = input.take(usize::from(shape & 0x0f));
        let in_alphabet = model == "gpt2" && shape & 0x80 == 0;
        tokens.push(if in_alphabet {
            spell(bytes).into_bytes()
        } else {
            bytes.to_vec()
        });
        types.push(i32::from(shape >> 4 & 7));
    }
    let merge_count = usize::from(input.byte());
    let merges: Vec<Vec<u8>> = (0..merge_count)
        .map(|_| {
            let [left, right] = input.array::<2>().map(|index| {
                tokens
                    .get(usize::from(index))
                    .map_or(&b"?"[..], Vec::as_slice)
            });
            [left, b" ", right].concat()
        })
        .collect();
    let scores: Vec<f32> = (0..token_count)
        .map(|_| f32::from(i16::from(input.byte()) - 128))
        .collect();
    let mut entries: Vec<(&str, Value)> = vec![
        ("tokenizer.ggml.model", model.into()),
        ("tokenizer.ggml.pre", pre.into()),
        ("tokenizer.ggml.tokens", strings(tokens)),
        ("tokenizer.ggml.merges", strings(merges)),
        ("tokenizer.ggml.add_space_prefix", (flags & 1 != 0).into()),
        ("tokenizer.ggml.add_bos_token", (flags & 2 != 0).into()),
        ("tokenizer.ggml.add_eos_token", (flags & 4 != 0).into()),
        (
            "general.name",
            if flags & 8 != 0 { "Phi-3" } else { "llama" }.into(),
        ),
    ];
    if flags & 16 != 0 {
        entries.push(("tokenizer.ggml.token_type", types.into()));
    }
    if flags & 32 != 0 {
        entries.push(("tokenizer.ggml.scores", scores.into()));
    }
    for (id, (bit, key)) in ids.into_iter().zip([
        (64, "tokenizer.ggml.bos_token_id"),
        (64, "tokenizer.ggml.eos_token_id"),
        (128, "tokenizer.ggml.unknown_token_id"),
    ]) {
        if flags & bit != 0 {
            entries.push((key, u32::from(id).into()));
        }
    }
    entries.into_iter().collect()
}

/// Small vocabularies of both kinds, as headers and as descriptions, and a whole one of each as a header.
pub fn seeds() -> Vec<Vec<u8>> {
    let bytes = [
        (1, "a"),
        (1, "b"),
        (1, "ab"),
        (1, " "),
        (3, "<s>"),
        (4, "<t>"),
    ];
    let pieces = [
        (2, "<unk>"),
        (3, "<s>"),
        (6, "<0x61>"),
        (1, "a"),
        (1, "aa"),
        (4, "▁"),
    ];
    let seeds = [
        header(small_byte_level()),
        header(small_sentence_piece()),
        header(byte_level("llama-bpe")),
        header(sentence_piece(true)),
        description([0, 1, 0b1101_0010], &bytes, &[[0, 1], [3, 0]]),
        description([1, 0, 0b1111_1001], &pieces, &[]),
    ];
    seeds.into_iter().chain(crate::broken_files()).collect()
}

fn small_byte_level() -> Metadata {
    let tokens = ["a", "b", "ab", "Ġ", "<|im_end|>", "<s>"];
    let entries: [(&str, Value); 8] = [
        ("tokenizer.ggml.model", "gpt2".into()),
        ("tokenizer.ggml.pre", "qwen2".into()),
        ("tokenizer.ggml.tokens", strings(tokens)),
        (
            "tokenizer.ggml.token_type",
            vec![1i32, 1, 1, 1, 3, 4].into(),
        ),
        ("tokenizer.ggml.merges", strings(["a b", "Ġ a"])),
        ("tokenizer.ggml.bos_token_id", 5u32.into()),
        ("tokenizer.ggml.eot_token_id", 4i64.into()),
        ("tokenizer.ggml.add_eos_token", false.into()),
    ];
    entries.into_iter().collect()
}

/// With what no score should be, and an id that names no token.
fn small_sentence_piece() -> Metadata {
    let tokens = ["<unk>", "<s>", "</s>", "<0x0A>", "▁", "a", "▁a", "<|end|>"];
    let scores = vec![0.0, 0.0, 0.0, -0.0, -1.0, f32::NEG_INFINITY, f32::NAN, 0.0];
    let entries: [(&str, Value); 7] = [
        ("general.name", "Phi-3".into()),
        ("tokenizer.ggml.model", "llama".into()),
        ("tokenizer.ggml.tokens", strings(tokens)),
        (
            "tokenizer.ggml.token_type",
            vec![2i8, 3, 3, 6, 1, 1, 5, 4].into(),
        ),
        ("tokenizer.ggml.scores", scores.into()),
        ("tokenizer.ggml.unknown_token_id", u32::MAX.into()),
        ("tokenizer.ggml.add_space_prefix", true.into()),
    ];
    entries.into_iter().collect()
}

fn header(metadata: Metadata) -> Vec<u8> {
    let writer = metadata.iter().fold(Writer::new(), |writer, (key, value)| {
        writer.metadata(key, value.clone())
    });
    writer.finish().expect("seeds are valid").bytes
}

/// What [`described`] reads; `choices` are those of the model, the cut and the flags.
fn description(choices: [u8; 3], tokens: &[(u8, &str)], merges: &[[u8; 2]]) -> Vec<u8> {
    let short = |len: usize| u8::try_from(len).expect("seeds are small");
    let mut bytes = choices.to_vec();
    bytes.extend([4, 5, 0, short(tokens.len())]);
    for (token_type, spelled) in tokens {
        bytes.push(token_type << 4 | short(spelled.len()));
        bytes.extend_from_slice(spelled.as_bytes());
    }
    bytes.push(short(merges.len()));
    bytes.extend(merges.as_flattened());
    bytes.extend((0..short(tokens.len())).map(|index| 128 - index));
    bytes
}
