/// Why a conversation has no prompt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChatError {
    /// The file has no template for this conversation.
    #[error("the model has no chat template{}", named_ones(named))]
    NoTemplate {
        /// Names of the templates that it does have, for other uses.
        named: Vec<String>,
    },
    /// The conversation asks for a template that the file does not have.
    #[error("the model has no chat template '{name}'{}", named_ones(known))]
    UnknownTemplate {
        /// The name that was asked for.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// The template cannot be used, whatever the conversation.
    #[error("chat template '{template}'{}: {reason}", at_line(*line))]
    Invalid {
        /// Its name.
        template: String,
        /// Where, if that is known.
        line: Option<usize>,
        /// Why.
        reason: String,
    },
    /// The template refuses the conversation, in its author's words.
    #[error("the model's chat template refuses the conversation: {message}")]
    Refused {
        /// What it gave to `raise_exception`.
        message: String,
    },
    /// The template failed at this conversation.
    #[error("chat template '{template}'{}: {reason}", at_line(*line))]
    Failed {
        /// Its name.
        template: String,
        /// Where, if that is known.
        line: Option<usize>,
        /// Why.
        reason: String,
    },
    /// The template wants more work or more memory than a conversation of this length is allowed.
    #[error("chat template '{template}'{}: more work than a conversation of this length is allowed", at_line(*line))]
    TooMuch {
        /// Its name.
        template: String,
        /// Where, if that is known.
        line: Option<usize>,
    },
    /// The system has no thread to render on.
    #[error("no thread for rendering: {0}")]
    Thread(String),
}

fn named_ones(names: &[String]) -> String {
    match names {
        [] => String::new(),
        names => format!("; it has these: {}", names.join(", ")),
    }
}

fn at_line(line: Option<usize>) -> String {
    line.map(|line| format!(", line {line}"))
        .unwrap_or_default()
}
