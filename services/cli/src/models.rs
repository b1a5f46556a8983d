//! `hearth models`: what can be asked, and where it is.

use clap::Args;
use proto::inference::v1::{
    DeviceInfo, GetModelRequest, ListModelsRequest, Model, ModelState, PlanCounters,
};
use serde::Serialize;

use crate::{
    address::InferenceAddress,
    failure::Failure,
    output::{self, Style, one_line},
    table::{Column, Table},
    units,
};

/// Flags of `hearth models`.
#[derive(Args, Debug)]
pub(crate) struct Models {
    /// Tell everything about one model
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Print JSON: one line per model
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    address: InferenceAddress,
}

impl Models {
    /// Prints the table, or one model.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let mut client = self.address.models().await?;
        let (models, device) = match &self.name {
            Some(name) => {
                let request = GetModelRequest {
                    model: name.clone(),
                };
                let response = client
                    .get_model(request)
                    .await
                    .map_err(Failure::rpc("show the model"))?
                    .into_inner();
                (Vec::from_iter(response.model), response.device)
            }
            None => {
                let response = client.list_models(ListModelsRequest {}).await;
                let response = response
                    .map_err(Failure::rpc("list the models"))?
                    .into_inner();
                (response.models, response.device)
            }
        };
        let mut stdout = output::stdout();
        if self.json {
            for model in &models {
                stdout.json(&Line::from(model))?;
            }
            return Ok(());
        }
        let lines = match (&self.name, models.first()) {
            (Some(_), Some(model)) => details(model, stdout.style),
            _ => overview(&models, stdout.style),
        };
        for line in lines {
            stdout.line(line)?;
        }
        if let Some(device) = device {
            let text = device_words(&device);
            let text = stdout.style.dim(&text);
            stdout.line(text)?;
        }
        Ok(())
    }
}

/// `attached`, `resident` …
pub(crate) fn state_name(state: ModelState) -> &'static str {
    match state {
        ModelState::Unspecified => "unknown",
        ModelState::Published => "published",
        ModelState::Attaching => "attaching",
        ModelState::Attached => "attached",
        ModelState::Resident => "resident",
        ModelState::Degraded => "degraded",
        ModelState::Invalid => "invalid",
    }
}

fn overview(models: &[Model], style: Style) -> Vec<String> {
    let mut table = Table::new([
        Column::Left("MODEL"),
        Column::Left("STATE"),
        Column::Left("ARCHITECTURE"),
        Column::Right("TENSORS"),
        Column::Right("SIZE"),
        Column::Right("RESIDENT"),
        Column::Right("CONTEXT"),
        Column::Left("NOTE"),
    ]);
    for model in models {
        table.row([
            one_line(&model.id),
            state_name(model.state()).to_owned(),
            one_line(&model.architecture),
            amount(u64::from(model.tensor_count), |count| count.to_string()),
            amount(model.tensor_bytes, units::bytes),
            amount(model.resident_bytes, units::bytes),
            amount(u64::from(model.context_length), |tokens| tokens.to_string()),
            note(model),
        ]);
    }
    if table.is_empty() {
        return vec!["no models: put .gguf files below the daemon's --models directory".to_owned()];
    }
    table.lines(style)
}

fn note(model: &Model) -> String {
    let pinned = model.pinned.then(|| "pinned".to_owned());
    let reason = (!model.reason.is_empty()).then(|| one_line(&model.reason));
    Vec::from_iter([pinned, reason].into_iter().flatten()).join("; ")
}

/// An amount, or nothing where zero means that it is not known or not there.
fn amount(value: u64, show: impl FnOnce(u64) -> String) -> String {
    if value == 0 {
        "-".to_owned()
    } else {
        show(value)
    }
}

fn details(model: &Model, style: Style) -> Vec<String> {
    let time = |time| units::from_proto(time).map(units::duration);
    let text = |text: &str| Some(one_line(text)).filter(|text| !text.is_empty());
    let tokens = |count: u32| (count > 0).then(|| format!("{count} tokens"));
    let has_tensors = model.tensor_count > 0;
    let mut facts = vec![
        ("model", text(&model.id)),
        ("state", text(state_name(model.state()))),
        ("note", text(&note(model))),
        ("architecture", text(&model.architecture)),
        (
            "tensors",
            has_tensors.then(|| {
                format!(
                    "{} ({})",
                    model.tensor_count,
                    units::bytes(model.tensor_bytes)
                )
            }),
        ),
        (
            "resident",
            has_tensors.then(|| units::bytes(model.resident_bytes)),
        ),
        ("context", tokens(model.context_length)),
        ("vocabulary", tokens(model.n_vocab)),
        ("attached in", time(model.attach)),
        ("plan built in", time(model.plan_build)),
        ("digest", text(&model.digest)),
    ];
    if let Some(counters) = &model.counters {
        facts.extend(counter_facts(counters));
    }
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let shown = facts
        .into_iter()
        .filter_map(|(name, fact)| Some((name, fact?)));
    shown
        .map(|(name, fact)| format!("{}  {fact}", style.bold(&format!("{name:<width$}"))))
        .collect()
}

fn counter_facts(counters: &PlanCounters) -> [(&'static str, Option<String>); 5] {
    let PlanCounters {
        extents,
        hits,
        misses,
        loads,
        evictions,
        failures,
        steps,
        wide_steps,
        ..
    } = counters;
    [
        (
            "extents",
            Some(format!(
                "{extents}; found resident {hits} times, waited for {misses} times"
            )),
        ),
        (
            "loads",
            Some(format!(
                "{loads} extents, {}; {evictions} evicted, {failures} failed",
                units::bytes(counters.loaded_bytes)
            )),
        ),
        (
            "cold, warm",
            Some(format!(
                "{}, {}",
                units::bytes(counters.cold_bytes),
                units::bytes(counters.warm_bytes)
            )),
        ),
        (
            "read by itself",
            (counters.self_read_bytes > 0).then(|| units::bytes(counters.self_read_bytes)),
        ),
        (
            "steps",
            Some(format!(
                "{steps}, {wide_steps} of them with eight rows or more"
            )),
        ),
    ]
}

/// `device cpu: 2 threads; weights 1.0 GiB of 4.0 GiB`.
pub(crate) fn device_words(device: &DeviceInfo) -> String {
    let of = match device.weights_budget_bytes {
        0 => String::new(),
        budget => format!(" of {}", units::bytes(budget)),
    };
    let resident = units::bytes(device.weights_resident_bytes);
    format!("device {}; weights {resident}{of}", device_name(device))
}

/// `cpu: 2 threads`.
pub(crate) fn device_name(device: &DeviceInfo) -> String {
    // Descriptions may begin with the kind, which nobody has to read twice.
    let description = device.description.strip_prefix(&device.kind);
    let description = description.unwrap_or(&device.description);
    let description = description.trim_start_matches([':', ' ']);
    one_line(&format!("{}: {description}", device.kind))
}

/// One model as JSON.
#[derive(Serialize)]
struct Line<'a> {
    id: &'a str,
    state: &'static str,
    reason: &'a str,
    architecture: &'a str,
    tensor_count: u32,
    tensor_bytes: u64,
    resident_bytes: u64,
    context_length: u32,
    n_vocab: u32,
    pinned: bool,
    digest: &'a str,
}

impl<'a> From<&'a Model> for Line<'a> {
    fn from(model: &'a Model) -> Line<'a> {
        Line {
            id: &model.id,
            state: state_name(model.state()),
            reason: &model.reason,
            architecture: &model.architecture,
            tensor_count: model.tensor_count,
            tensor_bytes: model.tensor_bytes,
            resident_bytes: model.resident_bytes,
            context_length: model.context_length,
            n_vocab: model.n_vocab,
            pinned: model.pinned,
            digest: &model.digest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> [Model; 2] {
        [
            Model {
                id: "tiny".into(),
                state: ModelState::Attached.into(),
                architecture: "llama".into(),
                tensor_count: 39,
                tensor_bytes: 5 << 20,
                resident_bytes: 1 << 20,
                context_length: 512,
                pinned: true,
                attach: Some(prost_types::Duration {
                    seconds: 0,
                    nanos: 1_500_000,
                }),
                counters: Some(PlanCounters {
                    extents: 39,
                    ..PlanCounters::default()
                }),
                ..Model::default()
            },
            Model {
                id: "broken".into(),
                state: ModelState::Invalid.into(),
                reason: "not a GGUF file:\nmagic \x1b".into(),
                ..Model::default()
            },
        ]
    }

    #[test]
    fn the_overview_fits_good_and_bad_models() {
        assert_eq!(
            overview(&sample(), Style::PLAIN),
            [
                "MODEL   STATE     ARCHITECTURE  TENSORS     SIZE  RESIDENT  CONTEXT  NOTE",
                "tiny    attached  llama              39  5.0 MiB   1.0 MiB      512  pinned",
                "broken  invalid                       -        -         -        -  not a GGUF file: magic ␛",
            ]
        );
    }

    #[test]
    fn no_models_is_an_answer_too() {
        assert_eq!(
            overview(&[], Style::PLAIN),
            ["no models: put .gguf files below the daemon's --models directory"]
        );
    }

    #[test]
    fn details_leave_out_what_is_not_known() {
        let lines = details(&sample()[0], Style::PLAIN);
        assert!(
            lines.contains(&"attached in     1.5 ms".to_owned()),
            "{lines:#?}"
        );
        assert!(
            !lines
                .iter()
                .any(|line| line.starts_with("digest") || line.starts_with("plan")),
            "{lines:#?}"
        );
    }

    #[test]
    fn budgets_are_shown_when_there_is_one() {
        let mut device = DeviceInfo {
            kind: "cpu".into(),
            description: "cpu: 2 threads".into(),
            ..DeviceInfo::default()
        };
        assert_eq!(device_words(&device), "device cpu: 2 threads; weights 0 B");
        device.weights_budget_bytes = 1 << 30;
        assert_eq!(
            device_words(&device),
            "device cpu: 2 threads; weights 0 B of 1.0 GiB"
        );
    }
}
