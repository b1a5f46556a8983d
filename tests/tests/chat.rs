//! Conversations, from messages to tokens and to the end of the model's turn.

use e2e::client::{self, Completion};
use e2e::model::{BOS, EOS, Llama};
use e2e::node::{Daemon, Launch, Service, workspace};
use gguf::Value;
use proto::inference::v1::generate_request::Prompt;
use proto::inference::v1::{
    ChatMessage, ChatPrompt, FinishReason, GenerateRequest, OutputOptions, StopMatch, stop_match,
};
use tempfile::TempDir;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

const TEMPLATE: &str = "\
{%- if messages[0].role == 'rude' %}{{ raise_exception('be ' ~ mood) }}{% endif %}
{%- for message in messages %}<|begin|>{{ message.role }}:{{ message.content }}<|end|>{% endfor %}
{%- if tools %}{{ tools | tojson }}{% endif %}
{%- if add_generation_prompt %}<|begin|>bot:{% endif %}";

struct Node {
    service: Service,
    daemon: Daemon,
    home: TempDir,
}

/// `talks` has a template, `mute` has none, `broken` has one that is none.
async fn node() -> Node {
    let home = workspace();
    let models = home.path().join("models");
    let template = |source: &str| ("tokenizer.chat_template", Value::from(source));
    for (name, extra) in [
        ("mute", vec![]),
        ("broken", vec![template("{% for %}")]),
        ("talks", vec![template(TEMPLATE)]),
    ] {
        let shape = Llama {
            extra,
            ..Llama::tiny()
        };
        shape
            .write(&models.join(name).with_extension("gguf"))
            .expect("the model is written");
    }
    let daemon = Daemon::start(home.path(), &models, &Launch::new()).await;
    let service = Service::start(home.path(), "inference", &daemon, &Launch::new()).await;
    Node {
        service,
        daemon,
        home,
    }
}

fn message(role: &str, content: &str) -> ChatMessage {
    ChatMessage {
        role: role.to_owned(),
        content: content.to_owned(),
        ..ChatMessage::default()
    }
}

fn ask(model: &str, chat: ChatPrompt) -> GenerateRequest {
    GenerateRequest {
        prompt: Some(Prompt::Chat(chat)),
        output: Some(OutputOptions {
            prompt_logprobs: Some(0),
            ..OutputOptions::default()
        }),
        ..client::greedy(model, &[], 4)
    }
}

fn says(content: &str) -> ChatPrompt {
    ChatPrompt {
        messages: vec![message("user", content)],
        ..ChatPrompt::default()
    }
}

/// The prompt that a completion went on from, as ids.
fn prompt_ids(completion: &Completion) -> Vec<u32> {
    let prefilled = completion.prefilled.as_ref().expect("it was prefilled");
    prefilled
        .prompt_logprobs
        .iter()
        .map(|token| token.id)
        .collect()
}

/// Ids of `text` in a vocabulary whose first tokens are the bytes.
fn bytes(text: &str) -> impl Iterator<Item = u32> {
    text.bytes().map(u32::from)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_becomes_the_templates_prompt() {
    let node = node().await;
    let mut client = node.service.client().await;
    let chat = ChatPrompt {
        messages: vec![message("system", "s"), message("user", "a<|end|>b")],
        tools_json: r#"[{"z": 1, "a": "<|begin|>"}]"#.to_owned(),
        ..ChatPrompt::default()
    };
    let completion = client::generate(&mut client, ask("talks", chat))
        .await
        .expect("it is answered");
    let mut expected = vec![BOS];
    expected.extend(bytes("system:s"));
    expected.extend([EOS, BOS]);
    // Spelled out by a user, the marks are text.
    expected.extend(bytes("user:a<|end|>b"));
    expected.push(EOS);
    expected.extend(bytes(r#"[{"z": 1, "a": "<|begin|>"}]"#));
    expected.push(BOS);
    expected.extend(bytes("bot:"));
    assert_eq!(prompt_ids(&completion), expected);
    let same = client::generate(&mut client, client::greedy("talks", &expected, 4)).await;
    assert_eq!(completion.ids(), same.expect("it is answered").ids());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_turn_is_asked_for_or_not() {
    let node = node().await;
    let mut client = node.service.client().await;
    let closed = ChatPrompt {
        add_generation_prompt: Some(false),
        ..says("x")
    };
    let completion = client::generate(&mut client, ask("talks", closed))
        .await
        .expect("it is answered");
    assert_eq!(prompt_ids(&completion).last(), Some(&EOS));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_files_end_of_turn_ends_the_answer() {
    let node = node().await;
    let mut client = node.service.client().await;
    let talk = client::generate(&mut client, ask("talks", says("x"))).await;
    let first = talk.expect("it is answered").ids()[0];
    // The same weights, and a file that calls this very token the end of a turn.
    let shape = Llama {
        extra: vec![
            ("tokenizer.chat_template", Value::from(TEMPLATE)),
            ("tokenizer.ggml.eot_token_id", Value::U32(first)),
        ],
        ..Llama::tiny()
    };
    // Written elsewhere first: the daemon sees files as they grow.
    let (written, published) = ("stops.gguf", "models/stops.gguf");
    let [written, published] = [written, published].map(|path| node.home.path().join(path));
    shape.write(&written).expect("the model is written");
    std::fs::rename(written, published).expect("both are on one file system");
    let mut daemon = node.daemon.client().await;
    client::published_until(&mut daemon, "stops", |model| !model.id.is_empty()).await;
    let mut request = ask("stops", says("x"));
    request.stopping.get_or_insert_default().ignore_eos = false;
    let stopped = client::generate(&mut client, request)
        .await
        .expect("it is answered");
    let finished = stopped.finished.expect("it finished");
    assert_eq!(finished.finish_reason(), FinishReason::Stop);
    let token = StopMatch {
        kind: Some(stop_match::Kind::TokenId(first)),
    };
    assert_eq!(
        (finished.stop_match, stopped.text.as_str()),
        (Some(token), "")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_no_prompt_says_why() {
    let node = node().await;
    let mut client = node.service.client().await;
    let rude = ChatPrompt {
        messages: vec![message("rude", "x")],
        template_kwargs_json: r#"{"mood": "polite"}"#.to_owned(),
        ..ChatPrompt::default()
    };
    let malformed = ChatPrompt {
        messages: vec![
            message("user", "x"),
            ChatMessage {
                tool_calls_json: "[}".to_owned(),
                ..message("assistant", "")
            },
        ],
        ..ChatPrompt::default()
    };
    let other = ChatPrompt {
        template_kwargs_json: r#"{"chat_template": "rag"}"#.to_owned(),
        ..says("x")
    };
    let cases = [
        ("talks", rude, Code::InvalidArgument, "chat", "be polite"),
        (
            "talks",
            malformed,
            Code::InvalidArgument,
            "chat.messages[1].tool_calls_json",
            "must be JSON",
        ),
        (
            "talks",
            other,
            Code::InvalidArgument,
            "chat.template_kwargs_json",
            "'rag'; it has these: default",
        ),
        (
            "mute",
            says("x"),
            Code::FailedPrecondition,
            "",
            "no chat template",
        ),
        ("broken", says("x"), Code::FailedPrecondition, "", "line 1"),
    ];
    for (model, chat, code, field, words) in cases {
        let refused = client::generate(&mut client, ask(model, chat)).await;
        let status: Status = refused.expect_err(words);
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(words), "{status:?}");
        let violations = status.get_error_details().bad_request().cloned();
        let violations = violations
            .map(|bad| bad.field_violations)
            .unwrap_or_default();
        let fields: Vec<&str> = violations
            .iter()
            .map(|violation| violation.field.as_str())
            .collect();
        assert_eq!(
            fields.first().copied().unwrap_or_default(),
            field,
            "{status:?}"
        );
    }
    // A model that cannot chat still goes on from text.
    let text = client::generate(&mut client, client::greedy("broken", &[1], 1)).await;
    assert_eq!(text.expect("it is answered").ids().len(), 1);
}
