/// Why the vocabulary in a file's metadata cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenizerError {
    /// A key that no vocabulary can do without is missing, or one has a value of a type that it cannot have.
    #[error("the vocabulary cannot be read: {0}")]
    Metadata(#[from] gguf::MetadataError),
    /// `tokenizer.ggml.tokens` is empty.
    #[error("the vocabulary is empty: 'tokenizer.ggml.tokens' has no element")]
    Empty,
    /// An array that belongs to the tokens has fewer elements than there are tokens.
    #[error("'{key}' has {len} elements for a vocabulary of {n_vocab} tokens")]
    Short {
        /// The key of the array.
        key: &'static str,
        /// Its length.
        len: usize,
        /// The number of tokens.
        n_vocab: u32,
    },
    /// More tokens or merges, or more bytes in them, than 32-bit indices reach.
    #[error(
        "the vocabulary has {n_strings} tokens or merges of {n_bytes} bytes together, more than can be indexed"
    )]
    TooLarge {
        /// The number of tokens or merges.
        n_strings: usize,
        /// Their length together, in bytes.
        n_bytes: usize,
    },
    /// `tokenizer.ggml.model` names an algorithm that is not built here.
    #[error("tokenizer model '{model}' is not supported (gpt2 and llama are)")]
    UnsupportedModel {
        /// The name in the file.
        model: String,
    },
    /// `tokenizer.ggml.pre` names rules that are not known here. To guess would give other ids than the model was trained on.
    #[error("pre-tokenizer '{name}' is not supported")]
    UnsupportedPreTokenizer {
        /// The name in the file.
        name: String,
    },
    /// The vocabulary wants a token added to every text and does not say which.
    #[error("'{flag}' asks for a token with every text, but '{key}' names none")]
    MissingSpecial {
        /// The key that asks for it, by its value or by its default.
        flag: &'static str,
        /// The key that should name the token.
        key: &'static str,
    },
}
