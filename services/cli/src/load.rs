//! `hearth load`, `hearth unload` and `hearth prefetch`: moving models by hand.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use proto::{
    inference::v1::{LoadMode, LoadModelRequest, LoadModelResponse, LoadPhase, UnloadModelRequest},
    loader::v1::{PrefetchRequest, PrefetchResponse},
};

use crate::{
    address::{self, InferenceAddress},
    failure::Failure,
    models::state_name,
    output,
    progress::Progress,
    service, units,
};

/// Flags of `hearth load`.
#[derive(Args, Debug)]
pub(crate) struct Load {
    /// Model to load
    #[arg(value_name = "NAME")]
    name: String,
    /// How far to bring it
    #[arg(long, value_enum, default_value_t = Mode::Eager)]
    mode: Mode,
    /// Keep its weights when room is needed
    #[arg(long)]
    pin: bool,
    /// Unload it when it has not been used for this time (10m, 2h)
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    keep_alive: Option<Duration>,
    /// Unload this model once the new one's plan stands
    #[arg(
        long,
        value_name = "OTHER",
        default_value = "",
        hide_default_value = true
    )]
    replace: String,
    #[command(flatten)]
    address: InferenceAddress,
}

/// How far a load goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// The plan stands; weights come when they are needed
    Lazy,
    /// Every byte is in the page cache
    Prefetch,
    /// Every byte is on the device
    Eager,
}

impl From<Mode> for LoadMode {
    fn from(mode: Mode) -> LoadMode {
        match mode {
            Mode::Lazy => LoadMode::Lazy,
            Mode::Prefetch => LoadMode::Prefetch,
            Mode::Eager => LoadMode::Eager,
        }
    }
}

impl Load {
    /// Loads the model and says what it took.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let doing = format!("load `{}`", self.name);
        let request = LoadModelRequest {
            model: self.name.clone(),
            mode: LoadMode::from(self.mode).into(),
            pin: self.pin,
            keep_alive: self.keep_alive.map(duration_to_proto),
            replace: self.replace,
        };
        let mut client = self.address.models().await?;
        let mut responses = client
            .load_model(request)
            .await
            .map_err(Failure::rpc(&doing))?
            .into_inner();
        let mut progress = Progress::new(&self.name);
        let mut last = None;
        while let Some(response) = responses.message().await.map_err(Failure::rpc(&doing))? {
            progress.update(
                phase_name(response.phase()),
                response.done_bytes,
                response.total_bytes,
            )?;
            last = Some(response);
        }
        progress.clear();
        let done = last
            .filter(|response| response.done)
            .ok_or(Failure::Protocol {
                doing,
                what: ENDED_EARLY,
            })?;
        output::stdout().line(load_words(&self.name, &done))?;
        Ok(())
    }
}

/// Flags of `hearth unload`.
#[derive(Args, Debug)]
pub(crate) struct Unload {
    /// Model to unload
    #[arg(value_name = "NAME")]
    name: String,
    /// Free the weights but keep the plan
    #[arg(long)]
    keep_attached: bool,
    #[command(flatten)]
    address: InferenceAddress,
}

impl Unload {
    /// Unloads the model and says what that freed.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let mut client = self.address.models().await?;
        let request = UnloadModelRequest {
            model: self.name.clone(),
            keep_attached: self.keep_attached,
        };
        let response = client
            .unload_model(request)
            .await
            .map_err(Failure::rpc(format!("unload `{}`", self.name)))?;
        let freed = units::bytes(response.into_inner().freed_bytes);
        output::stdout().line(format!("{}: unloaded, {freed} freed", self.name))?;
        Ok(())
    }
}

/// Flags of `hearth prefetch`.
#[derive(Args, Debug)]
pub(crate) struct Prefetch {
    /// Model to bring into the page cache
    #[arg(value_name = "NAME")]
    name: String,
    /// Keep it there
    #[arg(long)]
    pin: bool,
    /// Socket of the loader daemon [default: where `hearth up` and `hearth-loader` put it]
    #[arg(
        long,
        value_name = "PATH",
        env = "HEARTH_LOADER_SOCKET",
        hide_env_values = true
    )]
    loader_socket: Option<PathBuf>,
}

impl Prefetch {
    /// Prefetches the model and says where its bytes came from.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let doing = format!("prefetch `{}`", self.name);
        let socket = match self.loader_socket {
            Some(path) => path,
            None => service::default_loader_socket()?,
        };
        let mut client = address::loader(socket).await?;
        let request = PrefetchRequest {
            model: self.name.clone(),
            pin: self.pin,
        };
        let mut responses = client
            .prefetch(request)
            .await
            .map_err(Failure::rpc(&doing))?
            .into_inner();
        let mut progress = Progress::new(&self.name);
        let mut last = None;
        while let Some(response) = responses.message().await.map_err(Failure::rpc(&doing))? {
            progress.update("prefetch", response.done_bytes, response.total_bytes)?;
            last = Some(response);
        }
        progress.clear();
        let done = last
            .filter(|response| response.done)
            .ok_or(Failure::Protocol {
                doing,
                what: ENDED_EARLY,
            })?;
        output::stdout().line(prefetch_words(&self.name, &done, self.pin))?;
        Ok(())
    }
}

const ENDED_EARLY: &str = "the stream ended before it was done; the service's log says more";

fn duration_to_proto(time: Duration) -> prost_types::Duration {
    prost_types::Duration::try_from(time).unwrap_or(prost_types::Duration {
        seconds: i64::MAX,
        nanos: 0,
    })
}

fn phase_name(phase: LoadPhase) -> &'static str {
    match phase {
        LoadPhase::Unspecified | LoadPhase::Done => "load",
        LoadPhase::Attach => "attach",
        LoadPhase::Prefetch => "prefetch",
        LoadPhase::Fetch => "fetch",
    }
}

fn load_words(name: &str, done: &LoadModelResponse) -> String {
    let mut parts = Vec::new();
    if let Some(model) = &done.model {
        parts.push(state_name(model.state()).to_owned());
        parts.extend(
            units::from_proto(model.attach)
                .map(|time| format!("attached in {}", units::duration(time))),
        );
        parts.extend(
            units::from_proto(model.plan_build)
                .map(|time| format!("plan built in {}", units::duration(time))),
        );
    }
    if let Some(load) = &done.load {
        parts.push(origin_words(
            load.cold_bytes,
            load.warm_bytes,
            load.unknown_bytes,
        ));
    }
    if parts.is_empty() {
        parts.push("loaded".to_owned());
    }
    format!("{name}: {}", parts.join(", "))
}

fn prefetch_words(name: &str, done: &PrefetchResponse, pin: bool) -> String {
    let total = units::bytes(done.total_bytes);
    let unknown = done
        .total_bytes
        .saturating_sub(done.cold_bytes.saturating_add(done.warm_bytes));
    let origin = origin_words(done.cold_bytes, done.warm_bytes, unknown);
    let pinned = match (pin, done.pin_refused.as_str()) {
        (false, _) => String::new(),
        (true, "") => ", pinned".to_owned(),
        (true, reason) => format!(", kept but not locked: {}", output::one_line(reason)),
    };
    format!("{name}: {total} in the page cache, {origin}{pinned}")
}

fn origin_words(cold: u64, warm: u64, unknown: u64) -> String {
    if cold == 0 && warm == 0 && unknown == 0 {
        return "nothing had to be moved".to_owned();
    }
    let mut text = format!(
        "{} read from storage, {} found in the page cache",
        units::bytes(cold),
        units::bytes(warm)
    );
    if unknown > 0 {
        let unknown = units::bytes(unknown);
        text.push_str(&format!(", {unknown} not accounted for by the file system"));
    }
    text
}

#[cfg(test)]
mod tests {
    use proto::inference::v1::{self as v1, ModelState};

    use super::*;

    #[test]
    fn a_load_tells_state_times_and_bytes() {
        let done = LoadModelResponse {
            done: true,
            model: Some(v1::Model {
                state: ModelState::Resident.into(),
                attach: Some(prost_types::Duration {
                    seconds: 0,
                    nanos: 2_000_000,
                }),
                ..v1::Model::default()
            }),
            load: Some(v1::Load {
                cold_bytes: 4096,
                ..v1::Load::default()
            }),
            ..LoadModelResponse::default()
        };
        assert_eq!(
            load_words("m", &done),
            "m: resident, attached in 2.0 ms, 4.0 KiB read from storage, 0 B found in the page cache"
        );
        assert_eq!(load_words("m", &LoadModelResponse::default()), "m: loaded");
    }

    #[test]
    fn a_prefetch_tells_what_became_of_the_pin() {
        let mut done = PrefetchResponse {
            total_bytes: 2048,
            cold_bytes: 1024,
            warm_bytes: 512,
            ..PrefetchResponse::default()
        };
        let bytes = "m: 2.0 KiB in the page cache, 1.0 KiB read from storage, 512 B found in the page cache, 512 B not accounted for by the file system";
        assert_eq!(prefetch_words("m", &done, false), bytes);
        assert_eq!(prefetch_words("m", &done, true), format!("{bytes}, pinned"));
        done.pin_refused = "RLIMIT_MEMLOCK".into();
        assert_eq!(
            prefetch_words("m", &done, true),
            format!("{bytes}, kept but not locked: RLIMIT_MEMLOCK")
        );
    }

    #[test]
    fn endless_keep_alives_do_not_overflow() {
        assert_eq!(duration_to_proto(Duration::from_secs(600)).seconds, 600);
        assert_eq!(duration_to_proto(Duration::MAX).seconds, i64::MAX);
    }
}
