use std::sync::Arc;

use text::{Detokenizer, StopMatcher, Tokenizer};

use crate::{FinishReason, StopMatch, Stopping, Token, TokenEvent};

/// From token ids to the text that may leave, and the decision that enough has been said.
#[derive(Debug)]
pub(super) struct Output {
    tokenizer: Arc<Tokenizer>,
    detokenizer: Detokenizer,
    matcher: StopMatcher,
    stopping: Stopping,
    n_prompt: usize,
    n_tokens: usize,
    context_length: usize,
}

impl Output {
    pub(super) fn new(
        stopping: Stopping,
        tokenizer: Arc<Tokenizer>,
        n_prompt: usize,
        context_length: usize,
    ) -> Output {
        Output {
            detokenizer: Detokenizer::new(Arc::clone(&tokenizer)),
            matcher: StopMatcher::new(stopping.stop.clone()),
            tokenizer,
            stopping,
            n_prompt,
            n_tokens: 0,
            context_length,
        }
    }

    /// Tokens made so far.
    pub(super) fn n_tokens(&self) -> usize {
        self.n_tokens
    }

    /// Whether no further token may be made for a sequence that has `n_total` with its prompt.
    pub(super) fn is_full(&self, n_total: usize) -> bool {
        let max_tokens = self.stopping.max_tokens;
        max_tokens.is_some_and(|max| self.n_tokens >= max as usize)
            || n_total >= self.context_length
    }

    /// Takes a token in. Answers the event that reports it and why the completion is over, if it is; then all text has left.
    pub(super) fn push(
        &mut self,
        id: u32,
        scores: Option<(f32, Vec<(u32, f32)>)>,
        n_total: usize,
    ) -> (TokenEvent, Option<FinishReason>) {
        debug_assert_eq!(
            n_total,
            self.n_prompt + self.n_tokens + 1,
            "one token at a time"
        );
        let may_stop = self.n_tokens >= self.stopping.min_tokens as usize;
        self.n_tokens += 1;
        let (mut text, mut finish) = if may_stop && self.ends(id) {
            (
                String::new(),
                Some(FinishReason::Stop(StopMatch::Token(id))),
            )
        } else {
            let piece = self.detokenizer.push(id);
            // What is said before a stop is allowed can be no part of one.
            if may_stop {
                self.match_stops(&piece)
            } else {
                (piece, None)
            }
        };
        if finish.is_none() && self.is_full(n_total) {
            finish = Some(FinishReason::Length);
        }
        if !matches!(finish, None | Some(FinishReason::Stop(StopMatch::Text(_)))) {
            text += &self.flush(&mut finish);
        }
        let (logprob, top) = scores.unzip();
        let token = Token {
            id,
            bytes: self.tokenizer.token_bytes(id).unwrap_or_default().to_vec(),
            logprob,
            top: top.unwrap_or_default(),
        };
        let tokens = vec![token];
        (TokenEvent::Delta { text, tokens }, finish)
    }

    /// Whether the token itself ends the completion.
    fn ends(&self, id: u32) -> bool {
        let model_ends = !self.stopping.ignore_eos && self.tokenizer.is_end_of_generation(id);
        model_ends || self.stopping.stop_token_ids.contains(&id)
    }

    fn match_stops(&mut self, piece: &str) -> (String, Option<FinishReason>) {
        let step = self.matcher.push(piece);
        let stop = step.matched.map(|index| self.stopping.stop[index].clone());
        (
            step.emit,
            stop.map(|stop| FinishReason::Stop(StopMatch::Text(stop))),
        )
    }

    /// What was held back. A stop string that only shows now still counts.
    fn flush(&mut self, finish: &mut Option<FinishReason>) -> String {
        let piece = self.detokenizer.finish();
        let (text, stopped) = self.match_stops(&piece);
        if stopped.is_some() {
            *finish = stopped;
            return text;
        }
        text + &self.matcher.finish()
    }
}

#[cfg(test)]
mod tests {
    use gguf::{Metadata, StringArray, Value};

    use super::*;

    const EOS: u32 = 2;

    /// The token for one byte.
    fn byte(byte: u8) -> u32 {
        3 + u32::from(byte)
    }

    fn tokenizer() -> Arc<Tokenizer> {
        let special = ["<unk>", "<s>", "</s>"].map(str::to_owned);
        let bytes = (0..256).map(|byte| format!("<0x{byte:02X}>"));
        let tokens: StringArray = special
            .into_iter()
            .chain(bytes)
            .map(String::into_bytes)
            .collect();
        let types: Vec<i32> = [2, 3, 3].into_iter().chain([6; 256]).collect();
        let metadata: Metadata = [
            ("tokenizer.ggml.model", Value::from("llama")),
            ("tokenizer.ggml.tokens", tokens.into()),
            ("tokenizer.ggml.scores", vec![0f32; 259].into()),
            ("tokenizer.ggml.token_type", types.into()),
            ("tokenizer.ggml.eos_token_id", EOS.into()),
        ]
        .into_iter()
        .collect();
        Arc::new(Tokenizer::from_metadata(&metadata).expect("a sound vocabulary"))
    }

    /// Says `tokens` after a prompt of one, until the completion is over. Answers the text of each delta and why it ended.
    fn say(
        stopping: Stopping,
        context_length: usize,
        tokens: &[u32],
    ) -> (Vec<String>, Option<FinishReason>) {
        let mut output = Output::new(stopping, tokenizer(), 1, context_length);
        let mut texts = Vec::new();
        for (n_before, &id) in tokens.iter().enumerate() {
            let (event, finish) = output.push(id, None, n_before + 2);
            match event {
                TokenEvent::Delta { text, tokens } => {
                    assert_eq!(
                        tokens.iter().map(|token| token.id).collect::<Vec<_>>(),
                        [id],
                        "each token is reported once"
                    );
                    texts.push(text);
                }
                other => panic!("{other:?}"),
            }
            if finish.is_some() {
                return (texts, finish);
            }
        }
        (texts, None)
    }

    fn bytes(text: &str) -> Vec<u32> {
        text.bytes().map(byte).collect()
    }

    #[test]
    fn the_models_own_end_ends_unless_it_is_ignored() {
        let tokens = [byte(b'a'), EOS, byte(b'b')];
        let (texts, finish) = say(Stopping::default(), 100, &tokens);
        assert_eq!(
            (texts.concat().as_str(), finish),
            ("a", Some(FinishReason::Stop(StopMatch::Token(EOS))))
        );
        let ignoring = Stopping {
            ignore_eos: true,
            ..Stopping::default()
        };
        assert_eq!(
            say(ignoring, 100, &tokens),
            (vec!["a".to_owned(), String::new(), "b".to_owned()], None)
        );
    }

    #[test]
    fn what_was_held_back_leaves_at_the_end() {
        let stopping = Stopping {
            max_tokens: Some(3),
            stop: vec!["bcd".to_owned()],
            ..Stopping::default()
        };
        let (texts, finish) = say(stopping.clone(), 100, &bytes("abc"));
        assert_eq!(
            (texts, finish),
            (
                vec!["a".to_owned(), String::new(), "bc".to_owned()],
                Some(FinishReason::Length)
            )
        );
        // By the model's own end, and by a full context, all the same.
        let (texts, _) = say(stopping.clone(), 100, &[byte(b'a'), byte(b'b'), EOS]);
        assert_eq!(texts.concat(), "ab");
        let (texts, finish) = say(stopping, 3, &bytes("ab"));
        assert_eq!(
            (texts.concat().as_str(), finish),
            ("ab", Some(FinishReason::Length))
        );
    }

    #[test]
    fn a_stop_string_is_no_part_of_the_text() {
        let stopping = Stopping {
            max_tokens: Some(4),
            stop: vec!["x".to_owned(), "bcd".to_owned()],
            ..Stopping::default()
        };
        let (texts, finish) = say(stopping, 100, &bytes("abcdef"));
        let stopped = FinishReason::Stop(StopMatch::Text("bcd".to_owned()));
        assert_eq!(
            (texts.concat().as_str(), finish),
            ("a", Some(stopped)),
            "it counts although the last token was the last allowed"
        );
    }

    #[test]
    fn half_a_character_is_held_back_and_replaced_at_the_end() {
        let limited = |max_tokens| Stopping {
            max_tokens: Some(max_tokens),
            ..Stopping::default()
        };
        let (texts, _) = say(limited(3), 100, &bytes("é!"));
        assert_eq!(texts, ["", "é", "!"]);
        let (texts, _) = say(limited(1), 100, &bytes("é"));
        assert_eq!(texts, ["\u{fffd}"]);
    }

    #[test]
    fn nothing_is_said_where_nothing_may_be() {
        let none = Stopping {
            max_tokens: Some(0),
            ..Stopping::default()
        };
        assert!(Output::new(none, tokenizer(), 5, 100).is_full(5));
        assert!(Output::new(Stopping::default(), tokenizer(), 100, 100).is_full(100));
        assert!(!Output::new(Stopping::default(), tokenizer(), 99, 100).is_full(99));
    }
}
