use super::json::Json;

/// The variable that chooses one of the file's named templates, as the argument of that name does in Hugging Face's tokenizers.
pub const TEMPLATE_VARIABLE: &str = "chat_template";

/// What a template makes a prompt of.
#[derive(Debug, Clone, PartialEq)]
pub struct Conversation {
    /// Messages in order of time: objects with `role`, `content` and what else the template looks for.
    pub messages: Vec<Json>,
    /// Tool definitions; without any, the template sees `none`.
    pub tools: Option<Json>,
    /// Further variables; they win over those that the renderer provides. `chat_template` names a template instead.
    pub variables: Vec<(String, Json)>,
    /// Whether the prompt ends with the opening of the assistant's turn.
    pub add_generation_prompt: bool,
}

impl Conversation {
    /// The template that was asked for by name.
    pub(super) fn wanted_template(&self) -> Option<&str> {
        let named = self.variables.iter().rev();
        named
            .filter(|(name, _)| name == TEMPLATE_VARIABLE)
            .find_map(|(_, value)| value.as_str())
    }
}
