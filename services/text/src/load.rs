use gguf::Metadata;

use crate::bpe::BytePairs;
use crate::sentencepiece::SentencePiece;
use crate::tokenizer::{Around, Model, Tokenizer};
use crate::tokens::{Family, Tokens};
use crate::{TokenizerError, keys, pretokenizer};

/// Reads a tokenizer from a file's metadata.
pub(crate) fn load(metadata: &Metadata) -> Result<Tokenizer, TokenizerError> {
    let family = match metadata.require_str(keys::MODEL)? {
        "gpt2" => Family::ByteLevel,
        "llama" => Family::SentencePiece,
        model => {
            return Err(TokenizerError::UnsupportedModel {
                model: model.to_owned(),
            });
        }
    };
    let tokens = Tokens::read(metadata, family)?;
    let n_vocab = tokens.vocabulary.len();
    let special_id = |key, default: u32| {
        let default = (family == Family::SentencePiece && default < n_vocab).then_some(default);
        keys::token_id(metadata, key, n_vocab).map(|id| id.or(default))
    };
    // SentencePiece's own numbering where the file does not say.
    let [unknown, bos, eos] = [
        special_id(keys::UNKNOWN, 0)?,
        special_id(keys::BOS, 1)?,
        special_id(keys::EOS, 2)?,
    ];

    let (model, add_bos) = match family {
        Family::ByteLevel => byte_level(metadata, &tokens, unknown)?,
        Family::SentencePiece => sentence_piece(metadata, &tokens, unknown)?,
    };
    let around = Around {
        before: around(metadata, keys::ADD_BOS, add_bos, bos, keys::BOS)?,
        after: around(metadata, keys::ADD_EOS, false, eos, keys::EOS)?,
    };
    let swallows = swallows_space(metadata);
    let [always, on_request] = [false, true].map(|controls| tokens.special(controls, swallows));
    let mut ends = tokens.ends;
    ends.extend(eos);
    for key in keys::ENDS {
        ends.extend(keys::token_id(metadata, key, n_vocab)?);
    }
    ends.sort_unstable();
    ends.dedup();
    Ok(Tokenizer {
        vocabulary: tokens.vocabulary,
        model,
        always,
        on_request,
        bos,
        eos,
        around,
        ends,
    })
}

/// The model of a byte-level vocabulary, and whether it begins texts with the beginning token unless told otherwise.
fn byte_level(
    metadata: &Metadata,
    tokens: &Tokens<'_>,
    unknown: Option<u32>,
) -> Result<(Model, bool), TokenizerError> {
    let definition = pretokenizer::definition(metadata.get_str(keys::PRE)?)?;
    let merges = metadata.require_strings(keys::MERGES)?;
    let pairs = BytePairs::new(
        &tokens.vocabulary,
        &tokens.in_text,
        merges,
        definition,
        unknown,
    )?;
    Ok((Model::BytePairs(pairs), definition.add_bos))
}

/// The same of a SentencePiece vocabulary.
fn sentence_piece(
    metadata: &Metadata,
    tokens: &Tokens<'_>,
    unknown: Option<u32>,
) -> Result<(Model, bool), TokenizerError> {
    let scores = keys::scores(metadata, tokens.vocabulary.len())?;
    let space_prefix = metadata.get_bool(keys::ADD_SPACE_PREFIX)?.unwrap_or(true);
    let pieces = SentencePiece::new(
        &tokens.vocabulary,
        &tokens.in_text,
        scores.as_deref(),
        unknown,
    );
    Ok((
        Model::SentencePiece {
            pieces,
            space_prefix,
        },
        true,
    ))
}

/// The token to be added on one side of every text, if one is.
fn around(
    metadata: &Metadata,
    flag: &'static str,
    default: bool,
    id: Option<u32>,
    key: &'static str,
) -> Result<Option<u32>, TokenizerError> {
    match (metadata.get_bool(flag)?.unwrap_or(default), id) {
        (false, _) => Ok(None),
        (true, Some(id)) => Ok(Some(id)),
        (true, None) => Err(TokenizerError::MissingSpecial { flag, key }),
    }
}

/// Which special tokens swallow the white space behind them.
///
/// Files do not say. Of the families read here Phi-3 alone has such tokens, and its files are told by their name, as in llama.cpp.
fn swallows_space(metadata: &Metadata) -> impl Fn(&[u8]) -> bool + Copy {
    let name = metadata
        .get_str(keys::NAME)
        .ok()
        .flatten()
        .unwrap_or_default()
        .to_lowercase();
    let is_phi3 = name.contains("phi-3") || name.contains("phi3");
    move |spelled: &[u8]| is_phi3 && ![&b"<unk>"[..], b"<s>", b"<|endoftext|>"].contains(&spelled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, ADD, CONTROL, Entries, MERGES, NORMAL, PARSE, PLAIN, USER_DEFINED};

    fn error(entries: &Entries) -> TokenizerError {
        Tokenizer::from_metadata(&testing::metadata(entries)).expect_err("it must be refused")
    }

    #[test]
    fn refusals_say_what_is_wrong() {
        let bytes = testing::byte_level("gpt-2", MERGES);
        let pieces = testing::sentence_piece(&[]);
        let check = |entries: Entries, words: &[&str]| {
            let message = error(&entries).to_string();
            assert!(words.iter().all(|word| message.contains(word)), "{message}");
        };
        check(
            testing::without(&bytes, keys::MODEL),
            &["tokenizer.ggml.model", "missing"],
        );
        check(
            testing::without(&bytes, keys::TOKENS),
            &["tokenizer.ggml.tokens", "missing"],
        );
        check(
            testing::without(&bytes, keys::MERGES),
            &["tokenizer.ggml.merges", "missing"],
        );
        check(
            testing::with(&bytes, keys::TOKENS, "one"),
            &["tokenizer.ggml.tokens", "array", "string"],
        );
        check(
            testing::with(&bytes, keys::TOKENS, vec![1u32]),
            &["tokenizer.ggml.tokens", "array of string", "array of u32"],
        );
        check(
            testing::with(&bytes, keys::TOKENS, testing::strings::<&str>([])),
            &["vocabulary", "empty"],
        );
        check(
            testing::with(&bytes, keys::TOKEN_TYPE, vec![1i32; 3]),
            &["tokenizer.ggml.token_type", "3", "268"],
        );
        check(
            testing::with(&bytes, keys::MODEL, "bert"),
            &["bert", "not supported"],
        );
        check(
            testing::with(&bytes, keys::PRE, "no-such"),
            &["no-such", "not supported"],
        );
        check(
            testing::with(&bytes, keys::BOS, "first"),
            &["tokenizer.ggml.bos_token_id", "string"],
        );
        check(
            testing::with(&testing::without(&bytes, keys::BOS), keys::ADD_BOS, true),
            &["add_bos_token", "bos_token_id"],
        );
        check(
            testing::with(&pieces, keys::SCORES, vec![0.0f32; 7]),
            &["tokenizer.ggml.scores", "7", "259"],
        );
        check(
            testing::with(&pieces, keys::SCORES, testing::strings(["0"])),
            &["tokenizer.ggml.scores", "array of string"],
        );
    }

    #[test]
    fn what_does_no_harm_is_let_pass() {
        let bytes = testing::byte_level("gpt-2", MERGES);
        let encodes = |entries: Entries| {
            assert!(!testing::tokenizer(&entries).encode("hello", ADD).is_empty())
        };
        encodes(testing::without(&bytes, keys::TOKEN_TYPE));
        encodes(testing::without(&bytes, keys::PRE));
        encodes(testing::with(&bytes, keys::TOKEN_TYPE, vec![1u8; 268]));
        encodes(testing::with(&bytes, keys::TOKEN_TYPE, vec![-9i32; 300]));
        encodes(testing::with(&bytes, keys::BOS, 1_000_000u32));
        encodes(testing::with(&bytes, keys::EOS, -1i32));
        encodes(testing::with(
            &bytes,
            keys::MERGES,
            testing::strings::<&str>([]),
        ));
        let pieces = testing::sentence_piece(&[("▁", 0.0)]);
        encodes(testing::with(&pieces, keys::SCORES, vec![7i32; 260]));
        encodes(testing::with(&pieces, keys::SCORES, vec![f32::NAN; 260]));
        encodes(testing::without(&pieces, keys::SCORES));
        encodes(testing::without(&pieces, keys::TOKEN_TYPE));
    }

    #[test]
    fn odd_spellings_harm_nobody() {
        for model in ["gpt2", "llama"] {
            let odd: [&[u8]; 8] = [b"", b"", b"\xff", b"\xe2\x96", b"a", b"a", b" ", b"<0xZZ>"];
            for token_type in 0..=7 {
                let entries = vec![
                    (keys::MODEL, model.into()),
                    (keys::TOKENS, testing::strings(odd)),
                    (keys::TOKEN_TYPE, vec![token_type; odd.len()].into()),
                    (keys::MERGES, testing::strings(["a a", ""])),
                ];
                let tokenizer = testing::tokenizer(&entries);
                for options in [PLAIN, PARSE, ADD] {
                    let ids = tokenizer.encode("a \u{ff}é<0xZZ>", options);
                    assert!(ids.iter().all(|&id| id < tokenizer.n_vocab()));
                    tokenizer.decode(&ids);
                }
                assert_eq!(
                    (tokenizer.token_bytes(8), tokenizer.token_spelling(u32::MAX)),
                    (None, None)
                );
            }
        }
    }

    /// A vocabulary of whole words after `<unk>`, `<s>`, `</s>`.
    fn named(names: &[&str], kind: i32) -> Entries {
        let tokens = ["<unk>", "<s>", "</s>"].iter().chain(names);
        let types: Vec<i32> = [2, 3, 3]
            .into_iter()
            .chain(names.iter().map(|_| kind))
            .collect();
        vec![
            (keys::MODEL, "llama".into()),
            (keys::TOKENS, testing::strings(tokens)),
            (keys::TOKEN_TYPE, types.into()),
        ]
    }

    #[test]
    fn generations_end_by_id_and_by_name() {
        let check = |entries: &Entries, expected: &[u32]| {
            let tokenizer = testing::tokenizer(entries);
            let ends: Vec<u32> = (0..tokenizer.n_vocab())
                .filter(|&id| tokenizer.is_end_of_generation(id))
                .collect();
            assert_eq!(ends, expected);
            assert_eq!(tokenizer.ends_of_generation(), expected);
            assert!(!tokenizer.is_end_of_generation(u32::MAX));
        };
        check(&named(&["x"], NORMAL), &[2]);
        check(
            &testing::with(&named(&["x", "y"], NORMAL), keys::EOS, 4u32),
            &[2, 4],
        );
        check(
            &testing::with(
                &named(&["x", "y"], NORMAL),
                "tokenizer.ggml.eot_token_id",
                3u32,
            ),
            &[2, 3],
        );
        check(
            &named(&["<|eot_id|>", "<|im_start|>", "<|im_end|>"], CONTROL),
            &[2, 3, 5],
        );
        check(
            &named(&["<|end|>", "<|return|>", "<|call|>"], CONTROL),
            &[2, 4, 5],
        );
    }

    #[test]
    fn tokens_known_by_name_are_control_tokens_whatever_the_file_says() {
        for kind in [NORMAL, USER_DEFINED, CONTROL] {
            let tokenizer = testing::tokenizer(&named(&["<end_of_turn>", "x"], kind));
            assert_eq!(tokenizer.token_bytes(3), Some(&b""[..]));
            assert_eq!(tokenizer.token_spelling(3), Some(&b"<end_of_turn>"[..]));
            assert!(!tokenizer.encode("<end_of_turn>", PLAIN).contains(&3));
            assert_eq!(tokenizer.encode("<end_of_turn>", PARSE), [3]);
        }
    }

    #[test]
    fn space_behind_the_special_tokens_of_phi3_is_swallowed() {
        let entries = named(&["<|user|>", "▁", "x"], CONTROL);
        let check = |entries: &Entries, expected: &[u32]| {
            assert_eq!(
                testing::tokenizer(entries).encode("<|user|> \n<s>", PARSE)[..2],
                *expected
            )
        };
        check(&testing::with(&entries, keys::NAME, "Phi-3 mini"), &[3, 1]);
        check(&testing::with(&entries, keys::NAME, "Llama"), &[3, 0]);
    }
}
