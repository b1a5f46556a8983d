use gguf::Directory;

use super::{ConfigError, Hyper};

/// The counts that every model has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) n_layers: u32,
    pub(super) n_embd: u32,
    pub(super) n_heads: u32,
    pub(super) n_kv_heads: u32,
    pub(super) head_dim_k: u32,
    pub(super) head_dim_v: u32,
    pub(super) n_vocab: u32,
    pub(super) context_length: u32,
}

pub(super) fn read(hyper: &Hyper<'_>, directory: &Directory) -> Result<Sizes, ConfigError> {
    let n_layers = n_layers(hyper, directory)?;
    let n_embd = hyper.count("embedding_length")?;
    let n_heads = hyper.count_of_layers("attention.head_count", n_layers)?;
    let n_heads = n_heads.ok_or_else(|| hyper.missing("attention.head_count"))?;
    let n_kv_heads = hyper
        .count_of_layers("attention.head_count_kv", n_layers)?
        .unwrap_or(n_heads);
    if !n_heads.is_multiple_of(n_kv_heads) {
        return Err(hyper.invalid(
            "attention.head_count_kv",
            n_kv_heads,
            format!("must divide the head count {n_heads}"),
        ));
    }
    Ok(Sizes {
        n_layers,
        n_embd,
        n_heads,
        n_kv_heads,
        head_dim_k: head_dim(hyper, "attention.key_length", n_embd, n_heads)?,
        head_dim_v: head_dim(hyper, "attention.value_length", n_embd, n_heads)?,
        n_vocab: n_vocab(hyper, directory)?,
        context_length: hyper.count("context_length")?,
    })
}

/// The number of blocks, which cannot be more than there are tensors: so nothing that counts layers can be led astray by a number in the file.
fn n_layers(hyper: &Hyper<'_>, directory: &Directory) -> Result<u32, ConfigError> {
    let n_layers = hyper.count("block_count")?;
    let n_tensors = directory.tensors().len();
    if n_layers as usize > n_tensors {
        let reason = format!("the directory has only {n_tensors} tensors");
        return Err(hyper.invalid("block_count", n_layers, reason));
    }
    Ok(n_layers)
}

/// An explicit head length, or an even share of the width.
fn head_dim(hyper: &Hyper<'_>, key: &str, n_embd: u32, n_heads: u32) -> Result<u32, ConfigError> {
    if let Some(head_dim) = hyper.optional_count(key)? {
        return Ok(head_dim);
    }
    if !n_embd.is_multiple_of(n_heads) {
        let reason = format!("must divide embedding_length {n_embd} where no {key} is given");
        return Err(hyper.invalid("attention.head_count", n_heads, reason));
    }
    Ok(n_embd / n_heads)
}

/// The inner width of blocks without experts; 0 where `needed` is false and none is given.
pub(super) fn n_ff(hyper: &Hyper<'_>, n_layers: u32, needed: bool) -> Result<u32, ConfigError> {
    let key = "feed_forward_length";
    match hyper.count_of_layers(key, n_layers) {
        Ok(Some(n_ff)) => Ok(n_ff),
        Ok(None) if needed => Err(hyper.missing(key)),
        Err(error) if needed => Err(error),
        Ok(None) | Err(_) => Ok(0),
    }
}

/// The tokenizer says how many tokens there are; a file without one, its own key or the embedding's rows.
fn n_vocab(hyper: &Hyper<'_>, directory: &Directory) -> Result<u32, ConfigError> {
    if let Some(tokens) = directory.metadata().get_array("tokenizer.ggml.tokens")? {
        let count = u32::try_from(tokens.len()).ok().filter(|&count| count > 0);
        return count.ok_or_else(|| ConfigError::Invalid {
            key: "tokenizer.ggml.tokens".to_owned(),
            value: format!("an array of {}", tokens.len()),
            reason: "a vocabulary has 1 to 2^32 - 1 tokens".to_owned(),
        });
    }
    if let Some(n_vocab) = hyper.optional_count("vocab_size")? {
        return Ok(n_vocab);
    }
    let rows = directory
        .tensor("token_embd.weight")
        .map(|table| table.shape.n_rows());
    let rows = rows.and_then(|rows| u32::try_from(rows).ok());
    rows.ok_or_else(|| hyper.missing("vocab_size"))
}
