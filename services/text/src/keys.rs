//! The metadata keys of a vocabulary and typed reads of them.

use gguf::{Array, Metadata, MetadataError};

use crate::TokenizerError;

pub(crate) const NAME: &str = "general.name";
pub(crate) const MODEL: &str = "tokenizer.ggml.model";
pub(crate) const PRE: &str = "tokenizer.ggml.pre";
pub(crate) const TOKENS: &str = "tokenizer.ggml.tokens";
pub(crate) const TOKEN_TYPE: &str = "tokenizer.ggml.token_type";
pub(crate) const SCORES: &str = "tokenizer.ggml.scores";
pub(crate) const MERGES: &str = "tokenizer.ggml.merges";
pub(crate) const BOS: &str = "tokenizer.ggml.bos_token_id";
pub(crate) const EOS: &str = "tokenizer.ggml.eos_token_id";
pub(crate) const UNKNOWN: &str = "tokenizer.ggml.unknown_token_id";
pub(crate) const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
pub(crate) const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";
pub(crate) const ADD_SPACE_PREFIX: &str = "tokenizer.ggml.add_space_prefix";
/// Keys that name further tokens after which nothing more is to be generated.
pub(crate) const ENDS: [&str; 5] = [
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.eom_token_id",
    "tokenizer.ggml.fim_pad_token_id",
    "tokenizer.ggml.fim_rep_token_id",
    "tokenizer.ggml.fim_sep_token_id",
];

/// A token id; `None` where the key is missing or names no token of the vocabulary (converters write -1 for "none").
pub(crate) fn token_id(
    metadata: &Metadata,
    key: &str,
    n_vocab: u32,
) -> Result<Option<u32>, TokenizerError> {
    match metadata.get_u32(key) {
        Ok(id) => Ok(id.filter(|&id| id < n_vocab)),
        Err(MetadataError::Range { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The scores of the tokens; `None` where the file has none.
pub(crate) fn scores(
    metadata: &Metadata,
    n_vocab: u32,
) -> Result<Option<Vec<f32>>, TokenizerError> {
    let scores = match metadata.get_array(SCORES)? {
        None => return Ok(None),
        #[expect(
            clippy::cast_precision_loss,
            reason = "scores are only compared with each other"
        )]
        Some(Array::I32(scores)) => scores.iter().map(|&score| score as f32).collect(),
        Some(_) => metadata.require_f32s(SCORES)?.to_vec(),
    };
    long_enough(SCORES, scores.len(), n_vocab)?;
    Ok(Some(scores))
}

/// The types of the tokens; `None` where the file has none.
pub(crate) fn token_types(
    metadata: &Metadata,
    n_vocab: u32,
) -> Result<Option<Vec<i32>>, TokenizerError> {
    let types = metadata.get_i32s(TOKEN_TYPE)?;
    if let Some(types) = &types {
        long_enough(TOKEN_TYPE, types.len(), n_vocab)?;
    }
    Ok(types)
}

fn long_enough(key: &'static str, len: usize, n_vocab: u32) -> Result<(), TokenizerError> {
    if u64::try_from(len).is_ok_and(|len| len < u64::from(n_vocab)) {
        return Err(TokenizerError::Short { key, len, n_vocab });
    }
    Ok(())
}
