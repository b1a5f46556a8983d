//! `hearth top`: what the models of a device are doing, again and again.

use std::time::{Duration, Instant};

use clap::Args;
use proto::inference::v1::{DeviceInfo, ListModelsRequest, Model, PlanCounters};

use crate::{
    address::InferenceAddress,
    failure::Failure,
    models::{device_words, state_name},
    output::{self, Style, one_line},
    table::{Column, Table},
    units,
};

/// Flags of `hearth top`.
#[derive(Args, Debug)]
pub(crate) struct Top {
    /// Time between two looks (500ms, 2s)
    #[arg(short, long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    interval: Duration,
    /// Look so many times, then end [default: until Ctrl-C]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    #[command(flatten)]
    address: InferenceAddress,
}

/// One look at all models.
struct Look {
    at: Instant,
    models: Vec<Model>,
    device: DeviceInfo,
}

impl Top {
    /// Shows rates between looks: in place where a person looks, one table after the other where a pipe does.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let mut client = self.address.models().await?;
        let mut stdout = output::stdout();
        let mut before: Option<Look> = None;
        let mut shown = 0;
        for round in 0u64.. {
            let answer = client.list_models(ListModelsRequest {}).await;
            let answer = answer
                .map_err(Failure::rpc("list the models"))?
                .into_inner();
            let look = Look {
                at: Instant::now(),
                models: answer.models,
                device: answer.device.unwrap_or_default(),
            };
            let lines = look.lines(before.as_ref(), stdout.style);
            if stdout.is_terminal && shown > 0 {
                // Back to the first line, and everything below it away.
                stdout.text(&format!("\x1b[{shown}A\x1b[J"))?;
            }
            shown = lines.len();
            for line in lines {
                stdout.line(line)?;
            }
            before = Some(look);
            if self.count.is_some_and(|count| round + 1 >= count) {
                break;
            }
            tokio::time::sleep(self.interval).await;
        }
        Ok(())
    }
}

impl Look {
    fn lines(&self, before: Option<&Look>, style: Style) -> Vec<String> {
        let mut table = Table::new([
            Column::Left("MODEL"),
            Column::Left("STATE"),
            Column::Right("RESIDENT"),
            Column::Right("STEPS/s"),
            Column::Right("8+ ROWS"),
            Column::Right("WAITS/s"),
            Column::Right("FETCHED/s"),
            Column::Right("EVICTED/s"),
        ]);
        for model in &self.models {
            let earlier = before.and_then(|look| look.counters_of(&model.id));
            let counters = model.counters.as_ref();
            let rates = counters
                .zip(earlier)
                .zip(before)
                .map(|((now, then), look)| Rates::between(then, now, self.at - look.at));
            table.row([
                one_line(&model.id),
                state_name(model.state()).to_owned(),
                units::bytes(model.resident_bytes),
                cell(rates.as_ref(), |rates| format!("{:.1}", rates.steps)),
                cell(rates.as_ref(), |rates| match rates.wide {
                    Some(share) => format!("{:.0} %", share * 100.0),
                    None => "-".to_owned(),
                }),
                cell(rates.as_ref(), |rates| format!("{:.1}", rates.misses)),
                cell(rates.as_ref(), |rates| units::bytes(rates.loaded_bytes)),
                cell(rates.as_ref(), |rates| format!("{:.1}", rates.evictions)),
            ]);
        }
        let device = style.dim(&device_words(&self.device));
        table.lines(style).into_iter().chain([device]).collect()
    }

    fn counters_of(&self, id: &str) -> Option<&PlanCounters> {
        let model = self.models.iter().find(|model| model.id == id)?;
        model.counters.as_ref()
    }
}

fn cell(rates: Option<&Rates>, show: impl FnOnce(&Rates) -> String) -> String {
    rates.map_or_else(|| "-".to_owned(), show)
}

/// What happened per second between two looks.
#[derive(Debug, PartialEq)]
struct Rates {
    steps: f64,
    /// Of the steps, those with eight rows or more.
    wide: Option<f64>,
    misses: f64,
    evictions: f64,
    loaded_bytes: u64,
}

impl Rates {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a few digits are shown"
    )]
    fn between(then: &PlanCounters, now: &PlanCounters, time: Duration) -> Rates {
        // A model that was unloaded meanwhile counts from nothing again.
        let more = |now: u64, then: u64| now.saturating_sub(then) as f64;
        let seconds = time.as_secs_f64().max(1e-9);
        let steps = more(now.steps, then.steps);
        let wide = more(now.wide_steps, then.wide_steps);
        Rates {
            steps: steps / seconds,
            wide: (steps > 0.0).then(|| wide / steps),
            misses: more(now.misses, then.misses) / seconds,
            evictions: more(now.evictions, then.evictions) / seconds,
            loaded_bytes: (more(now.loaded_bytes, then.loaded_bytes) / seconds) as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(at: Instant, steps: u64, wide_steps: u64) -> Look {
        let counters = PlanCounters {
            steps,
            wide_steps,
            loaded_bytes: steps << 20,
            ..PlanCounters::default()
        };
        let attached = Model {
            id: "m".into(),
            counters: Some(counters),
            ..Model::default()
        };
        let other = Model {
            id: "n".into(),
            ..Model::default()
        };
        Look {
            at,
            models: vec![attached, other],
            device: DeviceInfo {
                kind: "cpu".into(),
                ..DeviceInfo::default()
            },
        }
    }

    #[test]
    fn rates_come_with_the_second_look() {
        let at = Instant::now();
        let first = look(at, 10, 0);
        assert!(first.lines(None, Style::PLAIN)[1].ends_with("-          -"));
        let second = look(at + Duration::from_secs(2), 30, 5);
        assert_eq!(
            second.lines(Some(&first), Style::PLAIN),
            [
                "MODEL  STATE    RESIDENT  STEPS/s  8+ ROWS  WAITS/s  FETCHED/s  EVICTED/s",
                "m      unknown       0 B     10.0     25 %      0.0   10.0 MiB        0.0",
                "n      unknown       0 B        -        -        -          -          -",
                "device cpu:; weights 0 B",
            ]
        );
    }

    #[test]
    fn counters_that_begin_anew_are_no_negative_rate() {
        let at = Instant::now();
        let (first, second) = (look(at, 10, 0), look(at + Duration::from_secs(1), 3, 0));
        let line = &second.lines(Some(&first), Style::PLAIN)[1];
        assert!(line.contains(" 0.0 "), "{line}");
    }
}
