//! The table at the end of the demo.

use std::time::Duration;

use proto::inference::v1::{Load, Model};

use crate::{
    generate::Measured,
    output::Style,
    table::{Column, Table},
    units,
};

/// What one run showed.
pub(super) struct Run {
    name: &'static str,
    measured: Measured,
    /// How long attaching took, plan included.
    attach: Option<Duration>,
    plan_build: Option<Duration>,
    note: Option<String>,
}

impl Run {
    /// `model` as the service sees it after the run.
    pub(super) fn new(name: &'static str, measured: Measured, model: &Model) -> Run {
        Run {
            name,
            measured,
            attach: units::from_proto(model.attach),
            plan_build: units::from_proto(model.plan_build),
            note: None,
        }
    }

    /// With something to say below the table.
    pub(super) fn noted(self, note: Option<String>) -> Run {
        Run { note, ..self }
    }
}

/// The table, then what has to be said about it. The second of the runs is one in the process of the first: it attached nothing.
pub(super) fn lines(runs: &[Run; 3], style: Style) -> Vec<String> {
    let mut table = Table::new([
        Column::Left("RUN"),
        Column::Left("LOAD"),
        Column::Right("COLD"),
        Column::Right("WARM"),
        Column::Right("HOT"),
        Column::Right("ATTACH"),
        Column::Right("PLAN BUILD"),
        Column::Right("FIRST TOKEN"),
        Column::Right("TOKENS/S"),
    ]);
    let mut notes = Vec::new();
    for (run, attaches) in runs.iter().zip([true, false, true]) {
        let load = run.measured.load.unwrap_or_default();
        let attached =
            |time: Option<Duration>| optional(time.filter(|_| attaches), units::duration);
        let mark = if run.note.is_some() { "*" } else { "" };
        table.row([
            format!("{}{mark}", run.name),
            crate::generate::kind_name(load.kind()).to_owned(),
            units::bytes(load.cold_bytes),
            units::bytes(load.warm_bytes),
            units::bytes(load.hot_bytes),
            attached(run.attach),
            attached(run.plan_build),
            optional(run.measured.first_token, units::duration),
            optional(run.measured.tokens_per_second(), |rate| {
                format!("{rate:.1}")
            }),
        ]);
        notes.extend(
            run.note
                .iter()
                .map(|note| format!("* {}: {note}", run.name)),
        );
        notes.extend(unaccounted(&load).map(|amount| {
            format!(
                "{}: {amount} came from a file system that does not account for its reads",
                run.name
            )
        }));
    }
    let mut lines = table.lines(style);
    lines.extend(notes.iter().map(|note| style.yellow(note)));
    lines.push(verdict(runs, style));
    lines
}

fn verdict(runs: &[Run; 3], style: Style) -> String {
    let tokens = runs[0].measured.tokens();
    if runs
        .iter()
        .all(|run| run.measured.text == runs[0].measured.text)
    {
        style.green(&format!("all three runs put out the same {tokens} tokens"))
    } else {
        style.red("the runs put out different text, which they should not")
    }
}

fn unaccounted(load: &Load) -> Option<String> {
    (load.unknown_bytes > 0).then(|| units::bytes(load.unknown_bytes))
}

fn optional<T>(value: Option<T>, show: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), show)
}

#[cfg(test)]
mod tests {
    use proto::inference::v1::{Finished, LoadKind, Timings, Usage};

    use super::*;

    fn run(name: &'static str, kind: LoadKind, load: Load) -> Run {
        let time = |nanos| Some(prost_types::Duration { seconds: 0, nanos });
        let measured = Measured {
            first_token: Some(Duration::from_millis(12)),
            load: Some(Load {
                kind: kind.into(),
                ..load
            }),
            text: "and so".to_owned(),
            finished: Some(Finished {
                usage: Some(Usage {
                    completion_tokens: 11,
                    ..Usage::default()
                }),
                timings: Some(Timings {
                    decode: time(100_000_000),
                    ..Timings::default()
                }),
                ..Finished::default()
            }),
        };
        let model = Model {
            attach: time(2_000_000),
            plan_build: time(300_000),
            ..Model::default()
        };
        Run::new(name, measured, &model)
    }

    fn three() -> [Run; 3] {
        [
            run(
                "cold",
                LoadKind::Cold,
                Load {
                    cold_bytes: 5 << 20,
                    ..Load::default()
                },
            ),
            run(
                "hot",
                LoadKind::Hot,
                Load {
                    hot_bytes: 5 << 20,
                    ..Load::default()
                },
            ),
            run(
                "warm",
                LoadKind::Warm,
                Load {
                    warm_bytes: 5 << 20,
                    ..Load::default()
                },
            ),
        ]
    }

    #[test]
    fn three_rows_side_by_side() {
        assert_eq!(
            lines(&three(), Style::PLAIN),
            [
                "RUN   LOAD     COLD     WARM      HOT  ATTACH  PLAN BUILD  FIRST TOKEN  TOKENS/S",
                "cold  cold  5.0 MiB      0 B      0 B  2.0 ms      300 µs      12.0 ms     100.0",
                "hot   hot       0 B      0 B  5.0 MiB       -           -      12.0 ms     100.0",
                "warm  warm      0 B  5.0 MiB      0 B  2.0 ms      300 µs      12.0 ms     100.0",
                "all three runs put out the same 11 tokens",
            ]
        );
    }

    #[test]
    fn what_is_odd_is_said_below() {
        let [cold, hot, mut warm] = three();
        let load = Load {
            unknown_bytes: 1024,
            ..Load::default()
        };
        let cold = Run {
            measured: Measured {
                load: Some(load),
                ..cold.measured
            },
            ..cold
        }
        .noted(Some("not cold".to_owned()));
        warm.measured.text.push('!');
        let lines = lines(&[cold, hot, warm], Style::PLAIN);
        assert!(lines[1].starts_with("cold*  unmeasured"), "{}", lines[1]);
        assert_eq!(lines[4], "* cold: not cold");
        assert_eq!(
            lines[5],
            "cold: 1.0 KiB came from a file system that does not account for its reads"
        );
        assert_eq!(
            lines[6],
            "the runs put out different text, which they should not"
        );
    }
}
