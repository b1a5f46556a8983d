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
        self.n_tokens += 1;
        let (mut text, mut finish) = if self.ends(id) {
            (
                String::new(),
                Some(FinishReason::Stop(StopMatch::Token(id))),
            )
        } else {
            let piece = self.detokenizer.push(id);
            self.match_stops(&piece)
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
