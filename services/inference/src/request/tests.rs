use proto::inference::v1::{
    ChatMessage, ChatPrompt, LogitBias, OutputOptions as OutputFields, Stopping as StoppingFields,
    TokenIds,
};

use super::*;

/// What becomes of a request.
#[derive(Debug, PartialEq)]
enum Verdict {
    Good,
    Invalid(Vec<String>),
    NotServed(&'static str),
}

fn verdict(request: GenerateRequest) -> Verdict {
    match Checked::try_from(request) {
        Ok(_) => Verdict::Good,
        Err(Error::Invalid { violations }) => Verdict::Invalid(
            violations
                .into_iter()
                .map(|violation| violation.field)
                .collect(),
        ),
        Err(Error::NotServed { field }) => Verdict::NotServed(field),
        Err(other) => panic!("{other}"),
    }
}

fn text(text: &str) -> GenerateRequest {
    GenerateRequest {
        prompt: Some(generate_request::Prompt::Text(text.to_owned())),
        ..GenerateRequest::default()
    }
}

fn with_sampling(change: impl FnOnce(&mut Sampling)) -> GenerateRequest {
    let mut sampling = Sampling::default();
    change(&mut sampling);
    GenerateRequest {
        sampling: Some(sampling),
        ..text("x")
    }
}

fn with_stopping(change: impl FnOnce(&mut StoppingFields)) -> GenerateRequest {
    let mut stopping = StoppingFields::default();
    change(&mut stopping);
    GenerateRequest {
        stopping: Some(stopping),
        ..text("x")
    }
}

fn with_constraint(kind: Option<constraint::Kind>) -> GenerateRequest {
    GenerateRequest {
        constraint: Some(Constraint { kind }),
        ..text("x")
    }
}

fn with_output(output: OutputFields) -> GenerateRequest {
    GenerateRequest {
        output: Some(output),
        ..text("x")
    }
}

#[track_caller]
fn good(request: GenerateRequest) {
    assert_eq!(verdict(request), Verdict::Good);
}

#[track_caller]
fn invalid(request: GenerateRequest, field: &str) {
    assert_eq!(verdict(request), Verdict::Invalid(vec![field.to_owned()]));
}

#[track_caller]
fn not_served(request: GenerateRequest, field: &'static str) {
    assert_eq!(verdict(request), Verdict::NotServed(field));
}

#[test]
fn prompts() {
    use generate_request::Prompt as Field;
    let prompt = |prompt| GenerateRequest {
        prompt,
        ..GenerateRequest::default()
    };
    good(text("x"));
    good(prompt(Some(Field::TokenIds(TokenIds { ids: vec![1] }))));
    invalid(prompt(None), "prompt");
    invalid(text(""), "text");
    invalid(
        prompt(Some(Field::TokenIds(TokenIds::default()))),
        "token_ids.ids",
    );
    invalid(
        prompt(Some(Field::Chat(ChatPrompt::default()))),
        "chat.messages",
    );
}

fn chat(prompt: ChatPrompt) -> GenerateRequest {
    GenerateRequest {
        prompt: Some(generate_request::Prompt::Chat(prompt)),
        ..GenerateRequest::default()
    }
}

fn message(change: impl FnOnce(&mut ChatMessage)) -> ChatPrompt {
    let mut message = ChatMessage {
        role: "user".to_owned(),
        content: "x".to_owned(),
        ..ChatMessage::default()
    };
    change(&mut message);
    ChatPrompt {
        messages: vec![ChatMessage::clone(&message), message],
        ..ChatPrompt::default()
    }
}

#[test]
fn conversations() {
    good(chat(message(|_| {})));
    good(chat(message(|message| {
        message.tool_calls_json = r#"[{"function": {}}]"#.to_owned();
    })));
    let bad_role = verdict(chat(message(|message| message.role.clear())));
    let both = ["chat.messages[0].role", "chat.messages[1].role"];
    assert_eq!(bad_role, Verdict::Invalid(both.map(str::to_owned).into()));
    for json in ["[", "{}", "1", "null"] {
        let mut prompt = message(|_| {});
        prompt.messages[1].tool_calls_json = json.to_owned();
        invalid(chat(prompt), "chat.messages[1].tool_calls_json");
        let tools = ChatPrompt {
            tools_json: json.to_owned(),
            ..message(|_| {})
        };
        invalid(chat(tools), "chat.tools_json");
    }
    for json in ["{", "[]", r#"{"messages": []}"#, r#"{"tools": []}"#] {
        let variables = ChatPrompt {
            template_kwargs_json: json.to_owned(),
            ..message(|_| {})
        };
        invalid(chat(variables), "chat.template_kwargs_json");
    }
}

#[test]
fn messages_hold_only_what_says_something() {
    let prompt = ChatPrompt {
        messages: vec![ChatMessage {
            role: "tool".to_owned(),
            tool_call_id: "7".to_owned(),
            ..ChatMessage::default()
        }],
        add_generation_prompt: Some(false),
        ..ChatPrompt::default()
    };
    let checked = Checked::try_from(chat(prompt)).unwrap();
    let Prompt::Chat(conversation) = checked.prompt else {
        panic!("{:?}", checked.prompt)
    };
    let entries = conversation.messages[0].clone().into_entries().unwrap();
    let keys: Vec<&str> = entries.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["role", "content", "tool_call_id"]);
    assert!(!conversation.add_generation_prompt && conversation.tools.is_none());
}

#[test]
fn names() {
    let id = |request_id: String| GenerateRequest {
        request_id,
        ..text("x")
    };
    good(id("ü".repeat(128)));
    invalid(id("x".repeat(129)), "request_id");
    let salt = |cache_salt: String| GenerateRequest {
        cache_salt,
        ..text("x")
    };
    good(salt("tenant-1".to_owned()));
    invalid(salt("x".repeat(129)), "cache_salt");
    let model = |model: String| GenerateRequest { model, ..text("x") };
    invalid(model("m".repeat(4097)), "model");
}

#[test]
fn sampling_ranges() {
    for temperature in [0.0, 0.7, 100.0] {
        good(with_sampling(|s| s.temperature = Some(temperature)));
    }
    for temperature in [-0.1, 100.1, f32::NAN, f32::INFINITY] {
        invalid(
            with_sampling(|s| s.temperature = Some(temperature)),
            "sampling.temperature",
        );
    }
    good(with_sampling(|s| s.top_p = Some(1.0)));
    for top_p in [0.0, -1.0, 1.1, f32::NAN] {
        invalid(with_sampling(|s| s.top_p = Some(top_p)), "sampling.top_p");
    }
    good(with_sampling(|s| s.min_p = Some(0.0)));
    for min_p in [-0.1, 1.1, f32::NAN] {
        invalid(with_sampling(|s| s.min_p = Some(min_p)), "sampling.min_p");
    }
    good(with_sampling(|s| s.top_k = Some(u32::MAX)));
}

#[test]
fn penalties_and_biases() {
    good(with_sampling(|s| {
        s.repetition_penalty = Some(1.0);
        s.frequency_penalty = Some(0.0);
        s.presence_penalty = Some(-0.0);
    }));
    for penalty in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        invalid(
            with_sampling(|s| s.repetition_penalty = Some(penalty)),
            "sampling.repetition_penalty",
        );
    }
    invalid(
        with_sampling(|s| s.frequency_penalty = Some(2.1)),
        "sampling.frequency_penalty",
    );
    invalid(
        with_sampling(|s| s.presence_penalty = Some(f32::NAN)),
        "sampling.presence_penalty",
    );
    good(with_sampling(|s| {
        s.repetition_penalty = Some(1.1);
        s.frequency_penalty = Some(1.0);
        s.presence_penalty = Some(-2.0);
    }));
    let bias = |token_id, bias| LogitBias { token_id, bias };
    good(with_sampling(|s| {
        s.logit_bias = vec![bias(1, 100.0), bias(0, -100.0)];
    }));
    invalid(
        with_sampling(|s| s.logit_bias = vec![bias(1, 0.0), bias(2, 101.0)]),
        "sampling.logit_bias[1].bias",
    );
    invalid(
        with_sampling(|s| s.logit_bias = vec![bias(1, f32::NAN)]),
        "sampling.logit_bias[0].bias",
    );
    invalid(
        with_sampling(|s| s.logit_bias = vec![bias(7, 0.0), bias(1, 0.0), bias(7, 0.0)]),
        "sampling.logit_bias[2].token_id",
    );
    let many = |n| with_sampling(|s| s.logit_bias = (0..n).map(|id| bias(id, 1.0)).collect());
    good(many(1024));
    invalid(many(1025), "sampling.logit_bias");
}

#[test]
fn stops() {
    good(with_stopping(|s| s.stop = vec!["x".repeat(1024); 16]));
    invalid(
        with_stopping(|s| s.stop = vec!["x".to_owned(); 17]),
        "stopping.stop",
    );
    invalid(
        with_stopping(|s| s.stop = vec!["a".to_owned(), String::new()]),
        "stopping.stop[1]",
    );
    invalid(
        with_stopping(|s| s.stop = vec!["x".repeat(1025)]),
        "stopping.stop[0]",
    );
    good(with_stopping(|s| s.stop_token_ids = vec![0; 256]));
    invalid(
        with_stopping(|s| s.stop_token_ids = vec![0; 257]),
        "stopping.stop_token_ids",
    );
    good(with_stopping(|s| s.max_tokens = Some(0)));
    good(with_stopping(|s| s.ignore_eos = true));
    good(with_stopping(|s| s.min_tokens = 1));
    good(with_stopping(|s| {
        s.min_tokens = 5;
        s.max_tokens = Some(5);
    }));
    invalid(
        with_stopping(|s| {
            s.min_tokens = 6;
            s.max_tokens = Some(5);
        }),
        "stopping.min_tokens",
    );
}

#[test]
fn constraints() {
    use constraint::Kind;
    not_served(
        with_constraint(Some(Kind::JsonSchema("{}".to_owned()))),
        "constraint.json_schema",
    );
    not_served(
        with_constraint(Some(Kind::Regex("a*".to_owned()))),
        "constraint.regex",
    );
    not_served(
        with_constraint(Some(Kind::Grammar(String::new()))),
        "constraint.grammar",
    );
    invalid(with_constraint(None), "constraint");
}

#[test]
fn log_probabilities() {
    let counts = |logprobs, prompt_logprobs| OutputFields {
        logprobs,
        prompt_logprobs,
    };
    good(with_output(counts(Some(0), Some(20))));
    invalid(with_output(counts(Some(21), None)), "output.logprobs");
    invalid(
        with_output(counts(None, Some(21))),
        "output.prompt_logprobs",
    );
}

#[test]
fn all_violations_are_named_and_come_before_what_is_not_served() {
    let mut request = with_sampling(|s| {
        s.temperature = Some(f32::NAN);
        s.min_p = Some(2.0);
    });
    request.prompt = None;
    let kind = Some(constraint::Kind::Regex("a*".to_owned()));
    request.constraint = Some(Constraint { kind });
    let expected = ["prompt", "sampling.temperature", "sampling.min_p"]
        .map(str::to_owned)
        .to_vec();
    assert_eq!(verdict(request), Verdict::Invalid(expected));
}

#[test]
fn token_ids_are_checked_against_the_vocabulary() {
    let mut request = with_stopping(|s| s.stop_token_ids = vec![9, 10]);
    let bias = |token_id| LogitBias {
        token_id,
        bias: 1.0,
    };
    request.sampling = Some(Sampling {
        logit_bias: [8, 9, 12].map(bias).to_vec(),
        ..Sampling::default()
    });
    let ids = vec![0, 11, 12];
    request.prompt = Some(generate_request::Prompt::TokenIds(TokenIds { ids }));
    let checked = Checked::try_from(request).unwrap();
    checked.check_tokens(13).unwrap();
    let Err(Error::Invalid { violations }) = checked.check_tokens(10) else {
        panic!("not refused");
    };
    let fields: Vec<_> = violations.into_iter().map(|v| v.field).collect();
    let expected = [
        "token_ids.ids[1]",
        "stopping.stop_token_ids[1]",
        "sampling.logit_bias[2].token_id",
    ];
    assert_eq!(fields, expected);
}

#[test]
fn unset_fields_have_their_defaults() {
    let checked = Checked::try_from(text("x")).unwrap();
    assert_eq!(checked.sampling, SamplingParams::GREEDY);
    assert_eq!(checked.stopping, Stopping::default());
    assert_eq!(checked.output, OutputOptions::default());
    assert_eq!(checked.model, None);
    assert_eq!(checked.request_id.len(), 16);
}

#[test]
fn what_is_set_is_kept_and_what_is_drawn_differs() {
    let set = GenerateRequest {
        request_id: "mine".to_owned(),
        model: "a/b".to_owned(),
        ..with_sampling(|s| s.seed = Some(0))
    };
    let checked = Checked::try_from(set).unwrap();
    assert_eq!((checked.request_id.as_str(), checked.seed), ("mine", 0));
    assert_eq!(checked.model.as_deref(), Some("a/b"));
    let [one, two] = [0, 1].map(|_| Checked::try_from(text("x")).unwrap());
    assert_ne!(one.seed, two.seed);
    assert_ne!(one.request_id, two.request_id);
}
