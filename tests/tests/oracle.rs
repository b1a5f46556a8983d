//! The engine against independent references, through the processes that users run: token ids in, log-probabilities out.
//!
//! Runs by `just oracle`, with `HEARTH_ORACLE` set; it fails where the references are missing.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use e2e::client::{self, Completion};
use e2e::node::{Daemon, Launch, Service, workspace};
use e2e::oracle::{Case, Expected, Oracle, Tolerance};
use proto::inference::v1::inference_service_client::InferenceServiceClient;
use proto::inference::v1::{LoadModelRequest, OutputOptions, TokenizeRequest};
use serde::Deserialize;
use tonic::transport::Channel;

/// Most likely tokens asked for at every position.
const TOP_N: u32 = 20;

/// The cases that this build serves: every model, and every quantised file but those of a type that is refused by name. What is not is named when the tests run, never passed over in silence.
fn in_scope(case: &Case) -> bool {
    const REFUSED: [&str; 1] = ["quants/llama-IQ3_S"];
    !REFUSED.contains(&case.id.as_str())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reference_device_agrees_in_class_f32() -> Result<()> {
    agree(&["--device", "reference"], |_| "f32").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn default_device_agrees_in_each_files_default_class() -> Result<()> {
    agree(&["--device", "auto", "--kv-type", "f32"], |case| {
        &case.default_class
    })
    .await
}

/// Keys and values are kept as f16 unless somebody asks for more: what else is f32 is held to the class of that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn default_device_agrees_with_keys_and_values_in_f16() -> Result<()> {
    agree(&["--device", "auto"], |case| {
        if case.default_class == "f32" {
            "f16"
        } else {
            &case.default_class
        }
    })
    .await
}

/// Compares every case in scope, then alters one reference and demands that the comparison fails.
async fn agree(flags: &[&str], class: fn(&Case) -> &str) -> Result<()> {
    let oracle = Oracle::from_env()?;
    let device = flags.join(" ");
    let logits = oracle.cases.iter().filter(|case| case.kind == "logits");
    let (cases, out_of_scope): (Vec<&Case>, Vec<&Case>) = logits.partition(|case| in_scope(case));
    for case in &out_of_scope {
        println!("{device:>9} {:<20} out of scope", case.id);
    }
    let home = workspace();
    let daemon = Daemon::start(home.path(), &oracle.root, &Launch::new()).await;
    let service = Service::start(
        home.path(),
        "inference",
        &daemon,
        &Launch::new().flags(flags),
    )
    .await;
    let mut client = service.client().await;

    let mut positions = BTreeMap::new();
    let mut wanted = BTreeMap::new();
    let mut problems = Vec::new();
    for case in &cases {
        let tolerance = case
            .tolerance
            .get(class(case))
            .with_context(|| format!("{}: no class {}", case.id, class(case)))?;
        let answers = match answers(&mut client, case).await {
            Ok(answers) => answers,
            Err(error) => {
                problems.push(format!("{error:#}"));
                continue;
            }
        };
        let (expected, findings) = closest(case, tolerance, oracle.expected(case)?, &answers)?;
        println!("{device:>9} {:<20} {:<5} {findings}", case.id, class(case));
        let found = findings.problems.iter();
        problems.extend(found.map(|problem| format!("{}: {problem}", case.id)));
        positions.insert(case.id.clone(), findings.positions);
        let stored: Result<usize> = case
            .prompts
            .keys()
            .map(|prompt| Ok(expected.values(&format!("{prompt}.positions"))?.len()))
            .sum();
        wanted.insert(case.id.clone(), stored?);

        let altered = altered(case, &expected, tolerance)?;
        ensure!(
            !compare(case, tolerance, &altered, &answers)?
                .problems
                .is_empty(),
            "{}: an altered reference passed",
            case.id
        );
    }
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    let n_announced = oracle
        .cases
        .iter()
        .filter(|case| case.kind == "logits")
        .count();
    ensure!(
        positions.len() + out_of_scope.len() == n_announced,
        "{} of {n_announced} files were checked, {} are out of scope",
        positions.len(),
        out_of_scope.len()
    );
    ensure!(
        positions == wanted,
        "positions checked {positions:?}, stored in the references {wanted:?}"
    );
    Ok(())
}

/// The reading of the file that the answers fit best.
fn closest(
    case: &Case,
    tolerance: &Tolerance,
    readings: Vec<Expected>,
    answers: &BTreeMap<String, Completion>,
) -> Result<(Expected, Findings)> {
    let mut best: Option<(Expected, Findings)> = None;
    for expected in readings {
        let findings = compare(case, tolerance, &expected, answers)?;
        if best
            .as_ref()
            .is_none_or(|(_, best)| findings.problems.len() < best.problems.len())
        {
            best = Some((expected, findings));
        }
    }
    best.context("no expectations")
}

/// A sentence in each model's own tokenizer, through the service.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentences_become_the_tokens_of_each_model() -> Result<()> {
    let oracle = Oracle::from_env()?;
    let home = workspace();
    let daemon = Daemon::start(home.path(), &oracle.root, &Launch::new()).await;
    let flags = ["--device", "reference"];
    let service = Service::start(
        home.path(),
        "inference",
        &daemon,
        &Launch::new().flags(flags),
    )
    .await;
    let mut client = service.client().await;
    let (mut checked, mut announced) = (0, 0);
    for case in oracle.cases.iter().filter(|case| case.kind == "logits") {
        announced += usize::from(case.p0_text_tokenises_to_p0_tokens);
        for prompt in case.prompts.values() {
            let Some(text) = &prompt.text else {
                continue;
            };
            let request = TokenizeRequest {
                model: case.file.trim_end_matches(".gguf").to_owned(),
                text: text.clone(),
                ..TokenizeRequest::default()
            };
            let ids = client.tokenize(request).await?.into_inner().ids;
            ensure!(
                ids == prompt.tokens,
                "{}: {ids:?} is not {:?}",
                case.id,
                prompt.tokens
            );
            checked += 1;
        }
    }
    ensure!(
        checked == announced && checked > 0,
        "{checked} sentences of {announced}"
    );
    Ok(())
}

/// One logit of the strictest prompt moved by three times the tolerance.
fn altered(case: &Case, expected: &Expected, tolerance: &Tolerance) -> Result<Expected> {
    let mut altered = expected.clone();
    let logits = altered.values_mut("p2.logits")?;
    let last = logits.len() - case.n_vocab;
    let best = (0..case.n_vocab)
        .max_by(|a, b| logits[last + a].total_cmp(&logits[last + b]))
        .context("an empty vocabulary")?;
    logits[last + best] += 3.0 * tolerance.max_abs as f32;
    Ok(altered)
}

/// What the service says of every prompt of a case.
async fn answers(
    client: &mut InferenceServiceClient<Channel>,
    case: &Case,
) -> Result<BTreeMap<String, Completion>> {
    let mut answers = BTreeMap::new();
    let model = case.file.trim_end_matches(".gguf");
    for (name, prompt) in &case.prompts {
        let mut request = client::greedy(
            model,
            &prompt.tokens,
            u32::try_from(prompt.greedy.as_ref().map_or(1, Vec::len))?,
        );
        request.output = Some(OutputOptions {
            logprobs: Some(TOP_N),
            prompt_logprobs: Some(TOP_N),
        });
        let completion = client::generate(client, request)
            .await
            .with_context(|| format!("{} {name}", case.id))?;
        answers.insert(name.clone(), completion);
    }
    Ok(answers)
}

#[derive(Debug, Default)]
struct Findings {
    positions: usize,
    max_abs: f64,
    problems: Vec<String>,
}

impl std::fmt::Display for Findings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:>4} positions, largest difference {:.2e}",
            self.positions, self.max_abs
        )
    }
}

/// Holds every stored position and every greedy continuation against the references.
fn compare(
    case: &Case,
    tolerance: &Tolerance,
    expected: &Expected,
    answers: &BTreeMap<String, Completion>,
) -> Result<Findings> {
    let mut findings = Findings::default();
    for (name, prompt) in &case.prompts {
        let answer = answers.get(name).context("every prompt has an answer")?;
        compare_positions(case, tolerance, name, expected, answer, &mut findings)?;
        let Some(greedy) = &prompt.greedy else {
            continue;
        };
        let margins = expected.values(&format!("{name}.greedy_margin"))?;
        let clear = margins
            .iter()
            .take_while(|margin| f64::from(**margin) > 2.0 * tolerance.max_abs)
            .count();
        if answer.ids()[..clear] != greedy[..clear] {
            findings.problems.push(format!(
                "{name}: greedy differs within its {clear} clear steps"
            ));
        }
    }
    Ok(findings)
}

fn compare_positions(
    case: &Case,
    tolerance: &Tolerance,
    name: &str,
    expected: &Expected,
    answer: &Completion,
    findings: &mut Findings,
) -> Result<()> {
    let logits = expected.values(&format!("{name}.logits"))?;
    let positions = expected.values(&format!("{name}.positions"))?;
    let mut differences = Vec::new();
    let (mut divergence, mut agreed) = (0.0, 0.0);
    for (row, position) in logits.chunks_exact(case.n_vocab).zip(positions) {
        let wanted = log_softmax(row);
        let got = distribution_after(answer, *position as usize)?;
        ensure!(
            got.len() == TOP_N as usize,
            "{name}: position {position} reports {} tokens",
            got.len()
        );
        divergence += got
            .iter()
            .map(|(id, logprob)| wanted[*id].exp() * (wanted[*id] - logprob))
            .sum::<f64>();
        differences.extend(
            got.iter()
                .map(|(id, logprob)| (wanted[*id] - logprob).abs()),
        );

        let mut ranked: Vec<usize> = (0..case.n_vocab).collect();
        ranked.sort_by(|a, b| wanted[*b].total_cmp(&wanted[*a]));
        let gap = wanted[ranked[0]] - wanted[ranked[1]];
        let same = got[0].0 == ranked[0];
        agreed += f64::from(u8::from(same));
        if !same && gap > 2.0 * tolerance.max_abs && tolerance.is_strict_for(name) {
            findings.problems.push(format!(
                "{name}: position {position} prefers token {} over {} by a gap of {gap}",
                got[0].0, ranked[0]
            ));
        }
        findings.positions += 1;
    }
    let count = positions.len() as f64;
    let max = differences.iter().copied().fold(0.0, f64::max);
    let mean = differences.iter().sum::<f64>() / differences.len() as f64;
    let mut demand = |what: &str, holds: bool| {
        if !holds {
            findings.problems.push(format!("{name}: {what}"))
        }
    };
    if tolerance.is_strict_for(name) {
        demand(
            &format!("largest difference {max}"),
            max <= tolerance.max_abs,
        );
        demand(
            &format!("mean difference {mean}"),
            tolerance.mean_abs.is_none_or(|limit| mean <= limit),
        );
        demand(
            &format!("divergence {}", divergence / count),
            tolerance
                .mean_kl
                .is_none_or(|limit| divergence / count <= limit),
        );
        demand(
            &format!("top-1 rate {}", agreed / count),
            tolerance
                .top1_rate
                .is_none_or(|limit| agreed / count >= limit),
        );
        findings.max_abs = findings.max_abs.max(max);
    } else {
        differences.sort_by(f64::total_cmp);
        let median = differences[differences.len() / 2];
        demand(
            &format!("median difference {median}"),
            median <= 3.0 * tolerance.mean_abs.unwrap_or(tolerance.max_abs),
        );
    }
    Ok(())
}

/// The reported distribution of the token after `position`: the score of the next prompt token, or of the first output token.
fn distribution_after(answer: &Completion, position: usize) -> Result<Vec<(usize, f64)>> {
    let scores = &answer
        .prefilled
        .as_ref()
        .context("no `prefilled`")?
        .prompt_logprobs;
    let top = match scores.get(position + 1) {
        Some(score) => &score.top,
        None => &answer.tokens.first().context("no output token")?.top,
    };
    Ok(top
        .iter()
        .map(|token| (token.id as usize, f64::from(token.logprob)))
        .collect())
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits
        .iter()
        .map(|logit| f64::from(logit - max).exp())
        .sum();
    logits
        .iter()
        .map(|logit| f64::from(logit - max) - sum.ln())
        .collect()
}

/// What must happen with a broken or odd file.
#[derive(Debug, Deserialize)]
struct Malformed {
    id: String,
    file: String,
    expect: String,
    #[serde(default)]
    mention: Vec<String>,
    logits_as: Option<String>,
    #[serde(default)]
    probe_tokens: Vec<u32>,
    /// Expected logits after `probe_tokens`.
    #[serde(default)]
    logits_last: Vec<f32>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_files_are_refused_and_odd_ones_answer() -> Result<()> {
    let oracle = Oracle::from_env()?;
    let announced = oracle
        .cases
        .iter()
        .find(|case| case.kind == "malformed")
        .context("the manifest names no malformed files")?;
    let cases: Vec<Malformed> =
        serde_json::from_slice(&std::fs::read(oracle.root.join(&announced.cases))?)?;
    ensure!(
        cases.len() == announced.n_cases,
        "{} files are listed, {} announced",
        cases.len(),
        announced.n_cases
    );
    let probe = cases
        .iter()
        .map(|case| case.probe_tokens.as_slice())
        .find(|tokens| !tokens.is_empty())
        .context("no probe tokens")?;
    let home = workspace();
    let models = oracle.root.join("malformed");
    let daemon = Daemon::start(home.path(), &models, &Launch::new()).await;
    let mut service = Service::start(
        home.path(),
        "inference",
        &daemon,
        &Launch::new().flags(["--device", "reference"]),
    )
    .await;

    let mut problems = Vec::new();
    let mut outputs = BTreeMap::new();
    for case in &cases {
        let model = Path::new(&case.file)
            .strip_prefix("malformed")
            .unwrap_or(Path::new(&case.file))
            .with_extension("");
        let model = model.to_str().context("names are UTF-8")?;
        let outcome = try_file(&service, model, probe).await;
        ensure!(
            service.process.alive(),
            "{}: the service died\n{}",
            case.id,
            service.process.log()
        );
        match (case.expect.as_str(), &outcome) {
            ("reject", Ok(_)) => problems.push(format!("{}: was accepted", case.id)),
            ("reject", Err(message)) if !mentions(message, &case.mention) => {
                problems.push(format!("{}: {message}", case.id))
            }
            ("accept", Err(message)) => {
                problems.push(format!("{}: was refused: {message}", case.id))
            }
            _ => {}
        }
        if let Ok(completion) = outcome {
            outputs.insert(case.id.clone(), completion);
        }
    }
    for case in &cases {
        let same = case.logits_as.as_ref().unwrap_or(&case.id);
        let reference = cases
            .iter()
            .find(|case| case.id == *same)
            .context("`logits_as` names a case")?;
        if let Some(completion) = outputs.get(&case.id)
            && !reference.logits_last.is_empty()
        {
            let wanted = log_softmax(&reference.logits_last);
            let got = distribution_after(completion, probe.len() - 1)?;
            let worst = got
                .iter()
                .map(|(id, logprob)| (wanted[*id] - logprob).abs())
                .fold(0.0, f64::max);
            if worst > 1e-3 || got.is_empty() {
                problems.push(format!(
                    "{}: differs from the logits of {same} by {worst}",
                    case.id
                ));
            }
        }
    }
    println!("{} files, {} served", cases.len(), outputs.len());
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(())
}

fn mentions(message: &str, words: &[String]) -> bool {
    let message = message.to_lowercase();
    words
        .iter()
        .any(|word| message.contains(&word.to_lowercase()))
}

/// Loads a file and generates a few tokens. The error is the message that a user sees.
async fn try_file(service: &Service, model: &str, probe: &[u32]) -> Result<Completion, String> {
    let load = LoadModelRequest {
        model: model.to_owned(),
        ..LoadModelRequest::default()
    };
    let mut progress = service
        .models()
        .await
        .load_model(load)
        .await
        .map_err(|status| status.message().to_owned())?
        .into_inner();
    while progress
        .message()
        .await
        .map_err(|status| status.message().to_owned())?
        .is_some()
    {}
    let mut request = client::greedy(model, probe, 4);
    request.output = Some(OutputOptions {
        logprobs: Some(TOP_N),
        ..OutputOptions::default()
    });
    client::generate(&mut service.client().await, request)
        .await
        .map_err(|status| status.message().to_owned())
}
