use std::fmt;
use std::sync::Arc;

use crate::Tokenizer;

/// Makes text of the tokens of one sequence as they come.
///
/// Tokens end within characters. Bytes of a character that is not complete yet are held back; bytes that can never become one show as U+FFFD, as in [`String::from_utf8_lossy`]. Control tokens stand for nothing.
pub struct Detokenizer {
    tokenizer: Arc<Tokenizer>,
    partial: Utf8Stream,
}

/// Bytes in, text out.
#[derive(Debug, Default)]
struct Utf8Stream {
    /// The beginning of a character, at most three bytes.
    held: Vec<u8>,
}

impl Detokenizer {
    /// For a sequence that continues a text, such as a prompt: a space that the first token begins with is kept.
    pub fn new(tokenizer: Arc<Tokenizer>) -> Detokenizer {
        Detokenizer {
            tokenizer,
            partial: Utf8Stream::default(),
        }
    }

    /// The text that token `id` completes. Ids out of range stand for nothing.
    pub fn push(&mut self, id: u32) -> String {
        self.partial
            .push(self.tokenizer.token_bytes(id).unwrap_or_default())
    }

    /// The rest: U+FFFD if a character was left incomplete. Nothing is held back afterwards.
    pub fn finish(&mut self) -> String {
        self.partial.finish()
    }
}

impl fmt::Debug for Detokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Detokenizer")
            .field("partial", &self.partial)
            .finish_non_exhaustive()
    }
}

impl Utf8Stream {
    fn push(&mut self, bytes: &[u8]) -> String {
        self.held.extend_from_slice(bytes);
        let mut text = String::with_capacity(self.held.len());
        let mut rest = &self.held[..];
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    rest = after;
                    // Without a length the error is that the bytes end too early.
                    let Some(invalid_len) = error.error_len() else {
                        break;
                    };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &rest[invalid_len..];
                }
            }
        }
        let done = self.held.len() - rest.len();
        self.held.drain(..done);
        text
    }

    fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.held)).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing;

    #[test]
    fn characters_come_out_whole() {
        let tokenizer = Arc::new(testing::byte_tokenizer());
        let mut detokenizer = Detokenizer::new(Arc::clone(&tokenizer));
        let pushed: Vec<String> = "aé日"
            .bytes()
            .map(|byte| detokenizer.push(u32::from(byte)))
            .collect();
        assert_eq!(pushed, ["a", "", "é", "", "", "日"]);
        assert_eq!(detokenizer.push(tokenizer.n_vocab()), "");
        assert_eq!(detokenizer.push(0xe6), "");
        assert_eq!(detokenizer.finish(), "\u{fffd}");
        assert_eq!(detokenizer.finish(), "");
    }

    proptest! {
        #[test]
        fn text_is_that_of_all_bytes(chunks in prop::collection::vec(testing::nearly_utf8(), 0..12)) {
            let mut stream = Utf8Stream::default();
            let mut text = String::new();
            for chunk in &chunks {
                text.push_str(&stream.push(chunk));
                prop_assert!(stream.held.len() < 4);
            }
            text.push_str(&stream.finish());
            let all = chunks.concat();
            prop_assert_eq!(text, String::from_utf8_lossy(&all));
        }
    }
}
