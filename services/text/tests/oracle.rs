//! Vocabularies of published models against ids that two independent tokenizers agree on.
//!
//! `HEARTH_ORACLE` names the folder that holds `manifest.open.json` and what it lists. Every expected number of checks comes from the manifest, so that a test which silently checks less fails.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{env, fs};

use gguf::{Directory, ParseError};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use text::{Detokenizer, EncodeOptions, Tokenizer};

/// Stands on a line of its own between the texts of an upstream `.inp` file.
const SEPARATOR: &str = "\n__ggml_vocab_test__\n";

#[derive(Deserialize)]
struct Manifest {
    cases: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct VocabularyCase {
    id: String,
    vectors: String,
    upstream_inp: String,
    upstream_out: String,
    n_vectors: usize,
    n_agreed: usize,
    n_upstream: usize,
    facts: Facts,
}

#[derive(Deserialize)]
struct Facts {
    model: String,
    bos: u32,
    eos: u32,
    n_tokens: u32,
    add_special_ids_of_x: Vec<u32>,
}

#[derive(Deserialize)]
struct Vectors {
    vocab: String,
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    text: String,
    add_special: bool,
    parse_special: bool,
    ids: Vec<u32>,
    agreed: bool,
    /// Bytes of the pieces of `ids`; absent where they are those of the text.
    pieces_hex: Option<String>,
}

#[derive(Deserialize)]
struct ModelCase {
    id: String,
    file: String,
    prompts: Prompts,
}

#[derive(Deserialize)]
struct Prompts {
    p0: Prompt,
}

#[derive(Deserialize)]
struct Prompt {
    text: Option<String>,
    tokens: Vec<u32>,
}

/// A vocabulary and what is known about it.
struct Subject {
    case: VocabularyCase,
    vectors: Vec<Vector>,
    tokenizer: Arc<Tokenizer>,
}

fn root() -> PathBuf {
    env::var_os("HEARTH_ORACLE")
        .expect("HEARTH_ORACLE names the folder of the oracle files")
        .into()
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn json<T: DeserializeOwned>(path: &Path) -> T {
    serde_json::from_slice(&read(path))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The cases of one kind.
fn cases<T: DeserializeOwned>(kind: &str) -> Vec<T> {
    let manifest: Manifest = json(&root().join("manifest.open.json"));
    let of_kind = manifest
        .cases
        .into_iter()
        .filter(|case| case["kind"] == kind);
    let cases: Vec<T> = of_kind
        .map(|case| serde_json::from_value(case).expect("a case of this kind"))
        .collect();
    assert!(!cases.is_empty(), "the manifest has no case of kind {kind}");
    cases
}

fn tokenizer(path: &Path) -> Tokenizer {
    let bytes = read(path);
    let parsed: Result<Directory, ParseError> = Directory::parse(&bytes, bytes.len() as u64);
    let directory = parsed.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Tokenizer::from_metadata(directory.metadata())
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn subjects() -> Vec<Subject> {
    let subject = |case: VocabularyCase| {
        let path = root().join(&case.vectors);
        let Vectors { vocab, vectors } = json(&path);
        assert_eq!(vectors.len(), case.n_vectors, "{}", case.id);
        let tokenizer = Arc::new(tokenizer(&path.with_file_name(vocab)));
        Subject {
            case,
            vectors,
            tokenizer,
        }
    };
    cases("tokenizer").into_iter().map(subject).collect()
}

fn unhex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex
        .chars()
        .map(|digit| {
            u8::try_from(digit.to_digit(16).expect("a hexadecimal digit")).expect("below 16")
        })
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

/// Fails with the first few complaints, if there are any.
fn complain(complaints: &[String]) {
    let shown = complaints.len().min(20);
    assert!(
        complaints.is_empty(),
        "{} of the checks failed:\n{}",
        complaints.len(),
        complaints[..shown].join("\n")
    );
}

#[test]
fn agreed_vectors_give_the_expected_ids() {
    let mut complaints = Vec::new();
    for Subject {
        case,
        vectors,
        tokenizer,
    } in subjects()
    {
        let mut n_checked = 0;
        for Vector {
            text,
            add_special,
            parse_special,
            ids,
            ..
        } in vectors.iter().filter(|vector| vector.agreed)
        {
            let options = EncodeOptions {
                add_special: *add_special,
                parse_special: *parse_special,
            };
            let found = tokenizer.encode(text, options);
            if found != *ids {
                complaints.push(format!(
                    "{} {text:?} {options:?}: expected {ids:?}, found {found:?}",
                    case.id
                ));
            }
            n_checked += 1;
        }
        assert_eq!(n_checked, case.n_agreed, "{}", case.id);
    }
    complain(&complaints);
}

#[test]
fn upstream_pairs_give_the_expected_ids() {
    let mut complaints = Vec::new();
    for Subject {
        case, tokenizer, ..
    } in subjects()
    {
        let texts = String::from_utf8(read(&root().join(&case.upstream_inp)))
            .expect("upstream texts are UTF-8");
        let expected = String::from_utf8(read(&root().join(&case.upstream_out)))
            .expect("upstream ids are digits");
        let mut texts: Vec<&str> = texts.split(SEPARATOR).collect();
        if texts.last() == Some(&"") {
            texts.pop();
        }
        let expected: Vec<Vec<u32>> = expected
            .lines()
            .map(|line| {
                line.split_whitespace()
                    .map(|id| id.parse().expect("an id"))
                    .collect()
            })
            .collect();
        assert_eq!(
            (texts.len(), expected.len()),
            (case.n_upstream, case.n_upstream),
            "{}",
            case.id
        );
        for (text, ids) in texts.iter().zip(expected) {
            let found = tokenizer.encode(text, EncodeOptions::default());
            if found != ids {
                complaints.push(format!(
                    "{} {text:?}: expected {ids:?}, found {found:?}",
                    case.id
                ));
            }
        }
    }
    complain(&complaints);
}

#[test]
fn pieces_have_the_expected_bytes() {
    let mut complaints = Vec::new();
    for Subject {
        case,
        vectors,
        tokenizer,
    } in subjects()
    {
        for Vector {
            text,
            ids,
            pieces_hex,
            ..
        } in &vectors
        {
            let expected = pieces_hex
                .as_deref()
                .map_or_else(|| text.as_bytes().to_vec(), unhex);
            let found: Vec<u8> = ids
                .iter()
                .flat_map(|&id| {
                    tokenizer
                        .token_spelling(id)
                        .expect("an id of the vocabulary")
                })
                .copied()
                .collect();
            if found != expected {
                complaints.push(format!(
                    "{} {text:?}: expected {expected:?}, found {found:?}",
                    case.id
                ));
            }
        }
    }
    complain(&complaints);
}

#[test]
fn decoding_gives_the_text_back() {
    let mut complaints = Vec::new();
    for Subject {
        case,
        vectors,
        tokenizer,
    } in subjects()
    {
        for Vector {
            text,
            ids,
            parse_special,
            ..
        } in &vectors
        {
            let visible: Vec<u8> = ids
                .iter()
                .flat_map(|&id| tokenizer.token_bytes(id).expect("an id of the vocabulary"))
                .copied()
                .collect();
            let mut detokenizer = Detokenizer::new(Arc::clone(&tokenizer));
            let mut streamed: String = ids.iter().map(|&id| detokenizer.push(id)).collect();
            streamed.push_str(&detokenizer.finish());
            let decoded = tokenizer.decode(ids);
            // A SentencePiece vocabulary spells a space as U+2581 and so cannot tell the two apart.
            let expected = if case.facts.model == "llama" {
                text.replace('\u{2581}', " ")
            } else {
                text.clone()
            };
            // Control tokens of the text are not part of the output.
            let is_text = *parse_special || decoded == expected.as_bytes();
            if !is_text || streamed != String::from_utf8_lossy(&visible) {
                complaints.push(format!(
                    "{} {text:?}: decoded {decoded:?}, streamed {streamed:?}",
                    case.id
                ));
            }
        }
    }
    complain(&complaints);
}

#[test]
fn facts_about_the_vocabularies_hold() {
    for Subject {
        case, tokenizer, ..
    } in subjects()
    {
        let Facts {
            model: _,
            bos,
            eos,
            n_tokens,
            add_special_ids_of_x,
        } = case.facts;
        assert_eq!(
            (tokenizer.bos(), tokenizer.eos(), tokenizer.n_vocab()),
            (Some(bos), Some(eos), n_tokens),
            "{}",
            case.id
        );
        assert!(tokenizer.is_end_of_generation(eos), "{}", case.id);
        assert_eq!(
            tokenizer.encode(
                "x",
                EncodeOptions {
                    add_special: true,
                    parse_special: false
                }
            ),
            add_special_ids_of_x,
            "{}",
            case.id
        );
    }
}

#[test]
fn prompts_of_the_models_give_their_ids() {
    for ModelCase {
        id,
        file,
        prompts: Prompts { p0 },
    } in cases("logits")
    {
        // Quantised files repeat the prompt of the model that they were made from, without its text.
        let Some(text) = p0.text else {
            assert!(id.starts_with("quants/"), "{id} has no text");
            continue;
        };
        let options = EncodeOptions {
            add_special: true,
            parse_special: false,
        };
        assert_eq!(
            tokenizer(&root().join(file)).encode(&text, options),
            p0.tokens,
            "{id}"
        );
    }
}
