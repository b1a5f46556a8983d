//! What a person or a pipe sees of a completion.

use std::{io, time::Duration};

use proto::inference::v1::{Finished, Load, Prefilled, Token, TopToken, generate_response::Event};

use crate::{
    generate::event,
    output::{self, Stream, Style},
    table::{Column, Table},
    units,
};

/// Shows events on standard output as they come.
pub(crate) struct View {
    stdout: Stream,
    json: bool,
    scores: Option<Scores>,
    measured: Measured,
    line_open: bool,
}

impl View {
    /// A view of text, or of JSON lines; `with_scores` adds a table of log-probabilities at the end of the text.
    pub(crate) fn new(json: bool, with_scores: bool) -> View {
        View {
            stdout: output::stdout(),
            json,
            scores: (with_scores && !json).then(Scores::default),
            measured: Measured::default(),
            line_open: false,
        }
    }

    /// Shows one event that came `elapsed` after the request left.
    pub(crate) fn show(&mut self, event: &Event, elapsed: Duration) -> io::Result<()> {
        self.measured.see(event, elapsed);
        if let Some(scores) = &mut self.scores {
            scores.see(event);
        }
        if self.json {
            return self.stdout.json(&event::Line::from(event));
        }
        if let Event::Delta(delta) = event
            && !delta.text.is_empty()
        {
            self.line_open = !delta.text.ends_with('\n');
            self.stdout.foreign(&delta.text)?;
        }
        Ok(())
    }

    /// What was measured so far.
    pub(crate) fn measured(&self) -> &Measured {
        &self.measured
    }

    /// Ends the line that the text left open, where a person looks; a pipe gets exactly the text.
    pub(crate) fn break_line(&mut self) -> io::Result<()> {
        if self.line_open && !self.json && self.stdout.is_terminal {
            self.line_open = false;
            self.stdout.line("")?;
        }
        Ok(())
    }

    /// The same, for pipes too: what comes next is another text.
    pub(crate) fn end_line(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.line_open) {
            self.stdout.line("")?;
        }
        Ok(())
    }

    /// Whether the last event has been seen.
    pub(crate) fn is_finished(&self) -> bool {
        self.measured.finished.is_some()
    }

    /// Shows the table of log-probabilities, if there is to be one.
    pub(crate) fn show_scores(&mut self) -> io::Result<()> {
        if let Some(scores) = self.scores.take() {
            if self.line_open {
                self.stdout.line("")?;
            }
            for line in scores.lines(self.stdout.style) {
                self.stdout.line(line)?;
            }
        }
        Ok(())
    }
}

/// What a completion took, as its stream told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    /// From asking to the first token, as seen by this process.
    pub(crate) first_token: Option<Duration>,
    /// Where the weights came from.
    pub(crate) load: Option<Load>,
    /// All text.
    pub(crate) text: String,
    /// The last event.
    pub(crate) finished: Option<Finished>,
}

impl Measured {
    /// Takes note of one event that came `elapsed` after the request left.
    pub(crate) fn see(&mut self, event: &Event, elapsed: Duration) {
        match event {
            Event::Started(_) => {}
            Event::Prefilled(prefilled) => self.load = prefilled.load,
            Event::Delta(delta) => {
                self.text.push_str(&delta.text);
                self.first_token.get_or_insert(elapsed);
            }
            Event::Finished(finished) => self.finished = Some(finished.clone()),
        }
    }

    /// Output tokens.
    pub(crate) fn tokens(&self) -> u32 {
        let usage = self
            .finished
            .as_ref()
            .and_then(|finished| finished.usage.as_ref());
        usage.map_or(0, |usage| usage.completion_tokens)
    }

    /// Decoding speed: the first token belongs to the prefill.
    pub(crate) fn tokens_per_second(&self) -> Option<f64> {
        let timings = self.finished.as_ref()?.timings.as_ref()?;
        units::per_second(
            self.tokens().saturating_sub(1),
            units::from_proto(timings.decode)?,
        )
    }

    /// `24 tokens, 151.3 tok/s, first token after 12.3 ms, weights cold (5.2 MiB from storage), ended by length`.
    pub(crate) fn summary(&self) -> String {
        let tokens = self.tokens();
        let mut parts = vec![format!(
            "{tokens} {}",
            if tokens == 1 { "token" } else { "tokens" }
        )];
        parts.extend(
            self.tokens_per_second()
                .map(|rate| format!("{rate:.1} tok/s")),
        );
        parts.extend(
            self.first_token
                .map(|time| format!("first token after {}", units::duration(time))),
        );
        parts.extend(self.load.as_ref().map(load_words));
        parts.extend(
            self.finished
                .as_ref()
                .map(|finished| format!("ended by {}", event::reason(finished.finish_reason()))),
        );
        parts.join(", ")
    }
}

/// `weights cold (5.2 MiB from storage, 1.0 MiB from the page cache)`.
fn load_words(load: &Load) -> String {
    let amounts = [
        (load.cold_bytes, "from storage"),
        (load.warm_bytes, "from the page cache"),
        (load.unknown_bytes, "from somewhere that does not say"),
    ];
    let moved: Vec<String> = amounts
        .iter()
        .filter(|(amount, _)| *amount > 0)
        .map(|(amount, place)| format!("{} {place}", units::bytes(*amount)))
        .collect();
    let kind = event::kind(load.kind());
    if moved.is_empty() {
        format!("weights {kind}")
    } else {
        format!("weights {kind} ({})", moved.join(", "))
    }
}

/// Log-probabilities, kept until the text is over.
#[derive(Debug, Default)]
struct Scores {
    rows: Vec<[String; 5]>,
}

impl Scores {
    fn see(&mut self, event: &Event) {
        match event {
            Event::Prefilled(Prefilled {
                prompt_logprobs, ..
            }) => {
                for token in prompt_logprobs {
                    self.add("prompt", token.id, "", token.logprob, &token.top);
                }
            }
            Event::Delta(delta) => {
                for Token {
                    id,
                    text_bytes,
                    logprob,
                    top,
                } in &delta.tokens
                {
                    self.add(
                        "output",
                        *id,
                        &format!("{:?}", String::from_utf8_lossy(text_bytes)),
                        *logprob,
                        top,
                    );
                }
            }
            Event::Started(_) | Event::Finished(_) => {}
        }
    }

    fn add(&mut self, part: &str, id: u32, text: &str, logprob: Option<f32>, top: &[TopToken]) {
        let top: Vec<String> = top
            .iter()
            .map(|token| format!("{}:{:.3}", token.id, token.logprob))
            .collect();
        self.rows.push([
            part.to_owned(),
            id.to_string(),
            logprob.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}")),
            text.to_owned(),
            top.join(" "),
        ]);
    }

    fn lines(self, style: Style) -> Vec<String> {
        let mut table = Table::new([
            Column::Left("PART"),
            Column::Right("ID"),
            Column::Right("LOGPROB"),
            Column::Left("TEXT"),
            Column::Left("MOST LIKELY"),
        ]);
        for row in self.rows {
            table.row(row);
        }
        table.lines(style)
    }
}

#[cfg(test)]
mod tests {
    use proto::inference::v1::{Delta, FinishReason, LoadKind, Timings, TokenLogprob, Usage};

    use super::*;

    fn sample() -> [Event; 3] {
        [
            Event::Prefilled(Prefilled {
                load: Some(Load {
                    kind: LoadKind::Cold.into(),
                    cold_bytes: 5 << 20,
                    warm_bytes: 1 << 20,
                    ..Load::default()
                }),
                prompt_logprobs: vec![TokenLogprob {
                    id: 1,
                    ..TokenLogprob::default()
                }],
                ..Prefilled::default()
            }),
            Event::Delta(Delta {
                text: "hi".into(),
                tokens: vec![Token {
                    id: 9,
                    text_bytes: b"hi\x1b".to_vec(),
                    logprob: Some(-0.5),
                    top: vec![TopToken {
                        id: 9,
                        logprob: -0.5,
                    }],
                }],
            }),
            Event::Finished(Finished {
                finish_reason: FinishReason::Length.into(),
                usage: Some(Usage {
                    completion_tokens: 11,
                    ..Usage::default()
                }),
                timings: Some(Timings {
                    decode: Some(prost_types::Duration {
                        seconds: 2,
                        nanos: 0,
                    }),
                    ..Timings::default()
                }),
                ..Finished::default()
            }),
        ]
    }

    #[test]
    fn a_summary_tells_amount_speed_wait_and_load() {
        let mut measured = Measured::default();
        for (index, event) in sample().iter().enumerate() {
            measured.see(event, Duration::from_millis(10 * index as u64));
        }
        assert_eq!(
            measured.summary(),
            "11 tokens, 5.0 tok/s, first token after 10.0 ms, weights cold (5.0 MiB from storage, 1.0 MiB from the page cache), ended by length"
        );
        assert_eq!(measured.text, "hi");
    }

    #[test]
    fn scores_line_up_and_show_no_control_characters() {
        let mut scores = Scores::default();
        for event in &sample() {
            scores.see(event);
        }
        assert_eq!(
            scores.lines(Style::PLAIN),
            [
                "PART    ID  LOGPROB  TEXT        MOST LIKELY",
                "prompt   1        -",
                r#"output   9  -0.5000  "hi\u{1b}"  9:-0.500"#,
            ]
        );
    }

    #[test]
    fn nothing_measured_is_still_a_sentence() {
        assert_eq!(Measured::default().summary(), "0 tokens");
    }
}
