//! Events as lines of JSON.
//!
//! Field names are those of the contract; durations are milliseconds, enums their short lower-case names, token bytes a list of numbers.

use std::time::Duration;

use proto::inference::v1::{
    self as v1, FinishReason, LoadKind, generate_response::Event, stop_match,
};
use serde::Serialize;

use crate::units;

/// One event.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Line<'a> {
    Started {
        request_id: &'a str,
        model: &'a str,
        seed: u64,
        prompt_tokens: u32,
    },
    Prefilled {
        cached_tokens: u32,
        load: Option<Load>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        prompt_logprobs: Vec<Scored<'a>>,
    },
    Delta {
        text: &'a str,
        tokens: Vec<Scored<'a>>,
    },
    Finished {
        finish_reason: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        stop_match: Option<Stop<'a>>,
        usage: Option<Usage>,
        timings_ms: Option<Timings>,
        digest: &'a str,
    },
}

/// A token and how likely it was.
#[derive(Debug, Serialize)]
pub(crate) struct Scored<'a> {
    id: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<&'a [u8]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprob: Option<f32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    top: Vec<Top>,
}

/// A likely token.
#[derive(Debug, Serialize)]
pub(crate) struct Top {
    id: u32,
    logprob: f32,
}

/// Where the weights came from.
#[derive(Debug, Serialize)]
pub(crate) struct Load {
    kind: &'static str,
    cold_bytes: u64,
    warm_bytes: u64,
    hot_bytes: u64,
    unknown_bytes: u64,
}

/// What stopped the completion.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stop<'a> {
    Stop(&'a str),
    TokenId(u32),
}

/// Token counts.
#[derive(Debug, Serialize)]
pub(crate) struct Usage {
    prompt_tokens: u32,
    completion_tokens: u32,
    cached_tokens: u32,
}

/// Parts of the time, in milliseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Timings {
    queue: f64,
    load_wait: f64,
    prefill: f64,
    time_to_first_token: f64,
    decode: f64,
    total: f64,
}

impl<'a> From<&'a Event> for Line<'a> {
    fn from(event: &'a Event) -> Line<'a> {
        match event {
            Event::Started(started) => Line::Started {
                request_id: &started.request_id,
                model: &started.model,
                seed: started.seed,
                prompt_tokens: started.prompt_tokens,
            },
            Event::Prefilled(prefilled) => Line::Prefilled {
                cached_tokens: prefilled.cached_tokens,
                load: prefilled.load.as_ref().map(Load::from),
                prompt_logprobs: prefilled.prompt_logprobs.iter().map(Scored::from).collect(),
            },
            Event::Delta(delta) => Line::Delta {
                text: &delta.text,
                tokens: delta.tokens.iter().map(Scored::from).collect(),
            },
            Event::Finished(finished) => Line::Finished {
                finish_reason: reason(finished.finish_reason()),
                stop_match: finished.stop_match.as_ref().and_then(stop),
                usage: finished.usage.as_ref().map(Usage::from),
                timings_ms: finished.timings.as_ref().map(Timings::from),
                digest: &finished.digest,
            },
        }
    }
}

impl<'a> From<&'a v1::Token> for Scored<'a> {
    fn from(token: &'a v1::Token) -> Scored<'a> {
        Scored {
            id: token.id,
            bytes: Some(&token.text_bytes),
            logprob: token.logprob,
            top: top(&token.top),
        }
    }
}

impl From<&v1::TokenLogprob> for Scored<'_> {
    fn from(token: &v1::TokenLogprob) -> Self {
        Scored {
            id: token.id,
            bytes: None,
            logprob: token.logprob,
            top: top(&token.top),
        }
    }
}

impl From<&v1::Load> for Load {
    fn from(load: &v1::Load) -> Load {
        Load {
            kind: kind(load.kind()),
            cold_bytes: load.cold_bytes,
            warm_bytes: load.warm_bytes,
            hot_bytes: load.hot_bytes,
            unknown_bytes: load.unknown_bytes,
        }
    }
}

impl From<&v1::Usage> for Usage {
    fn from(usage: &v1::Usage) -> Usage {
        Usage {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            cached_tokens: usage.cached_tokens,
        }
    }
}

impl From<&v1::Timings> for Timings {
    fn from(timings: &v1::Timings) -> Timings {
        Timings {
            queue: milliseconds(timings.queue),
            load_wait: milliseconds(timings.load_wait),
            prefill: milliseconds(timings.prefill),
            time_to_first_token: milliseconds(timings.time_to_first_token),
            decode: milliseconds(timings.decode),
            total: milliseconds(timings.total),
        }
    }
}

fn top(tokens: &[v1::TopToken]) -> Vec<Top> {
    tokens
        .iter()
        .map(|token| Top {
            id: token.id,
            logprob: token.logprob,
        })
        .collect()
}

fn stop(matched: &v1::StopMatch) -> Option<Stop<'_>> {
    Some(match matched.kind.as_ref()? {
        stop_match::Kind::Stop(text) => Stop::Stop(text),
        stop_match::Kind::TokenId(id) => Stop::TokenId(*id),
    })
}

fn milliseconds(time: Option<prost_types::Duration>) -> f64 {
    units::from_proto(time)
        .unwrap_or(Duration::ZERO)
        .as_secs_f64()
        * 1e3
}

/// `stop`, `length` or `cancelled`.
pub(crate) fn reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Unspecified => "unspecified",
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::Cancelled => "cancelled",
    }
}

/// `cold`, `warm` or `hot`.
pub(crate) fn kind(kind: LoadKind) -> &'static str {
    match kind {
        LoadKind::Unspecified => "unmeasured",
        LoadKind::Cold => "cold",
        LoadKind::Warm => "warm",
        LoadKind::Hot => "hot",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(event: Event, expected: &str) {
        assert_eq!(
            serde_json::to_string(&Line::from(&event)).expect("plain data"),
            expected
        );
    }

    #[test]
    fn deltas_hold_exact_bytes_and_short_floats() {
        check(
            Event::Delta(v1::Delta {
                text: "é\n".into(),
                tokens: vec![v1::Token {
                    id: 7,
                    text_bytes: vec![0xc3],
                    logprob: Some(-0.1),
                    top: vec![v1::TopToken {
                        id: 7,
                        logprob: f32::NEG_INFINITY,
                    }],
                }],
            }),
            r#"{"event":"delta","text":"é\n","tokens":[{"id":7,"bytes":[195],"logprob":-0.1,"top":[{"id":7,"logprob":null}]}]}"#,
        );
    }

    #[test]
    fn the_first_prompt_token_has_no_score() {
        check(
            Event::Prefilled(v1::Prefilled {
                cached_tokens: 1,
                load: Some(v1::Load {
                    kind: LoadKind::Cold.into(),
                    cold_bytes: 5,
                    ..v1::Load::default()
                }),
                prompt_logprobs: vec![v1::TokenLogprob {
                    id: 3,
                    ..v1::TokenLogprob::default()
                }],
            }),
            r#"{"event":"prefilled","cached_tokens":1,"load":{"kind":"cold","cold_bytes":5,"warm_bytes":0,"hot_bytes":0,"unknown_bytes":0},"prompt_logprobs":[{"id":3}]}"#,
        );
    }

    #[test]
    fn the_end_says_what_stopped_it() {
        check(
            Event::Finished(v1::Finished {
                finish_reason: FinishReason::Stop.into(),
                stop_match: Some(v1::StopMatch {
                    kind: Some(stop_match::Kind::TokenId(2)),
                }),
                usage: None,
                timings: Some(v1::Timings {
                    total: Some(prost_types::Duration {
                        seconds: 1,
                        nanos: 500_000_000,
                    }),
                    ..v1::Timings::default()
                }),
                digest: String::new(),
            }),
            r#"{"event":"finished","finish_reason":"stop","stop_match":{"token_id":2},"usage":null,"timings_ms":{"queue":0.0,"load_wait":0.0,"prefill":0.0,"time_to_first_token":0.0,"decode":0.0,"total":1500.0},"digest":""}"#,
        );
    }
}
