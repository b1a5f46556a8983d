//! `hearth bench`: how fast a model reads prompts and writes answers, as a client of the service sees it.

mod measure;
mod report;

use clap::Args;
use proto::inference::v1::{
    GetModelRequest, GetModelResponse, ListModelsRequest, LoadMode, LoadModelRequest, Model,
    ModelState, model_service_client::ModelServiceClient,
};
use tonic::transport::Channel;

use crate::{
    address::InferenceAddress,
    failure::Failure,
    output::{self, one_line},
    progress::Steps,
};
use measure::{Run, Task};
use report::{Report, Row, WarmUp};

/// Flags of `hearth bench`.
#[derive(Args, Debug)]
pub(crate) struct Bench {
    /// Model to measure; may be left out when there is only one
    #[arg(
        short,
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    model: String,
    /// Tokens of every prompt
    #[arg(short, long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    prompt_tokens: u32,
    /// Tokens of every answer
    #[arg(short = 'n', long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(2..))]
    max_tokens: u32,
    /// How many streams run at once; several numbers are measured one after the other
    #[arg(short, long, value_name = "N,…", default_value = "1", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=4096))]
    streams: Vec<u32>,
    /// Runs with each number of streams
    #[arg(short, long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    repeats: u32,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    address: InferenceAddress,
}

impl Bench {
    /// Measures and reports.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let mut models = self.address.models().await?;
        let GetModelResponse { model, device } = self.attach(&mut models).await?;
        let (model, device) = (model.unwrap_or_default(), device.unwrap_or_default());
        let task = self.task(&model)?;
        let client = self.address.inference().await?;
        let mut serial = 0;
        let rounds = u64::from(self.repeats) * self.streams.len() as u64;
        let mut steps = Steps::new(rounds + 1);
        let warm_up = measure::run(&client, &task, 1, &mut serial).await?;
        steps.done();
        let mut report = Report::new(&model, &device, WarmUp::new(&warm_up)).asked(
            self.prompt_tokens,
            self.max_tokens,
            self.repeats,
        );
        for &streams in &self.streams {
            let mut runs: Vec<Run> = Vec::new();
            for _ in 0..self.repeats {
                runs.push(measure::run(&client, &task, streams, &mut serial).await?);
                steps.done();
            }
            report.add(Row::new(streams, &runs));
        }
        steps.clear();
        let mut stdout = output::stdout();
        if self.json {
            return Ok(stdout.json(&report)?);
        }
        for line in report.lines(stdout.style) {
            stdout.line(line)?;
        }
        Ok(())
    }

    /// The model, attached: only then its vocabulary and context are known.
    async fn attach(
        &self,
        models: &mut ModelServiceClient<Channel>,
    ) -> Result<GetModelResponse, Failure> {
        let model = match self.model.as_str() {
            "" => only_one(models).await?,
            name => name.to_owned(),
        };
        let doing = "attach the model";
        let request = LoadModelRequest {
            model: model.clone(),
            mode: LoadMode::Lazy.into(),
            ..LoadModelRequest::default()
        };
        let progress = models.load_model(request).await;
        let mut progress = progress.map_err(Failure::rpc(doing))?.into_inner();
        while progress
            .message()
            .await
            .map_err(Failure::rpc(doing))?
            .is_some()
        {}
        let answer = models.get_model(GetModelRequest { model }).await;
        Ok(answer.map_err(Failure::rpc("show the model"))?.into_inner())
    }

    fn task(&self, model: &Model) -> Result<Task, Failure> {
        let wanted = u64::from(self.prompt_tokens) + u64::from(self.max_tokens);
        if wanted > u64::from(model.context_length) {
            return Err(Failure::Usage(format!(
                "{} prompt tokens and {} output tokens are more than the {} of {}'s context: lower --prompt-tokens or --max-tokens",
                self.prompt_tokens,
                self.max_tokens,
                model.context_length,
                one_line(&model.id)
            )));
        }
        Ok(Task {
            model: model.id.clone(),
            n_vocab: model.n_vocab,
            prompt_tokens: self.prompt_tokens,
            max_tokens: self.max_tokens,
        })
    }
}

/// The only attached model, or else the only one there is.
async fn only_one(models: &mut ModelServiceClient<Channel>) -> Result<String, Failure> {
    let answer = models.list_models(ListModelsRequest {}).await;
    let answer = answer
        .map_err(Failure::rpc("list the models"))?
        .into_inner();
    let usable = |model: &&Model| model.state() != ModelState::Invalid;
    let usable: Vec<&Model> = answer.models.iter().filter(usable).collect();
    let is_attached = |model: &&&Model| {
        matches!(
            model.state(),
            ModelState::Attached | ModelState::Resident | ModelState::Attaching
        )
    };
    let attached: Vec<&&Model> = usable.iter().filter(is_attached).collect();
    match (attached.as_slice(), usable.as_slice()) {
        ([model], _) => Ok(model.id.clone()),
        ([], [model]) => Ok(model.id.clone()),
        (_, []) => Err(Failure::Usage(
            "there is no model to measure: `hearth models` says why".to_owned(),
        )),
        (_, several) => {
            let names: Vec<String> = several
                .iter()
                .take(8)
                .map(|model| one_line(&model.id))
                .collect();
            Err(Failure::Usage(format!(
                "say which model with -m: {}",
                names.join(", ")
            )))
        }
    }
}
