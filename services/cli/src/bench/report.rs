//! What the runs come to: medians and how far they spread.

use std::time::Duration;

use proto::inference::v1::{DeviceInfo, LoadKind, Model};
use serde::Serialize;

use super::measure::{Run, coldest};
use crate::{
    generate::kind_name,
    models::device_name,
    output::{Style, one_line},
    table::{Column, Table},
    units,
};

/// The middle of several measurements, and the least and the greatest of them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    /// None, if nothing was measured.
    pub(super) fn of(values: impl Iterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let half = values.len() / 2;
        let median = match values.len() % 2 {
            0 => f64::midpoint(values[half - 1], values[half]),
            _ => values[half],
        };
        Some(Spread { median, min, max })
    }

    /// `151.3 (149.0..152.8)`.
    fn words(spread: Option<Spread>) -> String {
        let Some(Spread { median, min, max }) = spread else {
            return "-".to_owned();
        };
        format!("{median:.1} ({min:.1}..{max:.1})")
    }
}

/// All runs with one number of streams.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    streams: u32,
    prefill_tokens_per_second: Option<Spread>,
    first_token_ms: Option<Spread>,
    decode_tokens_per_second: Option<Spread>,
    total_tokens_per_second: Option<Spread>,
    weights: &'static str,
}

impl Row {
    pub(super) fn new(streams: u32, runs: &[Run]) -> Row {
        let samples = || runs.iter().flat_map(|run| &run.samples);
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        Row {
            streams,
            prefill_tokens_per_second: Spread::of(samples().filter_map(|sample| sample.prefill)),
            first_token_ms: Spread::of(samples().map(|sample| milliseconds(sample.first_token))),
            decode_tokens_per_second: Spread::of(samples().filter_map(|sample| sample.decode)),
            total_tokens_per_second: Spread::of(runs.iter().filter_map(Run::total)),
            weights: kind_name(coldest(samples().map(|sample| &sample.load))),
        }
    }
}

/// Everything that is told at the end.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    model: String,
    architecture: String,
    tensor_bytes: u64,
    device: String,
    prompt_tokens: u32,
    max_tokens: u32,
    repeats: u32,
    warm_up: WarmUp,
    runs: Vec<Row>,
}

/// What the first request found, which is not counted.
#[derive(Debug, Serialize)]
pub(super) struct WarmUp {
    weights: &'static str,
    cold_bytes: u64,
    warm_bytes: u64,
    first_token_ms: Option<f64>,
}

impl WarmUp {
    pub(super) fn new(run: &Run) -> WarmUp {
        let sample = run.samples.first();
        let load = sample.map(|sample| sample.load).unwrap_or_default();
        WarmUp {
            weights: kind_name(sample.map_or(LoadKind::Unspecified, |sample| sample.load.kind())),
            cold_bytes: load.cold_bytes,
            warm_bytes: load.warm_bytes,
            first_token_ms: sample.map(|sample| sample.first_token.as_secs_f64() * 1e3),
        }
    }

    fn words(&self) -> String {
        let first = self.first_token_ms.unwrap_or_default();
        let first = units::duration(Duration::from_secs_f64(first / 1e3));
        let mut text = format!("first token after {first}, weights {}", self.weights);
        for (bytes, place) in [
            (self.cold_bytes, "from storage"),
            (self.warm_bytes, "from the page cache"),
        ] {
            if bytes > 0 {
                text.push_str(&format!(", {} {place}", units::bytes(bytes)));
            }
        }
        text
    }
}

impl Report {
    pub(super) fn new(model: &Model, device: &DeviceInfo, warm_up: WarmUp) -> Report {
        Report {
            model: model.id.clone(),
            architecture: model.architecture.clone(),
            tensor_bytes: model.tensor_bytes,
            device: device_name(device),
            prompt_tokens: 0,
            max_tokens: 0,
            repeats: 0,
            warm_up,
            runs: Vec::new(),
        }
    }

    /// What every run was asked for.
    pub(super) fn asked(mut self, prompt_tokens: u32, max_tokens: u32, repeats: u32) -> Report {
        (self.prompt_tokens, self.max_tokens, self.repeats) = (prompt_tokens, max_tokens, repeats);
        self
    }

    pub(super) fn add(&mut self, row: Row) {
        self.runs.push(row);
    }

    /// For people.
    pub(super) fn lines(&self, style: Style) -> Vec<String> {
        let model = format!(
            "{} ({}, {})",
            one_line(&self.model),
            one_line(&self.architecture),
            units::bytes(self.tensor_bytes)
        );
        let asked = format!(
            "{} prompt tokens, {} output tokens, {} runs each: median (least..greatest)",
            self.prompt_tokens, self.max_tokens, self.repeats
        );
        let facts = [
            ("model", model),
            ("device", self.device.clone()),
            ("warm-up", self.warm_up.words()),
            ("runs", asked),
        ];
        let mut table = Table::new([
            Column::Right("STREAMS"),
            Column::Right("PREFILL tok/s"),
            Column::Right("FIRST TOKEN ms"),
            Column::Right("DECODE tok/s"),
            Column::Right("ALL STREAMS tok/s"),
            Column::Left("WEIGHTS"),
        ]);
        for row in &self.runs {
            table.row([
                row.streams.to_string(),
                Spread::words(row.prefill_tokens_per_second),
                Spread::words(row.first_token_ms),
                Spread::words(row.decode_tokens_per_second),
                Spread::words(row.total_tokens_per_second),
                row.weights.to_owned(),
            ]);
        }
        let facts = facts
            .into_iter()
            .map(|(name, fact)| format!("{}  {fact}", style.bold(&format!("{name:<7}"))));
        facts
            .chain([String::new()])
            .chain(table.lines(style))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_a_middle() {
        let of = |values: &[f64]| Spread::of(values.iter().copied());
        assert_eq!(of(&[]), None);
        let spread = |median, min, max| Some(Spread { median, min, max });
        assert_eq!(of(&[3.0, 1.0, 2.0]), spread(2.0, 1.0, 3.0));
        assert_eq!(of(&[4.0, 1.0]), spread(2.5, 1.0, 4.0));
        assert_eq!(Spread::words(of(&[4.0, 1.0])), "2.5 (1.0..4.0)");
        assert_eq!(Spread::words(None), "-");
    }

    #[test]
    fn a_report_reads_as_a_table_and_as_json() {
        let model = Model {
            id: "m".into(),
            architecture: "llama".into(),
            tensor_bytes: 1 << 20,
            ..Model::default()
        };
        let device = DeviceInfo {
            kind: "cpu".into(),
            description: "2 threads".into(),
            ..DeviceInfo::default()
        };
        let nothing = Run {
            samples: Vec::new(),
        };
        let mut report = Report::new(&model, &device, WarmUp::new(&nothing)).asked(512, 128, 5);
        report.add(Row::new(1, &[]));
        assert_eq!(
            report.lines(Style::PLAIN),
            [
                "model    m (llama, 1.0 MiB)",
                "device   cpu: 2 threads",
                "warm-up  first token after 0 µs, weights unmeasured",
                "runs     512 prompt tokens, 128 output tokens, 5 runs each: median (least..greatest)",
                "",
                "STREAMS  PREFILL tok/s  FIRST TOKEN ms  DECODE tok/s  ALL STREAMS tok/s  WEIGHTS",
                "      1              -               -             -                  -  unmeasured",
            ]
        );
        let json = serde_json::to_value(&report).expect("plain data");
        assert_eq!(json["runs"][0]["streams"], 1);
        assert!(json["runs"][0]["decode_tokens_per_second"].is_null());
    }
}
