//! Text to token ids and back, from the vocabulary that a GGUF file carries; chat templates; streaming text out; stop strings.
//!
//! The walk through [`Tokenizer::encode`]: special tokens spelled out in the text are cut out first (`special`); what lies between them goes to one of two models. Byte-level BPE (`bpe`) cuts it into words
//! by the regular expressions of the vocabulary's pre-tokenizer (`pretokenizer`, `definitions`) and merges bytes by rank; SentencePiece BPE (`sentencepiece`) merges characters by score; the merging is the
//! same (`merge`). Backwards every token stands for a fixed string of bytes, kept in one arena (`vocabulary`); [`Detokenizer`] makes text of them as they come.
//!
//! # Why nothing here is quadratic
//! Prompts and vocabularies are hostile. Merging is a priority queue over a linked list, regular expressions are matched without backtracking, special tokens have a length limit, and hash tables are
//! keyed at random. The worst megabyte takes a second or two, where prose takes a tenth of one.
#![forbid(unsafe_code)]

mod bpe;
mod byte_level;
pub mod chat;
mod definitions;
mod detokenizer;
mod error;
mod hash;
mod keys;
mod known;
mod load;
mod lookup;
mod merge;
mod pretokenizer;
mod ranks;
mod sentencepiece;
mod special;
mod stop;
mod table;
mod tokenizer;
mod tokens;
mod vocabulary;

pub use detokenizer::Detokenizer;
pub use error::TokenizerError;
pub use stop::{StopMatcher, StopStep};
pub use tokenizer::{EncodeOptions, Tokenizer};

#[cfg(test)]
mod testing;
