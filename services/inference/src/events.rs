//! From the engine's events to the protocol's.

use engine::{FinishReason, StopMatch, Timings, Token, TokenEvent, TokenLogprob, Usage};
use proto::inference::v1::{
    self as v1, Delta, Finished, GenerateResponse, Prefilled, Started, generate_response::Event,
};

use crate::models::{duration, proto_load};

/// What a `started` message says besides the engine's part.
#[derive(Clone, Debug)]
pub(crate) struct Opening {
    /// The caller's id, or the one made for it.
    pub(crate) request_id: String,
    /// The model that answers.
    pub(crate) model: String,
    /// The seed in use.
    pub(crate) seed: u64,
}

/// The message for `event`.
pub(crate) fn message(event: TokenEvent, opening: &Opening) -> GenerateResponse {
    let event = match event {
        TokenEvent::Started { prompt_tokens } => Event::Started(Started {
            request_id: opening.request_id.clone(),
            model: opening.model.clone(),
            seed: opening.seed,
            prompt_tokens,
        }),
        TokenEvent::Prefilled {
            cached_tokens,
            load,
            prompt_logprobs,
        } => Event::Prefilled(Prefilled {
            cached_tokens,
            load: Some(proto_load(&load)),
            prompt_logprobs: prompt_logprobs.into_iter().map(token_logprob).collect(),
        }),
        TokenEvent::Delta { text, tokens } => Event::Delta(Delta {
            text,
            tokens: tokens.into_iter().map(token).collect(),
        }),
        TokenEvent::Finished {
            reason,
            usage,
            timings,
        } => Event::Finished(finished(reason, usage, timings)),
    };
    GenerateResponse { event: Some(event) }
}

fn finished(reason: FinishReason, usage: Usage, timings: Timings) -> Finished {
    let (finish_reason, stop_match) = match reason {
        FinishReason::Stop(found) => (v1::FinishReason::Stop, Some(stop_match(found))),
        FinishReason::Length => (v1::FinishReason::Length, None),
        FinishReason::Cancelled => (v1::FinishReason::Cancelled, None),
    };
    Finished {
        finish_reason: finish_reason.into(),
        stop_match,
        usage: Some(v1::Usage {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            cached_tokens: usage.cached_tokens,
        }),
        timings: Some(v1::Timings {
            queue: Some(duration(timings.queue)),
            load_wait: Some(duration(timings.load_wait)),
            prefill: Some(duration(timings.prefill)),
            time_to_first_token: Some(duration(timings.time_to_first_token)),
            decode: Some(duration(timings.decode)),
            total: Some(duration(timings.total)),
        }),
        // Nothing hashes a model's bytes yet; the contract says: empty until every byte has been hashed.
        digest: String::new(),
    }
}

fn stop_match(found: StopMatch) -> v1::StopMatch {
    use v1::stop_match::Kind;
    let kind = match found {
        StopMatch::Text(stop) => Kind::Stop(stop),
        StopMatch::Token(id) => Kind::TokenId(id),
    };
    v1::StopMatch { kind: Some(kind) }
}

fn token(token: Token) -> v1::Token {
    v1::Token {
        id: token.id,
        text_bytes: token.bytes,
        logprob: token.logprob,
        top: top(token.top),
    }
}

fn token_logprob(token: TokenLogprob) -> v1::TokenLogprob {
    v1::TokenLogprob {
        id: token.id,
        logprob: token.logprob,
        top: top(token.top),
    }
}

fn top(tokens: Vec<(u32, f32)>) -> Vec<v1::TopToken> {
    let top_token = |(id, logprob)| v1::TopToken { id, logprob };
    tokens.into_iter().map(top_token).collect()
}

/// A finish reason as it is called in spans.
pub(crate) fn reason_name(reason: &FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop(_) => "stop",
        FinishReason::Length => "length",
        FinishReason::Cancelled => "cancelled",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use engine::LoadStats;

    use super::*;

    fn event(event: TokenEvent) -> Event {
        let opening = Opening {
            request_id: "r".to_owned(),
            model: "m".to_owned(),
            seed: 9,
        };
        message(event, &opening).event.unwrap()
    }

    #[test]
    fn started() {
        let Event::Started(started) = event(TokenEvent::Started { prompt_tokens: 3 }) else {
            panic!("another event");
        };
        assert_eq!(
            (started.request_id.as_str(), started.model.as_str()),
            ("r", "m")
        );
        assert_eq!((started.seed, started.prompt_tokens), (9, 3));
    }

    #[test]
    fn prefilled() {
        let load = LoadStats {
            cold_bytes: 1,
            warm_bytes: 2,
            hot_bytes: 3,
            unknown_bytes: 4,
            self_read_bytes: 0,
        };
        let scored = TokenLogprob {
            id: 5,
            logprob: None,
            top: vec![(6, -0.5)],
        };
        let Event::Prefilled(prefilled) = event(TokenEvent::Prefilled {
            cached_tokens: 2,
            load,
            prompt_logprobs: vec![scored],
        }) else {
            panic!("another event");
        };
        let load = prefilled.load.unwrap();
        assert_eq!(load.kind(), v1::LoadKind::Cold);
        assert_eq!(
            (
                load.cold_bytes,
                load.warm_bytes,
                load.hot_bytes,
                load.unknown_bytes
            ),
            (1, 2, 3, 4)
        );
        assert_eq!(prefilled.cached_tokens, 2);
        assert_eq!(prefilled.prompt_logprobs[0].logprob, None);
        assert_eq!(prefilled.prompt_logprobs[0].top[0].id, 6);
    }

    #[test]
    fn deltas() {
        let token = Token {
            id: 1,
            bytes: vec![0xff],
            logprob: Some(-1.5),
            top: vec![(1, -1.5), (2, -2.0)],
        };
        let Event::Delta(delta) = event(TokenEvent::Delta {
            text: "ä".to_owned(),
            tokens: vec![token],
        }) else {
            panic!("another event");
        };
        assert_eq!(delta.text, "ä");
        assert_eq!(delta.tokens[0].text_bytes, [0xff]);
        assert_eq!(delta.tokens[0].logprob, Some(-1.5));
        assert_eq!(delta.tokens[0].top.len(), 2);
    }

    #[test]
    fn endings() {
        use v1::{FinishReason as Reason, stop_match::Kind};
        let check = |reason: FinishReason, expected: Reason, kind: Option<Kind>| {
            let usage = Usage {
                prompt_tokens: 1,
                completion_tokens: 2,
                cached_tokens: 1,
            };
            let timings = Timings {
                queue: Duration::from_millis(1500),
                ..Timings::default()
            };
            let Event::Finished(finished) = event(TokenEvent::Finished {
                reason,
                usage,
                timings,
            }) else {
                panic!("another event");
            };
            assert_eq!(finished.finish_reason(), expected);
            assert_eq!(finished.stop_match.and_then(|found| found.kind), kind);
            let queue = finished.timings.unwrap().queue.unwrap();
            assert_eq!((queue.seconds, queue.nanos), (1, 500_000_000));
            assert_eq!(finished.usage.unwrap().completion_tokens, 2);
        };
        check(FinishReason::Length, Reason::Length, None);
        check(FinishReason::Cancelled, Reason::Cancelled, None);
        let text = StopMatch::Text("\n".to_owned());
        check(
            FinishReason::Stop(text),
            Reason::Stop,
            Some(Kind::Stop("\n".to_owned())),
        );
        check(
            FinishReason::Stop(StopMatch::Token(2)),
            Reason::Stop,
            Some(Kind::TokenId(2)),
        );
    }
}
