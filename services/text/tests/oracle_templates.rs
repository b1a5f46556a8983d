//! Chat templates of published models against what Hugging Face's renderer makes of them.
//!
//! `HEARTH_ORACLE` names the folder that holds `manifest.open.json` and what it lists. The number of checks comes from the manifest, so that a test which silently checks less fails.

use std::path::PathBuf;
use std::{env, fs};

use gguf::{Array, Metadata, Value};
use serde::Deserialize;
use serde_json::value::RawValue;
use text::Tokenizer;
use text::chat::{ChatError, ChatTemplates, Conversation, Json};

#[derive(Deserialize)]
struct Manifest {
    cases: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    id: String,
    kind: String,
    template: Option<String>,
    cases: Option<String>,
    n_cases: Option<usize>,
    n_errors: Option<usize>,
}

#[derive(Deserialize)]
struct Cases {
    now: String,
    cases: Vec<Case>,
}

/// Messages, tools and variables stay text until our own reader takes them: their keys have an order.
#[derive(Deserialize)]
struct Case {
    id: String,
    messages: Box<RawValue>,
    tools: Option<Box<RawValue>>,
    add_generation_prompt: bool,
    kwargs: Box<RawValue>,
    expected: Option<String>,
    expected_error: Option<String>,
}

fn read(name: &str) -> String {
    let root: PathBuf = env::var_os("HEARTH_ORACLE")
        .expect("HEARTH_ORACLE names the folder of the oracle files")
        .into();
    let path = root.join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn json(text: &RawValue) -> Json {
    Json::parse(text.get()).expect("the reference is JSON")
}

impl Case {
    fn conversation(&self) -> Conversation {
        Conversation {
            messages: json(&self.messages)
                .into_items()
                .expect("messages are a list"),
            tools: self.tools.as_deref().map(json),
            variables: json(&self.kwargs)
                .into_entries()
                .expect("variables are an object"),
            add_generation_prompt: self.add_generation_prompt,
        }
    }

    /// What is wrong with an outcome.
    fn complaint(&self, outcome: &Result<String, ChatError>) -> Option<String> {
        let Case {
            expected,
            expected_error,
            ..
        } = self;
        match (expected, expected_error, outcome) {
            (Some(expected), None, Ok(found)) if expected == found => None,
            (None, Some(error), Err(ChatError::Refused { message })) => {
                // Only the template's own refusals have words that are to be the same.
                let own = error.strip_prefix("TemplateError: ");
                own.filter(|own| own != message)
                    .map(|own| format!("refused with {message:?} instead of {own:?}"))
            }
            (None, Some(error), Err(ChatError::Failed { .. })) => error
                .strip_prefix("TemplateError: ")
                .map(|own| format!("failed instead of refusing with {own:?}")),
            _ => Some(format!(
                "expected {expected:?} or {expected_error:?},\n   found {outcome:?}"
            )),
        }
    }
}

/// A vocabulary that provides no variables: the cases name their own.
fn bare_tokenizer() -> Tokenizer {
    let strings = |items: &[&str]| Value::Array(Array::String(items.iter().collect()));
    let metadata: Metadata = [
        ("tokenizer.ggml.model", "gpt2".into()),
        ("tokenizer.ggml.pre", "gpt-2".into()),
        ("tokenizer.ggml.tokens", strings(&["a"])),
        ("tokenizer.ggml.merges", strings(&[])),
    ]
    .into_iter()
    .collect();
    Tokenizer::from_metadata(&metadata).expect("a small vocabulary")
}

#[test]
fn templates_render_as_their_reference() {
    let manifest: Manifest =
        serde_json::from_str(&read("manifest.open.json")).expect("the manifest is JSON");
    let tokenizer = bare_tokenizer();
    let mut complaints = Vec::new();
    let mut n_templates = 0;
    for listed in manifest.cases.iter().filter(|case| case.kind == "template") {
        n_templates += 1;
        let source = read(listed.template.as_deref().expect("a template file"));
        let metadata: Metadata = [("tokenizer.chat_template", Value::from(source.as_str()))]
            .into_iter()
            .collect();
        let templates = ChatTemplates::from_metadata(&metadata);
        let cases = read(listed.cases.as_deref().expect("a file of cases"));
        let cases: Cases = serde_json::from_str(&cases).expect("cases are JSON");
        let now = cases.now.parse().expect("a date and time");
        let n_errors = cases
            .cases
            .iter()
            .filter(|case| case.expected_error.is_some());
        assert_eq!(
            (Some(cases.cases.len()), Some(n_errors.count())),
            (listed.n_cases, listed.n_errors),
            "{}",
            listed.id
        );
        for case in &cases.cases {
            let outcome = templates.render(&case.conversation(), &tokenizer, now);
            let complaint = case.complaint(&outcome);
            complaints.extend(
                complaint.map(|complaint| format!("{} {}: {complaint}", listed.id, case.id)),
            );
        }
        println!("{}: {} cases", listed.id, cases.cases.len());
    }
    assert!(n_templates > 0, "the manifest lists no template");
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}
