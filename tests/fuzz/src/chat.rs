//! Chat templates, as any file may hold them, and messages, as anybody may send them.

use std::sync::LazyLock;

use gguf::{Metadata, Value};
use jiff::civil::{DateTime, date};
use text::Tokenizer;
use text::chat::{ChatTemplates, Conversation, Json};

use crate::input::Input;
use crate::vocabulary::byte_level;

/// A template that uses every control token of the vocabulary around a message.
const MARKS: &str = "<s>{{ messages[0].content }}</s><s>";
/// A prompt that small inputs can lead to; far more is allowed.
const PROMPT_BYTES_MAX: usize = 16 << 20;

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
    Tokenizer::from_metadata(&byte_level("gpt-2")).expect("the vocabulary is sound")
});
static MARKED: LazyLock<ChatTemplates> = LazyLock::new(|| templates(MARKS));

/// A template is refused, fails or gives a prompt of bounded length; and no message makes a control token.
///
/// # Panics
/// If that does not hold of the message and the template that `bytes` describes.
pub fn check(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let len = usize::from(input.byte());
    let content = String::from_utf8_lossy(input.take(len)).into_owned();
    let source = String::from_utf8_lossy(input.rest()).into_owned();
    let conversation = conversation(&content);

    match templates(&source).render(&conversation, &TOKENIZER, now()) {
        Ok(prompt) => assert!(prompt.len() < PROMPT_BYTES_MAX, "{} bytes", prompt.len()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }

    let ids = MARKED
        .encode(&conversation, &TOKENIZER, now())
        .expect("the template fits every message");
    let is_control = |id: &&u32| TOKENIZER.token_bytes(**id) == Some(b"");
    let controls: Vec<u32> = ids.iter().filter(is_control).copied().collect();
    let [bos, eos] = [TOKENIZER.bos(), TOKENIZER.eos()].map(|id| id.expect("it has both"));
    assert_eq!(controls, [bos, eos, bos], "{content:?}");
    assert_eq!(TOKENIZER.decode(&ids), content.as_bytes());
}

fn templates(source: &str) -> ChatTemplates {
    let entry = ("tokenizer.chat_template", Value::from(source));
    ChatTemplates::from_metadata(&Metadata::from_iter([entry]))
}

fn conversation(content: &str) -> Conversation {
    let message = |role: &str, content: &str| {
        Json::object([("role", Json::from(role)), ("content", Json::from(content))])
    };
    let tools =
        r#"[{"type": "function", "function": {"name": "f", "parameters": {"x": [1, 2.5]}}}]"#;
    Conversation {
        messages: vec![message("user", content), message("assistant", "ok")],
        tools: Some(Json::parse(tools).expect("it is JSON")),
        variables: vec![("thinking".to_owned(), Json::from("yes"))],
        add_generation_prompt: true,
    }
}

fn now() -> DateTime {
    date(2026, 3, 7).at(14, 5, 9, 0)
}

/// Templates that use what published ones do, and such as want too much.
pub fn seeds() -> Vec<Vec<u8>> {
    let sources = [
        "{% for m in messages %}<s>{{ m['role'] }}\n{{ m.content | trim }}</s>{% endfor %}{% if add_generation_prompt %}<s>{% endif %}",
        "{%- set ns = namespace(n=0, last='') -%}{% for m in messages[::-1] %}{% set ns.n = ns.n + 1 %}{% if loop.first and not loop.last %}{% continue %}{% endif %}{{ ns.n ~ m.content.split('>')[-1].strip() }}{% endfor %}",
        "{% macro t(x, y=none) %}{% if x is mapping %}{{ x|tojson(indent=2) }}{% elif x is string %}{{ x }}{% endif %}{% endmacro %}{% for f in tools %}{{ t(f.function) }}{% endfor %}",
        "{% generation %}{{ raise_exception('no') if thinking is defined and thinking == 'no' else strftime_now('%d %b %Y') }}{% endgeneration %}",
        "{{ messages|selectattr('role', 'equalto', 'user')|map(attribute='content')|list|join(', ') }}{{ {'a': 1}.items()|list }}",
        "{% raw %}{% generation %}{% endraw %}{# {{ #}{% call(x) t() %}{{ x }}{% endcall %}{% filter upper %}a{% endfilter %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(99999) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% for x in range(9) recursive %}{{ loop([x]) }}{% break %}{% endfor %}{{ 'ab' * 99 }}{{ '%d-%s'|format(1, 2) }}{{ '{:>9}'.format(1) }}",
    ];
    let contents = ["hello", "a</s><s>b", "\u{fdd0}<s", "<tool></s>\u{fdd1}"];
    let seed = |(source, content): (&str, &str)| {
        let len = u8::try_from(content.len()).expect("they are short");
        [&[len], content.as_bytes(), source.as_bytes()].concat()
    };
    sources
        .into_iter()
        .zip(contents.into_iter().cycle())
        .map(seed)
        .collect()
}
