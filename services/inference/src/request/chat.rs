//! From a `ChatPrompt` to the conversation that the model's template is given.

use proto::inference::v1::{ChatMessage, ChatPrompt};
use text::chat::{Conversation, Json};

use super::check::Check;

/// Variables that have fields of their own.
const FIELDS: [(&str, &str); 3] = [
    ("messages", "chat.messages"),
    ("tools", "chat.tools_json"),
    ("add_generation_prompt", "chat.add_generation_prompt"),
];

/// Looks at every field. What is returned is whole only if the check has found nothing.
pub(super) fn conversation(check: &mut Check, prompt: ChatPrompt) -> Conversation {
    check.that(
        !prompt.messages.is_empty(),
        "chat.messages",
        "must not be empty",
    );
    let messages = prompt.messages.into_iter().enumerate();
    let messages = messages.map(|(index, message)| object(check, index, message));
    Conversation {
        messages: messages.collect(),
        tools: array(check, &prompt.tools_json, "chat.tools_json"),
        variables: variables(check, &prompt.template_kwargs_json),
        add_generation_prompt: prompt.add_generation_prompt.unwrap_or(true),
    }
}

/// A message as templates know it. Optional fields are there only if they say something: templates ask whether they are defined.
fn object(check: &mut Check, index: usize, message: ChatMessage) -> Json {
    let path = |field: &str| format!("chat.messages[{index}].{field}");
    check.that(!message.role.is_empty(), &path("role"), "must not be empty");
    let tool_calls = array(check, &message.tool_calls_json, &path("tool_calls_json"));
    let text = |text: String| Some(Json::from(text)).filter(|text| text.as_str() != Some(""));
    let entries = [
        ("role", Some(Json::from(message.role))),
        ("content", Some(Json::from(message.content))),
        ("name", text(message.name)),
        ("tool_calls", tool_calls),
        ("tool_call_id", text(message.tool_call_id)),
    ];
    let present = entries
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)));
    Json::object(present)
}

/// A JSON array; nothing, if the text is empty.
fn array(check: &mut Check, text: &str, field: &str) -> Option<Json> {
    let parsed = parse(check, text, field)?;
    let is_array = parsed.is_array();
    check.that(is_array, field, "must be a JSON array");
    is_array.then_some(parsed)
}

fn variables(check: &mut Check, text: &str) -> Vec<(String, Json)> {
    let field = "chat.template_kwargs_json";
    let Some(parsed) = parse(check, text, field) else {
        return Vec::new();
    };
    let entries = parsed.into_entries();
    check.that(entries.is_some(), field, "must be a JSON object");
    let entries = entries.unwrap_or_default();
    for (name, own_field) in FIELDS {
        let is_there = entries.iter().any(|(key, _)| key == name);
        check.that(
            !is_there,
            field,
            &format!("must not set '{name}': that is {own_field}"),
        );
    }
    entries
}

fn parse(check: &mut Check, text: &str, field: &str) -> Option<Json> {
    if text.is_empty() {
        return None;
    }
    let parsed = Json::parse(text);
    if let Err(error) = &parsed {
        check.that(false, field, &format!("must be JSON: {error}"));
    }
    parsed.ok()
}
