//! The conversation so far.

use proto::inference::v1::{ChatMessage, ChatPrompt};

/// What has been said.
#[derive(Debug, Default)]
pub(super) struct Talk {
    system: String,
    turns: Vec<ChatMessage>,
}

impl Talk {
    /// A conversation in which nothing was said yet.
    pub(super) fn new(system: String) -> Talk {
        Talk {
            system,
            turns: Vec::new(),
        }
    }

    /// What the model was told before all else; empty for nothing.
    pub(super) fn system(&self) -> &str {
        &self.system
    }

    /// Tells the model something else, from the next turn on.
    pub(super) fn set_system(&mut self, system: String) {
        self.system = system;
    }

    /// Forgets everything but the system message.
    pub(super) fn reset(&mut self) {
        self.turns.clear();
    }

    /// The user has said something.
    pub(super) fn ask(&mut self, text: String) {
        self.turns.push(message("user", text));
    }

    /// The model has answered.
    pub(super) fn answered(&mut self, text: String) {
        self.turns.push(message("assistant", text));
    }

    /// What the user said last was not answered, and is as if it had not been said.
    pub(super) fn take_back(&mut self) {
        if self.turns.last().is_some_and(|turn| turn.role == "user") {
            self.turns.pop();
        }
    }

    /// All of it, as the service takes it.
    pub(super) fn to_proto(&self, template_kwargs_json: &str) -> ChatPrompt {
        let system = Some(&self.system).filter(|system| !system.is_empty());
        let system = system.map(|system| message("system", system.clone()));
        ChatPrompt {
            messages: system.into_iter().chain(self.turns.clone()).collect(),
            template_kwargs_json: template_kwargs_json.to_owned(),
            ..ChatPrompt::default()
        }
    }
}

fn message(role: &str, content: String) -> ChatMessage {
    ChatMessage {
        role: role.to_owned(),
        content,
        ..ChatMessage::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(talk: &Talk, expected: &[(&str, &str)]) {
        let prompt = talk.to_proto("");
        let said: Vec<(&str, &str)> = prompt
            .messages
            .iter()
            .map(|message| (message.role.as_str(), message.content.as_str()))
            .collect();
        assert_eq!(said, expected);
    }

    #[test]
    fn turns_add_up_until_they_are_forgotten() {
        let mut talk = Talk::new("s".into());
        talk.ask("a".into());
        talk.answered("b".into());
        talk.ask("c".into());
        check(
            &talk,
            &[
                ("system", "s"),
                ("user", "a"),
                ("assistant", "b"),
                ("user", "c"),
            ],
        );
        talk.take_back();
        talk.take_back();
        check(&talk, &[("system", "s"), ("user", "a"), ("assistant", "b")]);
        talk.set_system(String::new());
        talk.reset();
        check(&talk, &[]);
    }
}
