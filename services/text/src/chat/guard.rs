//! Keeps what is written in a conversation from becoming control tokens.
//!
//! In every string of the messages and tools, each place where a control token is spelled out gets a mark behind its first character. The mark is a character that neither the conversation nor any special
//! token has, so it goes through the template as any other, breaks the spelling wherever the template puts it, and can be taken out of the text between the template's own control tokens.
//!
//! Two things stay with the caller: what it names in `variables` is its own, not its users', and reaches the template as it is; and a template that puts a token together from pieces (`'<|' ~ role ~ '|>'`)
//! does so with whatever role it is given.

use minijinja::Value;
use minijinja::value::ValueKind;

use super::conversation::Conversation;
use super::json::Json;
use crate::Tokenizer;

/// Characters that Unicode sets aside for use inside a program; then, should all of them be taken, those of a private plane.
const MARKS: [std::ops::RangeInclusive<char>; 2] =
    ['\u{fdd0}'..='\u{fdef}', '\u{f0000}'..='\u{ffffd}'];

/// The mark for one conversation.
pub(super) struct Guard<'t> {
    tokenizer: &'t Tokenizer,
    mark: char,
}

impl<'t> Guard<'t> {
    pub(super) fn new(tokenizer: &'t Tokenizer, conversation: &Conversation) -> Guard<'t> {
        let is_free = |mark: &char| {
            !tokenizer.is_in_special_token(*mark)
                && !conversation.any_text(&mut |text| text.contains(*mark))
        };
        let mark = MARKS.into_iter().flatten().find(is_free);
        Guard {
            tokenizer,
            mark: mark.expect("a request is too short to hold all of them"),
        }
    }

    /// The conversation with broken spellings.
    pub(super) fn conversation(&self, conversation: &Conversation) -> Conversation {
        let guarded = |Json(value): &Json| Json(self.value(value));
        Conversation {
            messages: conversation.messages.iter().map(guarded).collect(),
            tools: conversation.tools.as_ref().map(guarded),
            ..conversation.clone()
        }
    }

    fn value(&self, value: &Value) -> Value {
        match value.kind() {
            ValueKind::String => self.text(value),
            ValueKind::Seq => items(value).map(|item| self.value(&item)).collect(),
            ValueKind::Map => Value::from_pairs(items(value).map(|key| {
                let below = value.get_item(&key).unwrap_or_default();
                (self.value(&key), self.value(&below))
            })),
            _ => value.clone(),
        }
    }

    fn text(&self, value: &Value) -> Value {
        let text = value.as_str().unwrap_or_default();
        let places = self.tokenizer.control_spellings(text);
        if places.is_empty() {
            return value.clone();
        }
        let mut guarded = String::with_capacity(text.len() + 4 * places.len());
        let mut rest = 0;
        for place in places {
            let behind_first = place + text[place..].chars().next().map_or(0, char::len_utf8);
            guarded.push_str(&text[rest..behind_first]);
            guarded.push(self.mark);
            rest = behind_first;
        }
        guarded.push_str(&text[rest..]);
        guarded.into()
    }

    /// The tokens of a rendered text, without the marks.
    pub(super) fn encode(&self, text: &str) -> Vec<u32> {
        self.tokenizer.encode_marked(text, self.mark)
    }
}

/// The items of a list, the keys of a map.
fn items(value: &Value) -> impl Iterator<Item = Value> {
    value.try_iter().into_iter().flatten()
}

impl Conversation {
    /// Whether `holds` is true of any string of the messages and tools, or of the variables.
    fn any_text(&self, holds: &mut dyn FnMut(&str) -> bool) -> bool {
        let variables = self.variables.iter().map(|(_, value)| value);
        let mut parts = self.messages.iter().chain(&self.tools).chain(variables);
        parts.any(|Json(value)| any_text(value, holds))
    }

    /// Bytes of all strings, and something for what is around them.
    pub(super) fn input_bytes(&self) -> usize {
        /// An item costs a template work even if it is empty.
        const PER_STRING: usize = 16;
        let mut bytes = 0usize;
        self.any_text(&mut |text| {
            bytes = bytes.saturating_add(text.len() + PER_STRING);
            false
        });
        bytes
    }
}

fn any_text(value: &Value, holds: &mut dyn FnMut(&str) -> bool) -> bool {
    match value.kind() {
        ValueKind::String => holds(value.as_str().unwrap_or_default()),
        ValueKind::Seq => items(value).any(|item| any_text(&item, holds)),
        ValueKind::Map => items(value).any(|key| {
            any_text(&key, holds)
                || value
                    .get_item(&key)
                    .is_ok_and(|below| any_text(&below, holds))
        }),
        _ => false,
    }
}
