use crate::TokenizerError;

/// What sort of token it is, as `tokenizer.ggml.token_type` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Made from ordinary text.
    Normal,
    /// Stands for what could not be spelled.
    Unknown,
    /// Steers the model: made from text only when asked for, never part of output.
    Control,
    /// Cut out of the text wherever it is spelled out.
    UserDefined,
    /// A hole in the numbering.
    Unused,
    /// One byte, for characters that the vocabulary does not have.
    Byte,
}

impl Kind {
    /// Types 0 and above 6 are not in use; such tokens are as good as any.
    pub(crate) fn from_type(token_type: i32) -> Kind {
        match token_type {
            2 => Kind::Unknown,
            3 => Kind::Control,
            4 => Kind::UserDefined,
            5 => Kind::Unused,
            6 => Kind::Byte,
            _ => Kind::Normal,
        }
    }

    /// Whether its bytes belong into output text.
    pub(crate) fn is_visible(self) -> bool {
        matches!(self, Kind::Normal | Kind::UserDefined | Kind::Byte)
    }
}

/// Every token's kind and the bytes that it stands for.
///
/// One arena for all bytes: a hundred thousand small allocations would take longer than all else that attaching a model does.
#[derive(Clone, Default)]
pub(crate) struct Vocabulary {
    pieces: Vec<u8>,
    /// Where each token's piece ends; it begins where the one before it ends.
    ends: Vec<u32>,
    kinds: Vec<Kind>,
}

impl Vocabulary {
    /// Room for `n_tokens` tokens of `n_bytes` together. A piece is never longer than its spelling, so what fits now fits later.
    pub(crate) fn with_capacity(
        n_tokens: usize,
        n_bytes: usize,
    ) -> Result<Vocabulary, TokenizerError> {
        let indexable = |n: usize| u32::try_from(n).is_ok_and(|n| n < u32::MAX);
        if !indexable(n_tokens) || !indexable(n_bytes) {
            return Err(TokenizerError::TooLarge {
                n_strings: n_tokens,
                n_bytes,
            });
        }
        Ok(Vocabulary {
            pieces: Vec::with_capacity(n_bytes),
            ends: Vec::with_capacity(n_tokens),
            kinds: Vec::with_capacity(n_tokens),
        })
    }

    /// Appends a token whose piece `write` appends to the arena.
    pub(crate) fn push<R>(&mut self, kind: Kind, write: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        let answer = write(&mut self.pieces);
        self.ends
            .push(u32::try_from(self.pieces.len()).expect("with_capacity has checked the sum"));
        self.kinds.push(kind);
        answer
    }

    pub(crate) fn len(&self) -> u32 {
        u32::try_from(self.ends.len()).expect("with_capacity has checked the number")
    }

    /// The bytes that token `id` stands for.
    pub(crate) fn piece(&self, id: u32) -> Option<&[u8]> {
        let index = id as usize;
        let end = *self.ends.get(index)?;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(&self.pieces[start as usize..end as usize])
    }

    pub(crate) fn kind(&self, id: u32) -> Option<Kind> {
        self.kinds.get(id as usize).copied()
    }
}
