//! `hearth up`: the loader daemon and an inference service, kept running together.

mod grpcurl;

use std::{fmt::Display, path::PathBuf, time::Duration};

use clap::Args;
use proto::inference::v1::{ListModelsRequest, Model, ModelState};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    address::{Address, InferenceAddress, Peer},
    child::{Child, Log, Plan},
    failure::Failure,
    output, service,
};

/// Beyond the time that a service allows itself for draining.
const STOP_MARGIN: Duration = Duration::from_secs(5);
/// Models that are named before the rest is only counted.
const MODELS_NAMED_MAX: usize = 8;

/// Flags of `hearth up`. What is left out is left to the services, whose `--help` tells more: `hearth loader --help`, `hearth inference --help`.
#[derive(Args, Debug)]
pub(crate) struct Up {
    /// Directory that holds the models
    #[arg(
        long,
        value_name = "DIR",
        env = "HEARTH_MODELS",
        hide_env_values = true
    )]
    models: PathBuf,
    /// Where the inference service listens: HOST:PORT or unix:PATH
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "HEARTH_LISTEN",
        hide_env_values = true,
        default_value = "127.0.0.1:50051"
    )]
    listen: Address,
    /// Where the loader daemon listens [default: as hearth-loader's --socket]
    #[arg(
        long,
        value_name = "PATH",
        env = "HEARTH_LOADER_SOCKET",
        hide_env_values = true
    )]
    loader_socket: Option<PathBuf>,
    /// What computes: auto, cpu, reference, hip, hip:INDEX
    #[arg(
        long,
        value_name = "DEVICE",
        env = "HEARTH_DEVICE",
        hide_env_values = true
    )]
    device: Option<String>,
    /// The HIP library to use for a GPU
    #[arg(
        long,
        value_name = "PATH",
        env = "HEARTH_HIP_LIBRARY",
        hide_env_values = true
    )]
    hip_library: Option<PathBuf>,
    /// Keep keys and values as f16 or f32
    #[arg(long, value_name = "TYPE")]
    kv_type: Option<String>,
    /// On a GPU, give the same tokens whatever else is in the batch
    #[arg(long)]
    batch_invariant: bool,
    /// Threads that compute
    #[arg(long, value_name = "N")]
    threads: Option<String>,
    /// Keep each of them on a processor of its own
    #[arg(long)]
    pin_threads: bool,
    /// Load this model before saying that the service is ready; may be repeated
    #[arg(long, value_name = "MODEL")]
    preload: Vec<String>,
    /// Keep this model in the page cache; may be repeated
    #[arg(long, value_name = "MODEL")]
    pin: Vec<String>,
    /// Most bytes of weights on the device (8GiB)
    #[arg(long, value_name = "BYTES")]
    weights_budget: Option<String>,
    /// Most bytes for the KV cache
    #[arg(long, value_name = "BYTES")]
    kv_budget: Option<String>,
    /// Most bytes to keep in the page cache
    #[arg(long, value_name = "BYTES")]
    cache_budget: Option<String>,
    /// How long running work may go on after Ctrl-C
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    drain_timeout: Duration,
    #[command(flatten)]
    telemetry: telemetry::Flags,
}

impl Up {
    /// Starts both services, tells how to talk to them and stays until it is told to stop or one of them dies.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let (loader, inference) = self.plans()?;
        let mut stop = Stop::listen()?;
        let mut services = tokio::select! {
            services = Services::start(&loader, &inference) => services?,
            () = stop.asked() => return Err(Failure::Interrupted),
        };
        self.greet(&services, &loader.address).await?;
        let failure = tokio::select! {
            failure = services.inference.ended() => Some(failure),
            failure = services.loader.ended() => Some(failure),
            () = stop.asked() => None,
        };
        if let Some(failure) = failure {
            // The dead one is a failure already; the other one's end changes nothing about that.
            let _ = services.stop(self.drain_timeout + STOP_MARGIN).await;
            return Err(failure);
        }
        output::stderr().line("hearth: draining; once more ends both at once")?;
        tokio::select! {
            stopped = services.stop(self.drain_timeout + STOP_MARGIN) => stopped,
            () = stop.asked() => Err(Failure::Interrupted),
        }
    }

    fn plans(&self) -> Result<(Plan, Plan), Failure> {
        if let Address::Tcp(authority) = &self.listen
            && authority.ends_with(":0")
        {
            return Err(Failure::Usage(format!(
                "--listen {authority}: name a port, so that clients know where to go"
            )));
        }
        let loader_args = self.loader_args();
        let socket = service::check_loader(&loader_args)?.socket;
        let inference_args = self.inference_args(&socket.display().to_string());
        service::check_inference(&inference_args)?;
        let plan = |peer, args, address| Plan {
            peer,
            args,
            address,
            log: Log::Inherit,
            private: false,
        };
        Ok((
            plan(Peer::Loader, loader_args, Address::Unix(socket)),
            plan(Peer::Inference, inference_args, self.listen.clone()),
        ))
    }

    fn loader_args(&self) -> Vec<String> {
        let mut args = Arguments::default();
        args.set("--models", Some(self.models.display()));
        args.set(
            "--socket",
            self.loader_socket.as_ref().map(|path| path.display()),
        );
        args.set("--cache-budget", self.cache_budget.as_ref());
        args.set("--pin", (!self.pin.is_empty()).then(|| self.pin.join(",")));
        self.common(args)
    }

    fn inference_args(&self, loader_socket: &str) -> Vec<String> {
        let mut args = Arguments::default();
        args.set("--listen", Some(&self.listen));
        args.set("--loader-socket", Some(loader_socket));
        args.set("--device", self.device.as_ref());
        args.set(
            "--hip-library",
            self.hip_library.as_ref().map(|path| path.display()),
        );
        args.set("--kv-type", self.kv_type.as_ref());
        args.switch("--batch-invariant", self.batch_invariant);
        args.set("--threads", self.threads.as_ref());
        args.switch("--pin-threads", self.pin_threads);
        args.set("--weights-budget", self.weights_budget.as_ref());
        args.set("--kv-budget", self.kv_budget.as_ref());
        args.set(
            "--preload",
            (!self.preload.is_empty()).then(|| self.preload.join(",")),
        );
        self.common(args)
    }

    fn common(&self, mut args: Arguments) -> Vec<String> {
        args.set(
            "--drain-timeout",
            Some(format!("{}ms", self.drain_timeout.as_millis())),
        );
        let telemetry::Flags {
            log,
            log_format,
            otlp_endpoint,
            trace_ratio,
            metrics_interval_ms,
            instance,
        } = &self.telemetry;
        let log_format = clap::ValueEnum::to_possible_value(log_format);
        args.set("--log", Some(log));
        args.set(
            "--log-format",
            log_format
                .as_ref()
                .map(clap::builder::PossibleValue::get_name),
        );
        args.set("--otlp-endpoint", otlp_endpoint.as_ref());
        args.set("--trace-ratio", Some(trace_ratio));
        args.set("--metrics-interval-ms", Some(metrics_interval_ms));
        args.set("--instance", instance.as_ref());
        args.0
    }

    async fn greet(&self, services: &Services, loader: &Address) -> Result<(), Failure> {
        let address = InferenceAddress {
            server: self.listen.clone(),
        };
        let response = address
            .models()
            .await?
            .list_models(ListModelsRequest {})
            .await;
        let models = response
            .map_err(Failure::rpc("list the models"))?
            .into_inner()
            .models;
        let mut stdout = output::stdout();
        let style = stdout.style;
        let pid = |child: &Child| {
            child
                .pid()
                .map(|pid| format!(" (pid {pid})"))
                .unwrap_or_default()
        };
        stdout.line(format!(
            "{} {}{}",
            style.bold("inference service"),
            self.listen,
            pid(&services.inference)
        ))?;
        stdout.line(format!(
            "{}     {loader}{}",
            style.bold("loader daemon"),
            pid(&services.loader)
        ))?;
        stdout.line(format!(
            "{}            {}",
            style.bold("models"),
            models_words(&models)
        ))?;
        stdout.line("")?;
        let name = models
            .iter()
            .find(|model| model.state() != ModelState::Invalid)
            .map(|model| model.id.as_str());
        for line in grpcurl::lines(&self.listen, name.unwrap_or("NAME")) {
            stdout.line(style.green(&line))?;
        }
        stdout.line("")?;
        stdout.line(style.dim("Ctrl-C drains and stops both."))?;
        Ok(())
    }
}

/// Flags for a child.
#[derive(Default)]
struct Arguments(Vec<String>);

impl Arguments {
    fn set(&mut self, flag: &str, value: Option<impl Display>) {
        // One argument, so that a value that begins with a dash stays a value.
        self.0.extend(value.map(|value| format!("{flag}={value}")));
    }

    fn switch(&mut self, flag: &str, on: bool) {
        self.0.extend(on.then(|| flag.to_owned()));
    }
}

/// Both processes.
struct Services {
    loader: Child,
    inference: Child,
}

impl Services {
    /// Starts the daemon, then the service that asks it for models.
    async fn start(loader: &Plan, inference: &Plan) -> Result<Services, Failure> {
        let mut loader = loader.start().await?;
        tokio::select! {
            inference = inference.start() => Ok(Services { loader, inference: inference? }),
            failure = loader.ended() => Err(failure),
        }
    }

    /// Ends the service first: while it drains, it may still want weights from the daemon.
    async fn stop(self, patience: Duration) -> Result<(), Failure> {
        let inference = self.inference.stop(patience).await;
        let loader = self.loader.stop(patience).await;
        inference.and(loader)
    }
}

/// Ctrl-C, SIGTERM, and the terminal going away.
pub(crate) struct Stop {
    hang_up: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Stop {
    /// From here on, these signals are heard instead of ending the process.
    pub(crate) fn listen() -> Result<Stop, Failure> {
        let listen = |kind| {
            signal(kind)
                .map_err(|error| Failure::Child(format!("cannot listen for signals: {error}")))
        };
        Ok(Stop {
            hang_up: listen(SignalKind::hangup())?,
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// Resolves at the next of them.
    pub(crate) async fn asked(&mut self) {
        tokio::select! {
            _ = self.hang_up.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

fn models_words(models: &[Model]) -> String {
    let (bad, good): (Vec<_>, Vec<_>) = models
        .iter()
        .partition(|model| model.state() == ModelState::Invalid);
    let named: Vec<&str> = good
        .iter()
        .take(MODELS_NAMED_MAX)
        .map(|model| model.id.as_str())
        .collect();
    let mut text = match named.as_slice() {
        [] => "none yet: put .gguf files into the directory, it is watched".to_owned(),
        names => output::one_line(&names.join(", ")),
    };
    if good.len() > named.len() {
        text.push_str(&format!(" and {} more", good.len() - named.len()));
    }
    if !bad.is_empty() {
        text.push_str(&format!(
            "; {} cannot be used, `hearth models` says why",
            bad.len()
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(id: &str, state: ModelState) -> Model {
        Model {
            id: id.to_owned(),
            state: state.into(),
            ..Model::default()
        }
    }

    #[test]
    fn models_are_named_up_to_a_point() {
        assert!(models_words(&[]).starts_with("none yet"));
        let mut models = vec![model("bad", ModelState::Invalid)];
        models.extend((0..10).map(|index| model(&format!("m{index}"), ModelState::Published)));
        assert_eq!(
            models_words(&models),
            "m0, m1, m2, m3, m4, m5, m6, m7 and 2 more; 1 cannot be used, `hearth models` says why"
        );
    }

    #[test]
    fn values_stay_with_their_flags() {
        let mut args = Arguments::default();
        args.set("--models", Some("--odd dir"));
        args.set("--threads", None::<String>);
        assert_eq!(args.0, ["--models=--odd dir"]);
    }
}
