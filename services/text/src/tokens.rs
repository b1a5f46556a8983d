use gguf::{Metadata, StringArray};

use crate::known::{self, Known};
use crate::special::{SpecialToken, SpecialTokens};
use crate::vocabulary::{Kind, Vocabulary};
use crate::{TokenizerError, byte_level, keys, sentencepiece};

/// The two ways to read spellings and to make tokens of text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    ByteLevel,
    SentencePiece,
}

/// What the spellings and types of the tokens say.
pub(crate) struct Tokens<'m> {
    spellings: &'m StringArray,
    pub(crate) vocabulary: Vocabulary,
    /// Of each token whether ordinary text can be encoded to it, as far as its spelling goes.
    pub(crate) in_text: Vec<bool>,
    /// Tokens known by name to end a generation.
    pub(crate) ends: Vec<u32>,
}

impl<'m> Tokens<'m> {
    pub(crate) fn read(
        metadata: &'m Metadata,
        family: Family,
    ) -> Result<Tokens<'m>, TokenizerError> {
        let spellings = metadata.require_strings(keys::TOKENS)?;
        if spellings.is_empty() {
            return Err(TokenizerError::Empty);
        }
        let vocabulary = Vocabulary::with_capacity(spellings.len(), spellings.total_bytes())?;
        let n_vocab = u32::try_from(spellings.len()).expect("with_capacity has checked the number");
        let types = keys::token_types(metadata, n_vocab)?;
        let mut tokens = Tokens {
            spellings,
            vocabulary,
            in_text: Vec::with_capacity(spellings.len()),
            ends: Vec::new(),
        };
        for (index, spelled) in spellings.iter().enumerate() {
            let stated = types
                .as_ref()
                .map_or(Kind::Normal, |types| Kind::from_type(types[index]));
            let kind = kind(family, stated, spelled);
            let in_text = tokens
                .vocabulary
                .push(kind, |out| append_piece(family, kind, spelled, out));
            tokens.in_text.push(in_text && !spelled.is_empty());
        }
        tokens.ends = ends(spellings);
        Ok(tokens)
    }

    /// Tokens to be cut out of text: those that users have defined and, with `controls`, control tokens too.
    pub(crate) fn special(
        &self,
        controls: bool,
        swallows_space: impl Fn(&[u8]) -> bool,
    ) -> SpecialTokens {
        let is_special = |kind| match kind {
            Kind::UserDefined => true,
            Kind::Control | Kind::Unknown => controls,
            Kind::Normal | Kind::Unused | Kind::Byte => false,
        };
        let special = (0..)
            .zip(self.spellings.iter())
            .filter(|&(id, _)| self.vocabulary.kind(id).is_some_and(is_special));
        SpecialTokens::new(special.map(|(id, spelled)| {
            (
                spelled,
                SpecialToken {
                    id,
                    swallows_space: swallows_space(spelled),
                },
            )
        }))
    }
}

/// What sort of token it is, whatever the file states.
fn kind(family: Family, stated: Kind, spelled: &[u8]) -> Kind {
    if known::known(spelled).is_some() {
        return Kind::Control;
    }
    let is_byte = family == Family::SentencePiece
        && stated == Kind::Normal
        && sentencepiece::spelled_byte(spelled).is_some();
    if is_byte { Kind::Byte } else { stated }
}

/// The tokens that are known to end a generation, as far as this vocabulary has no others for it.
fn ends(spellings: &StringArray) -> Vec<u32> {
    let is_end = |spelled: &[u8]| known::known(spelled) == Some(Known::End);
    let ends: Vec<(u32, &[u8])> = (0..)
        .zip(spellings.iter())
        .filter(|(_, spelled)| is_end(spelled))
        .collect();
    let mut present: Vec<&[u8]> = ends.iter().map(|&(_, spelled)| spelled).collect();
    present.sort_unstable();
    present.dedup();
    ends.iter()
        .filter(|(_, spelled)| !known::is_overruled(spelled, &present))
        .map(|&(id, _)| id)
        .collect()
}

/// Appends the bytes that a token stands for; the answer says whether text can be encoded to it.
fn append_piece(family: Family, kind: Kind, spelled: &[u8], out: &mut Vec<u8>) -> bool {
    match (family, kind) {
        (Family::ByteLevel, Kind::Normal | Kind::Unused | Kind::Byte) => {
            byte_level::append_bytes(spelled, out)
        }
        (Family::SentencePiece, Kind::Normal | Kind::Unused | Kind::UserDefined) => {
            sentencepiece::append_bytes(spelled, out)
        }
        (Family::SentencePiece, Kind::Byte)
            if let Some(byte) = sentencepiece::spelled_byte(spelled) =>
        {
            out.push(byte);
            false
        }
        _ => {
            out.extend_from_slice(spelled);
            false
        }
    }
}
