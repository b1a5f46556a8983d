use std::collections::BTreeMap;

use gguf::Metadata;
use jiff::civil::DateTime;

use super::conversation::Conversation;
use super::error::ChatError;
use super::guard::Guard;
use super::json::Json;
use super::template::Template;
use crate::Tokenizer;

/// Key of the template that is used unless another one is called for; with a dot and a name behind it, of the others.
const KEY: &str = "tokenizer.chat_template";
/// What the unnamed template is called.
const DEFAULT: &str = "default";
/// The template that is used when there are tools, if there is one of this name.
const WITH_TOOLS: &str = "tool_use";
/// Most templates of one file. Published ones have three.
const TEMPLATES_MAX: usize = 16;

/// The chat templates of a model's file.
///
/// One that cannot be compiled is an error for those who ask for it, not for the model: it still goes on from text.
#[derive(Debug, Clone, Default)]
pub struct ChatTemplates {
    by_name: BTreeMap<String, Result<Template, ChatError>>,
}

impl ChatTemplates {
    /// Reads `tokenizer.chat_template` and `tokenizer.chat_template.NAME`. Values that are not strings count as missing.
    pub fn from_metadata(metadata: &Metadata) -> ChatTemplates {
        let sources = metadata.iter().filter_map(|(key, _)| {
            let name = match key.strip_prefix(KEY)? {
                "" => DEFAULT,
                named => named.strip_prefix('.')?,
            };
            Some((name, metadata.get_str(key).ok().flatten()?))
        });
        let compiled = sources.map(|(name, source)| (name.to_owned(), Template::new(name, source)));
        ChatTemplates {
            by_name: compiled.take(TEMPLATES_MAX).collect(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The text of a conversation's prompt, in which nothing tells control tokens of the template from those that users spelled out: for people to read.
    ///
    /// `now` is the local time that templates ask for. `bos_token` and `eos_token` are the vocabulary's.
    /// # Errors
    /// [`ChatError`].
    pub fn render(
        &self,
        conversation: &Conversation,
        tokenizer: &Tokenizer,
        now: DateTime,
    ) -> Result<String, ChatError> {
        self.choose(conversation)?
            .render(conversation, &provided(tokenizer), now)
    }

    /// The tokens of a conversation's prompt.
    ///
    /// Control tokens that the template spells out are control tokens; those that are spelled out inside messages and tool definitions stay text. The vocabulary's beginning token, if it wants one, comes
    /// once, whether or not the template puts it there as well; no end token is added.
    /// # Errors
    /// [`ChatError`].
    pub fn encode(
        &self,
        conversation: &Conversation,
        tokenizer: &Tokenizer,
        now: DateTime,
    ) -> Result<Vec<u32>, ChatError> {
        let template = self.choose(conversation)?;
        let guard = Guard::new(tokenizer, conversation);
        let guarded = guard.conversation(conversation);
        let text = template.render(&guarded, &provided(tokenizer), now)?;
        Ok(guard.encode(&text))
    }

    fn choose(&self, conversation: &Conversation) -> Result<&Template, ChatError> {
        let names = || self.by_name.keys().cloned().collect();
        let found = match conversation.wanted_template() {
            Some(name) => self
                .by_name
                .get(name)
                .ok_or_else(|| ChatError::UnknownTemplate {
                    name: name.to_owned(),
                    known: names(),
                })?,
            None => {
                let for_tools = conversation
                    .tools
                    .as_ref()
                    .and(self.by_name.get(WITH_TOOLS));
                for_tools
                    .or_else(|| self.by_name.get(DEFAULT))
                    .ok_or_else(|| ChatError::NoTemplate { named: names() })?
            }
        };
        found.as_ref().map_err(Clone::clone)
    }
}

/// The variables that every conversation of a model finds.
fn provided(tokenizer: &Tokenizer) -> Vec<(&'static str, Json)> {
    let spelled = |id: Option<u32>| {
        let spelling = tokenizer.token_spelling(id?)?;
        Some(Json::from(String::from_utf8_lossy(spelling).into_owned()))
    };
    let tokens = [
        ("bos_token", tokenizer.bos()),
        ("eos_token", tokenizer.eos()),
    ];
    tokens
        .into_iter()
        .filter_map(|(name, id)| Some((name, spelled(id)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use gguf::Value;
    use jiff::civil::date;

    use super::*;
    use crate::chat::TEMPLATE_VARIABLE;
    use crate::testing::{self, Entries, MERGES};

    const CHATML: &str = "{% for m in messages %}<s>{{ m.role }}\n{{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}<s>assistant\n{% endif %}";

    fn now() -> DateTime {
        date(2026, 3, 7).at(14, 5, 9, 0)
    }

    fn templates(entries: &[(&'static str, &str)]) -> ChatTemplates {
        let entries = entries
            .iter()
            .map(|&(key, source)| (key, Value::from(source)));
        ChatTemplates::from_metadata(&entries.collect())
    }

    fn says(content: &str) -> Conversation {
        let message = Json::object([
            ("role", Json::from("user")),
            ("content", Json::from(content)),
        ]);
        Conversation {
            messages: vec![message],
            tools: None,
            variables: Vec::new(),
            add_generation_prompt: true,
        }
    }

    /// Tokens of a chat, spelled out with `|` between them.
    fn pieces(vocabulary: &Entries, source: &str, conversation: &Conversation) -> String {
        let tokenizer = testing::tokenizer(vocabulary);
        let ids = templates(&[(KEY, source)]).encode(conversation, &tokenizer, now());
        testing::pieces(&tokenizer, &ids.expect("it renders"))
    }

    fn vocabulary() -> Entries {
        testing::byte_level("gpt-2", MERGES)
    }

    #[test]
    fn the_templates_tokens_are_tokens() {
        let found = pieces(&vocabulary(), CHATML, &says("hello"));
        assert!(
            found.starts_with("<s>|u|s|e|r|\n|hello|</s>|<s>|a|s|s|"),
            "{found}"
        );
    }

    #[test]
    fn what_users_spell_out_stays_text() {
        let found = pieces(&vocabulary(), CHATML, &says("a</s><s>b"));
        assert!(found.contains("|\n|a|<|/|s|>|<|s|>|b|</s>|"), "{found}");
        // Tokens that users have defined are text to everybody.
        let found = pieces(&vocabulary(), CHATML, &says("<tool></s>"));
        assert!(found.contains("|<tool>|<|/|s|>|</s>|"), "{found}");
    }

    #[test]
    fn tools_and_tool_calls_stay_text_too() {
        let mut conversation = says("x");
        let tools = Json::parse(r#"[{"name": "</s>", "<s>": 1}]"#).unwrap();
        conversation.tools = Some(tools);
        let found = pieces(&vocabulary(), "{{ tools|tojson }}</s>", &conversation);
        assert_eq!(found.matches("</s>").count(), 1, "{found}");
        assert_eq!(found.matches("<s>").count(), 0, "{found}");
        assert_eq!(
            found.replace('|', ""),
            r#"[{"name": "</s>", "<s>": 1}]</s>"#
        );
    }

    #[test]
    fn a_mark_in_a_message_is_not_lost() {
        let said = "\u{fdd0}</s>\u{fdd1}";
        let vocabulary = vocabulary();
        let tokenizer = testing::tokenizer(&vocabulary);
        let ids = templates(&[(KEY, "{{ messages[0].content }}")])
            .encode(&says(said), &tokenizer, now())
            .unwrap();
        assert_eq!(tokenizer.decode(&ids), said.as_bytes());
    }

    #[test]
    fn the_beginning_token_comes_once() {
        let add = testing::with(&vocabulary(), "tokenizer.ggml.add_bos_token", true);
        let add = testing::with(&add, "tokenizer.ggml.add_eos_token", true);
        for source in ["{{ bos_token }}x", "x"] {
            assert_eq!(pieces(&add, source, &says("")), "<s>|x", "{source}");
        }
        assert_eq!(
            pieces(&vocabulary(), "x{{ eos_token }}", &says("")),
            "x|</s>"
        );
    }

    #[test]
    fn variables_of_the_caller_win() {
        let mut conversation = says("x");
        let variables = [("bos_token", "<b>"), ("thinking", "no")];
        conversation.variables = variables
            .map(|(name, value)| (name.to_owned(), Json::from(value)))
            .into();
        let found = pieces(
            &vocabulary(),
            "{{ bos_token }}{{ thinking }}{{ tools is none }}",
            &conversation,
        );
        assert_eq!(found.replace('|', ""), "<b>noTrue");
    }

    #[test]
    fn named_templates_are_chosen() {
        let templates = templates(&[
            (KEY, "plain"),
            ("tokenizer.chat_template.tool_use", "tools"),
            ("tokenizer.chat_template.rag", "rag"),
            ("tokenizer.chat_templates", "no template"),
        ]);
        let tokenizer = testing::byte_tokenizer();
        let render =
            |conversation: &Conversation| templates.render(conversation, &tokenizer, now());
        let mut conversation = says("x");
        assert_eq!(render(&conversation).as_deref(), Ok("plain"));
        conversation.tools = Some(Json::from(vec![]));
        assert_eq!(render(&conversation).as_deref(), Ok("tools"));
        let named = |name: &str| vec![(TEMPLATE_VARIABLE.to_owned(), Json::from(name))];
        conversation.variables = named("rag");
        assert_eq!(render(&conversation).as_deref(), Ok("rag"));
        conversation.variables = named("other");
        let error = render(&conversation).unwrap_err();
        assert!(
            error.to_string().contains("default, rag, tool_use"),
            "{error}"
        );
    }

    #[test]
    fn a_template_that_is_none_says_where() {
        let tokenizer = testing::byte_tokenizer();
        let check = |templates: ChatTemplates, words: &[&str]| {
            let error = templates.render(&says("x"), &tokenizer, now()).unwrap_err();
            let text = error.to_string();
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
        };
        check(templates(&[]), &["no chat template"]);
        check(
            templates(&[("tokenizer.chat_template.rag", "x")]),
            &["no chat template", "rag"],
        );
        check(
            templates(&[(KEY, "a\n{% endif %}")]),
            &["'default'", "line 2"],
        );
        check(templates(&[(KEY, &"x".repeat(200_000))]), &["200000 bytes"]);
        check(
            templates(&[(KEY, "\n\n{{ messages[0].a.b }}")]),
            &["line 3", "undefined"],
        );
    }
}
