//! `hearth demo`: the same completion three times, with weights from storage, from this process's memory and from the page cache.

mod place;
mod report;

use std::time::{Duration, Instant};

use clap::Args;
use proto::{
    inference::v1::{
        GenerateRequest, GetModelRequest, Sampling, Stopping, generate_request::Prompt,
    },
    loader::v1::GetResidencyRequest,
};
use tonic::Code;

use crate::{
    address::{self, Address, InferenceAddress, Peer},
    child::{Child, Log, Plan},
    failure::Failure,
    generate::{Measured, unfinished},
    output::{self, Stream},
    service, units,
    up::Stop,
};
use place::{MODEL, MODEL_NAME, Place};
use report::Run;

/// The same in every run, so that all of them tell the same story.
const SEED: u64 = 5;
const TEMPERATURE: f32 = 0.8;
/// Longest wait for the services to end; nothing is running then.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// Flags of `hearth demo`.
#[derive(Args, Debug)]
pub(crate) struct Demo {
    /// What the model is to go on from
    #[arg(long, value_name = "TEXT", default_value = "Once upon a time")]
    prompt: String,
    /// Tokens per run
    #[arg(long, value_name = "N", default_value_t = 320, value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: u32,
    /// What computes: auto, cpu, reference
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: String,
    /// Leave the model, the sockets' folder and the logs behind and say where they are
    #[arg(long)]
    keep: bool,
}

impl Demo {
    /// Runs the three completions and prints the table.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let mut stop = Stop::listen()?;
        let place = Place::make()?;
        let outcome = tokio::select! {
            outcome = self.show(&place) => outcome,
            () = stop.asked() => Err(Failure::Interrupted),
        };
        if self.keep {
            let mut stderr = output::stderr();
            for path in place.keep() {
                stderr.line(format!("kept {}", path.display()))?;
            }
        }
        outcome
    }

    async fn show(&self, place: &Place) -> Result<(), Failure> {
        let mut stage = Stage::new(self, place);
        service::check_inference(&stage.inference.args)?;
        stage.introduce(place)?;
        let loader = stage.loader.start().await?;
        let inference = stage.inference.start().await?;

        place.drop_page_cache()?;
        let residency = residency(place).await?;
        stage.title(&format!("1  cold: {}", residency.words()))?;
        let cold = stage.run("cold").await?.noted(residency.note());

        stage.title("2  hot: the same process again")?;
        let hot = stage.run("hot").await?;

        inference.kill().await?;
        let killed = Instant::now();
        let inference = stage.inference.start().await?;
        stage.title(&format!(
            "3  warm: inference service killed, another one ready after {}",
            units::duration(killed.elapsed())
        ))?;
        let warm = stage.run("warm").await?;

        stage.stdout.line("")?;
        let lines = report::lines(&[cold, hot, warm], stage.stdout.style);
        for line in lines {
            stage.stdout.line(line)?;
        }
        end(inference, loader).await
    }

    fn request(&self) -> GenerateRequest {
        GenerateRequest {
            model: MODEL_NAME.to_owned(),
            prompt: Some(Prompt::Text(self.prompt.clone())),
            sampling: Some(Sampling {
                temperature: Some(TEMPERATURE),
                seed: Some(SEED),
                ..Sampling::default()
            }),
            stopping: Some(Stopping {
                max_tokens: Some(self.max_tokens),
                ..Stopping::default()
            }),
            ..GenerateRequest::default()
        }
    }
}

async fn end(inference: Child, loader: Child) -> Result<(), Failure> {
    inference.stop(STOP_PATIENCE).await?;
    loader.stop(STOP_PATIENCE).await
}

/// What the three runs share.
struct Stage<'a> {
    demo: &'a Demo,
    loader: Plan,
    inference: Plan,
    stdout: Stream,
}

impl<'a> Stage<'a> {
    fn new(demo: &'a Demo, place: &Place) -> Stage<'a> {
        let loader_socket = place.socket("loader.sock");
        let listen = Address::Unix(place.socket("inference.sock"));
        let log = |name: &str| Log::File(place.socket(name));
        let loader = Plan {
            peer: Peer::Loader,
            args: vec![
                format!("--models={}", place.models_dir().display()),
                format!("--socket={}", loader_socket.display()),
            ],
            address: Address::Unix(loader_socket.clone()),
            log: log("loader.log"),
            private: true,
        };
        let inference = Plan {
            peer: Peer::Inference,
            args: vec![
                format!("--listen={listen}"),
                format!("--loader-socket={}", loader_socket.display()),
                format!("--device={}", demo.device),
            ],
            address: listen,
            log: log("inference.log"),
            private: true,
        };
        Stage {
            demo,
            loader,
            inference,
            stdout: output::stdout(),
        }
    }

    fn introduce(&mut self, place: &Place) -> Result<(), Failure> {
        let style = self.stdout.style;
        let size = units::bytes(MODEL.len() as u64);
        self.stdout.line(format!(
            "{} {size}, unpacked to {}",
            style.bold("model"),
            place.model().display()
        ))?;
        self.stdout.line(format!(
            "{} {}",
            style.bold("prompt"),
            output::one_line(&self.demo.prompt)
        ))?;
        Ok(())
    }

    fn title(&mut self, text: &str) -> Result<(), Failure> {
        let title = self.stdout.style.bold(text);
        self.stdout.line("")?;
        self.stdout.line(title)?;
        Ok(())
    }

    /// Streams one completion and measures it.
    async fn run(&mut self, name: &'static str) -> Result<Run, Failure> {
        let address = InferenceAddress {
            server: self.inference.address.clone(),
        };
        let mut client = address.inference().await?;
        let mut measured = Measured::default();
        let asked = Instant::now();
        let events = client.generate(self.demo.request()).await;
        let mut events = events.map_err(Failure::rpc("generate"))?.into_inner();
        let dim_prompt = self.stdout.style.dim(&output::one_line(&self.demo.prompt));
        self.stdout.text(&dim_prompt)?;
        while let Some(response) = events
            .message()
            .await
            .map_err(Failure::rpc("go on generating"))?
        {
            let before = measured.text.len();
            if let Some(event) = response.event {
                measured.see(&event, asked.elapsed());
            }
            self.stdout.foreign(&measured.text[before..])?;
        }
        self.stdout.line("")?;
        if measured.finished.is_none() {
            return Err(unfinished());
        }
        let request = GetModelRequest {
            model: MODEL_NAME.to_owned(),
        };
        let model = address.models().await?.get_model(request).await;
        let model = model
            .map_err(Failure::rpc("show the model"))?
            .into_inner()
            .model
            .unwrap_or_default();
        Ok(Run::new(name, measured, &model))
    }
}

/// How much of the model is in the page cache, as far as the daemon can know.
enum Residency {
    Known {
        resident_bytes: u64,
        total_bytes: u64,
    },
    Unknown {
        reason: String,
    },
}

async fn residency(place: &Place) -> Result<Residency, Failure> {
    let mut client = address::loader(place.socket("loader.sock")).await?;
    let request = GetResidencyRequest {
        model: MODEL_NAME.to_owned(),
    };
    match client
        .get_residency(request)
        .await
        .map(tonic::Response::into_inner)
    {
        Ok(answer) => Ok(Residency::Known {
            resident_bytes: answer.resident_bytes,
            total_bytes: answer.total_bytes,
        }),
        Err(status) if status.code() == Code::FailedPrecondition => Ok(Residency::Unknown {
            reason: output::one_line(status.message()),
        }),
        Err(status) => Err(Failure::rpc("ask for residency")(status)),
    }
}

impl Residency {
    fn words(&self) -> String {
        match self {
            Residency::Known {
                resident_bytes,
                total_bytes,
            } => {
                format!(
                    "{} of {} in the page cache",
                    units::bytes(*resident_bytes),
                    units::bytes(*total_bytes)
                )
            }
            Residency::Unknown { .. } => "the page cache was told to forget the file".to_owned(),
        }
    }

    /// What the table has to say about a file that would not go cold.
    fn note(&self) -> Option<String> {
        match self {
            Residency::Known {
                resident_bytes: 0, ..
            } => None,
            Residency::Known {
                resident_bytes,
                total_bytes,
            } if resident_bytes < total_bytes => Some(format!(
                "{} stayed in the page cache when the file was dropped from it",
                units::bytes(*resident_bytes)
            )),
            Residency::Known { .. } => Some(
                "dropping the file from the page cache has no effect on this file system"
                    .to_owned(),
            ),
            Residency::Unknown { reason } => {
                Some(format!("whether the file was cold is not known: {reason}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_would_not_go_cold_is_noted() {
        let known = |resident_bytes| Residency::Known {
            resident_bytes,
            total_bytes: 4096,
        };
        assert_eq!(known(0).note(), None);
        assert_eq!(known(0).words(), "0 B of 4.0 KiB in the page cache");
        assert_eq!(
            known(1024).note().as_deref(),
            Some("1.0 KiB stayed in the page cache when the file was dropped from it")
        );
        assert!(
            known(4096)
                .note()
                .is_some_and(|note| note.contains("no effect"))
        );
        let unknown = Residency::Unknown {
            reason: "FUSE".to_owned(),
        };
        assert!(unknown.note().is_some_and(|note| note.ends_with("FUSE")));
    }
}
