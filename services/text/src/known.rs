//! Tokens known by their spelling.
//!
//! Files name their end-of-sequence token, but chat models end a turn with another one, and many files mark such tokens as ordinary text. The names below are those that published models use; the same
//! list decides in llama.cpp, so files are made with it in mind.

/// What a known spelling means. Either way the token is a control token, whatever the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// Nothing more is to be generated after it.
    End,
    /// Structure of a prompt, such as the marks of fill-in-the-middle.
    Mark,
}

use Known::{End, Mark};

/// Sorted by bytes.
const SPELLINGS: [(&str, Known); 57] = [
    ("</s>", End),
    ("<EOT>", End),
    ("<MID>", Mark),
    ("<PAD>", End),
    ("<PRE>", Mark),
    ("<REPO>", End),
    ("<SUF>", Mark),
    ("<end_of_turn>", End),
    ("<end_of_utterance>", End),
    ("<eos>", End),
    ("<fim-middle>", Mark),
    ("<fim-pad>", End),
    ("<fim-prefix>", Mark),
    ("<fim-repo>", End),
    ("<fim-suffix>", Mark),
    ("<fim_middle>", Mark),
    ("<fim_pad>", End),
    ("<fim_prefix>", Mark),
    ("<fim_suffix>", Mark),
    ("<reponame>", End),
    ("<turn|>", End),
    ("<|calls|>", End),
    ("<|call|>", End),
    ("<|code_middle|>", Mark),
    ("<|code_prefix|>", Mark),
    ("<|code_suffix|>", Mark),
    ("<|end_of_text|>", End),
    ("<|endoftext|>", End),
    ("<|end|>", End),
    ("<|eom_id|>", End),
    ("<|eot_id|>", End),
    ("<|file_sep|>", End),
    ("<|fim_middle|>", Mark),
    ("<|fim_pad|>", End),
    ("<|fim_prefix|>", Mark),
    ("<|fim_repo|>", End),
    ("<|fim_suffix|>", Mark),
    ("<|flush|>", End),
    ("<|im_end|>", End),
    ("<|middle|>", Mark),
    ("<|prefix|>", Mark),
    ("<|repo_name|>", End),
    ("<|return|>", End),
    ("<|suffix|>", Mark),
    ("<|tool_response>", End),
    ("<｜end▁of▁sentence｜>", End),
    ("<｜fim▁begin｜>", Mark),
    ("<｜fim▁end｜>", Mark),
    ("<｜fim▁hole｜>", Mark),
    ("[EOS]", End),
    ("[EOT]", End),
    ("[PAD]", End),
    ("[e~[", End),
    ("_<EOT>", End),
    ("▁<MID>", Mark),
    ("▁<PRE>", Mark),
    ("▁<SUF>", Mark),
];

/// Names that end a generation only in vocabularies without all of certain others, which then have that office.
const OVERRULED: [(&str, &[&str]); 4] = [
    ("<|end|>", &["<|return|>", "<|call|>"]),
    ("<|end|>", &["<|return|>", "<|calls|>"]),
    ("<|end|>", &["<|flush|>", "<|calls|>"]),
    ("</s>", &["<|tool_response>"]),
];

/// What the spelling means, if it is known.
pub(crate) fn known(spelled: &[u8]) -> Option<Known> {
    // Tells apart nearly every ordinary token at its first byte: there are a hundred thousand of them.
    if !matches!(spelled.first(), Some(b'<' | b'[' | b'_' | 0xe2)) {
        return None;
    }
    SPELLINGS
        .binary_search_by(|(candidate, _)| candidate.as_bytes().cmp(spelled))
        .ok()
        .map(|index| SPELLINGS[index].1)
}

/// Whether the end token `spelled` has another meaning in a vocabulary that holds the end tokens `present`.
pub(crate) fn is_overruled(spelled: &[u8], present: &[&[u8]]) -> bool {
    OVERRULED.iter().any(|(name, others)| {
        name.as_bytes() == spelled
            && others
                .iter()
                .all(|other| present.contains(&other.as_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_are_sorted_and_found() {
        assert!(SPELLINGS.is_sorted_by(|a, b| a.0.as_bytes() < b.0.as_bytes()));
        for (spelling, meaning) in SPELLINGS {
            assert_eq!(known(spelling.as_bytes()), Some(meaning), "{spelling}");
        }
        for stranger in ["", "<", "<|eot_id|", "the", "<s>"] {
            assert_eq!(known(stranger.as_bytes()), None, "{stranger}");
        }
    }

    #[test]
    fn the_end_of_a_channel_is_not_the_end_of_a_turn() {
        let check = |spelled: &str, present: &[&str], expected: bool| {
            let present: Vec<&[u8]> = present.iter().map(|name| name.as_bytes()).collect();
            assert_eq!(
                is_overruled(spelled.as_bytes(), &present),
                expected,
                "{spelled}"
            );
        };
        check("<|end|>", &["<|end|>", "<|return|>", "<|call|>"], true);
        check("<|end|>", &["<|end|>", "<|flush|>", "<|calls|>"], true);
        check("<|end|>", &["<|end|>", "<|endoftext|>"], false);
        check("</s>", &["<|tool_response>"], true);
        check("<|return|>", &["<|return|>", "<|call|>"], false);
    }
}
