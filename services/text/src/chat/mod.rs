//! Chat templates: from a conversation to the text of a prompt, and from there to tokens.
//!
//! A template is a Jinja program that came with the model's file, written for Python. [`environment`] gives it what Hugging Face's renderer would: block trimming, loop controls, `{% generation %}`
//! ([`source`]), `tojson` as Python's `json.dumps` ([`dumps`]), Python's string methods ([`methods`]), `raise_exception`, `strftime_now`. The clock is a value that the caller passes.
//!
//! # A template is hostile
//! It is part of a file that anybody may have made. Its length has a limit, what its compiler computes ahead is bounded ([`constants`]), every render has a budget of fuel that pays for instructions and for bytes alike ([`template`]), and every value that it makes is looked at ([`hardened`]).
//!
//! # What a user writes stays text
//! Templates mark turns with control tokens, so the rendered prompt must be tokenised with control tokens recognised. A user who spells out such a token in a message must not speak as the system thereby:
//! spellings inside the conversation are broken up before the template sees them and put together again when what surrounds them has been tokenised ([`guard`]).

mod constants;
mod conversation;
mod dumps;
mod environment;
mod error;
mod guard;
mod hardened;
mod json;
mod methods;
mod source;
mod template;
mod templates;

pub use conversation::{Conversation, TEMPLATE_VARIABLE};
pub use error::ChatError;
pub use json::{Json, JsonError};
pub use templates::ChatTemplates;
