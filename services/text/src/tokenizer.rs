use std::fmt;

use crate::bpe::BytePairs;
use crate::sentencepiece::SentencePiece;
use crate::special::{Part, SpecialTokens};
use crate::vocabulary::{Kind, Vocabulary};
use crate::{TokenizerError, load};

/// A vocabulary, ready for use. Immutable: one serves all requests.
pub struct Tokenizer {
    pub(crate) vocabulary: Vocabulary,
    pub(crate) model: Model,
    /// Tokens that are cut out of every text.
    pub(crate) always: SpecialTokens,
    /// The same and control tokens.
    pub(crate) on_request: SpecialTokens,
    pub(crate) bos: Option<u32>,
    pub(crate) eos: Option<u32>,
    pub(crate) around: Around,
    /// Tokens that end a generation, ascending.
    pub(crate) ends: Vec<u32>,
}

/// How text between special tokens becomes tokens.
pub(crate) enum Model {
    BytePairs(BytePairs),
    SentencePiece {
        pieces: SentencePiece,
        /// Text at the start and behind a special token gets a space in front.
        space_prefix: bool,
    },
}

/// Tokens that the vocabulary wants before and after a text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Around {
    pub(crate) before: Option<u32>,
    pub(crate) after: Option<u32>,
}

/// What [`Tokenizer::encode`] does beyond the plain text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Adds the beginning and end tokens that the vocabulary asks for.
    pub add_special: bool,
    /// Control tokens spelled out in the text become one token each. Not for text that users write: it lets them speak as the system.
    pub parse_special: bool,
}

impl Tokenizer {
    /// Reads the keys `tokenizer.ggml.*`. Vocabularies of the models `gpt2` and `llama` are understood, the former with the pre-tokenizers of published models.
    ///
    /// What a broken file can do without harm is let pass: merges that can never apply, ids that name no token, bytes that are no text.
    /// # Errors
    /// [`TokenizerError`] if a key is missing, has the wrong type or is too short, or asks for an algorithm that is not built here.
    pub fn from_metadata(metadata: &gguf::Metadata) -> Result<Tokenizer, TokenizerError> {
        load::load(metadata)
    }

    /// The tokens of `text`. Time grows with its length times the logarithm of it, whatever it holds.
    pub fn encode(&self, text: &str, options: EncodeOptions) -> Vec<u32> {
        let special = if options.parse_special {
            &self.on_request
        } else {
            &self.always
        };
        let Around { before, after } = if options.add_special {
            self.around
        } else {
            Around {
                before: None,
                after: None,
            }
        };
        let mut ids = Vec::with_capacity(text.len() / 4 + 2);
        ids.extend(before);
        let mut behind_text = false;
        special.split(text, |part| self.push(part, &mut behind_text, &mut ids));
        ids.extend(after);
        ids
    }

    /// The tokens of a rendered chat prompt: control tokens count, except where `mark` interrupts their spelling, and `mark` itself is no part of the text. The beginning token comes once if the vocabulary
    /// asks for it, also when the text spells it out; no end token is added.
    pub(crate) fn encode_marked(&self, text: &str, mark: char) -> Vec<u32> {
        let mut ids = Vec::with_capacity(text.len() / 4 + 2);
        let mut behind_text = false;
        self.on_request.split(text, |part| match part {
            Part::Text(text) if text.contains(mark) => {
                let text = text.replace(mark, "");
                // Tokens that users have defined are cut out of every text; the mark may have hidden one.
                self.always
                    .split(&text, |part| self.push(part, &mut behind_text, &mut ids));
            }
            part => self.push(part, &mut behind_text, &mut ids),
        });
        if let Some(before) = self.around.before
            && ids.first() != Some(&before)
        {
            ids.insert(0, before);
        }
        ids
    }

    /// Where in `text` control tokens are spelled out, overlapping ones included: byte offsets, ascending.
    pub(crate) fn control_spellings(&self, text: &str) -> Vec<usize> {
        let is_control = |id| {
            let kind = self.vocabulary.kind(id);
            matches!(kind, Some(Kind::Control | Kind::Unknown))
        };
        let spelled = self.on_request.places(text);
        spelled
            .filter(|&(_, id)| is_control(id))
            .map(|(at, _)| at)
            .collect()
    }

    /// Whether some special token is spelled with `character`.
    pub(crate) fn is_in_special_token(&self, character: char) -> bool {
        self.on_request.has_character(character)
    }

    /// Appends the tokens of one part of a text.
    fn push(&self, part: Part<'_>, behind_text: &mut bool, ids: &mut Vec<u32>) {
        match part {
            Part::Special(id) => ids.push(id),
            Part::Text(text) => match &self.model {
                Model::BytePairs(pairs) => pairs.encode(&self.vocabulary, text, ids),
                Model::SentencePiece {
                    pieces,
                    space_prefix,
                } => pieces.encode(&self.vocabulary, text, *space_prefix && !*behind_text, ids),
            },
        }
        *behind_text = matches!(part, Part::Text(_));
    }

    /// The bytes of a text of `ids`: what [`Tokenizer::encode`] was given, without the special tokens and without the space that SentencePiece vocabularies put in front. Ids out of range stand for nothing.
    ///
    /// For what a model generates behind a prompt the space belongs to the text: see [`crate::Detokenizer`].
    pub fn decode(&self, ids: &[u32]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(ids.len() * 4);
        for &id in ids {
            bytes.extend_from_slice(self.token_bytes(id).unwrap_or_default());
        }
        if matches!(
            self.model,
            Model::SentencePiece {
                space_prefix: true,
                ..
            }
        ) && bytes.first() == Some(&b' ')
        {
            bytes.remove(0);
        }
        bytes
    }

    /// The bytes that a token stands for in output: none for control tokens and the like. `None` out of range.
    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        let piece = self.vocabulary.piece(id)?;
        Some(if self.vocabulary.kind(id).is_some_and(Kind::is_visible) {
            piece
        } else {
            &[]
        })
    }

    /// The bytes that a token stands for, control tokens as they are spelled. `None` out of range.
    pub fn token_spelling(&self, id: u32) -> Option<&[u8]> {
        self.vocabulary.piece(id)
    }

    /// The number of tokens; ids are below it.
    pub fn n_vocab(&self) -> u32 {
        self.vocabulary.len()
    }

    /// The token that begins a text, if the vocabulary has one.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text, if the vocabulary has one.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Whether nothing more is to be generated after `id`: the end of the text, of a turn, of a message, by the file's word or by the token's name.
    pub fn is_end_of_generation(&self, id: u32) -> bool {
        self.ends.binary_search(&id).is_ok()
    }

    /// The tokens of which [`is_end_of_generation`](Tokenizer::is_end_of_generation) holds, ascending.
    pub fn ends_of_generation(&self) -> &[u32] {
        &self.ends
    }
}

/// Names the essentials; a vocabulary is too long to print.
impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let model = match self.model {
            Model::BytePairs(_) => "gpt2",
            Model::SentencePiece { .. } => "llama",
        };
        let Tokenizer { bos, eos, ends, .. } = self;
        f.debug_struct("Tokenizer")
            .field("model", &model)
            .field("n_vocab", &self.n_vocab())
            .field("bos", bos)
            .field("eos", eos)
            .field("ends", ends)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn one_tokenizer_serves_all_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<Tokenizer>();
    }

    #[test]
    fn tokens_stand_for_bytes() {
        let tokenizer = testing::byte_tokenizer();
        let bos = tokenizer.bos().unwrap();
        let check = |id: u32, output: Option<&[u8]>, spelling: Option<&[u8]>| {
            assert_eq!(
                (tokenizer.token_bytes(id), tokenizer.token_spelling(id)),
                (output, spelling),
                "{id}"
            );
        };
        check(0xff, Some(b"\xff"), Some(b"\xff"));
        check(u32::from(b'\n'), Some(b"\n"), Some(b"\n"));
        check(bos, Some(b""), Some(b"<s>"));
        check(bos + 2, Some(b"<tool>"), Some(b"<tool>"));
        check(tokenizer.n_vocab(), None, None);
        assert_eq!(
            tokenizer.decode(&[bos, u32::from(b' '), u32::from(b'a'), u32::MAX]),
            b" a"
        );
        assert!(tokenizer.is_end_of_generation(tokenizer.eos().unwrap()));
    }

    #[test]
    fn debug_names_the_essentials() {
        let shown = format!("{:?}", testing::byte_tokenizer());
        assert!(
            shown.contains("gpt2") && shown.contains("268") && shown.len() < 200,
            "{shown}"
        );
    }
}
