//! One template and what it makes of a conversation.

use std::collections::BTreeMap;
use std::{error::Error as _, thread};

use jiff::civil::DateTime;
use minijinja::machinery::{CodeGenerator, Instructions, eval, make_string_output, parse};
use minijinja::{AutoEscape, Error, ErrorKind, Value};

use super::constants::objection;
use super::conversation::{Conversation, TEMPLATE_VARIABLE};
use super::environment::{Refusal, environment, strftime_now, syntax};
use super::error::ChatError;
use super::hardened::{add_checks, hardened};
use super::json::Json;
use super::source::prepared;

/// Longest template, in bytes. The longest in use have thirty thousand.
const TEMPLATE_BYTES_MAX: usize = 128 << 10;
/// Work allowed for every render: so many instructions, or 64 times as many bytes.
const FUEL_BASE: u64 = 500_000;
/// Further work for each byte of the conversation.
const FUEL_PER_BYTE: u64 = 2;
/// Longest text of a prompt, or of any other value that a template makes; and how much longer it may be for each byte of the conversation.
const TEXT_BYTES_BASE: usize = 1 << 20;
const TEXT_PER_BYTE: usize = 8;
/// Stack of the thread that templates are compiled and rendered on. Only what is used of it takes memory; the nesting of a template of [`TEMPLATE_BYTES_MAX`] fits even without optimisation.
const STACK_BYTES: usize = 512 << 20;

/// A template that can be compiled.
///
/// It is compiled anew for every conversation, which takes a fraction of a millisecond: a compiled one would have to live in the environment that its source lives in.
#[derive(Debug, Clone)]
pub(super) struct Template {
    name: String,
    source: String,
}

impl Template {
    /// # Errors
    /// [`ChatError::Invalid`] if `source` is too long or is no template.
    pub(super) fn new(name: &str, source: &str) -> Result<Template, ChatError> {
        if source.len() > TEMPLATE_BYTES_MAX {
            return Err(ChatError::Invalid {
                template: name.to_owned(),
                line: None,
                reason: format!(
                    "it has {} bytes, more than {TEMPLATE_BYTES_MAX}",
                    source.len()
                ),
            });
        }
        let template = Template {
            name: name.to_owned(),
            source: prepared(source).into_owned(),
        };
        on_a_deep_stack(|| template.compiled().map(drop))??;
        Ok(template)
    }

    /// The program, with its checks.
    fn compiled(&self) -> Result<Instructions<'_>, ChatError> {
        let invalid = |line, reason| ChatError::Invalid {
            template: self.name.clone(),
            line,
            reason,
        };
        let parsed = parse(&self.source, &self.name, syntax());
        let parsed = parsed.map_err(|error| invalid(error.line(), reason(&error)))?;
        if let Some((line, reason)) = objection(&parsed) {
            return Err(invalid(Some(line), reason));
        }
        let mut generator = CodeGenerator::new(&self.name, &self.source);
        generator.compile_stmt(&parsed);
        let (instructions, _) = generator.finish();
        Ok(hardened(&instructions))
    }

    /// The text of the prompt. `provided`: variables that a conversation may override.
    /// # Errors
    /// [`ChatError`], but neither of its first two.
    pub(super) fn render(
        &self,
        conversation: &Conversation,
        provided: &[(&'static str, Json)],
        now: DateTime,
    ) -> Result<String, ChatError> {
        let input_bytes = conversation.input_bytes();
        let text_bytes_max =
            TEXT_BYTES_BASE.saturating_add(input_bytes.saturating_mul(TEXT_PER_BYTE));
        let fuel = FUEL_PER_BYTE.saturating_mul(input_bytes as u64);
        let fuel = fuel.saturating_add(FUEL_BASE);
        let render = || {
            let program = self.compiled()?;
            let mut environment = environment();
            add_checks(&mut environment, text_bytes_max);
            environment.set_fuel(Some(fuel));
            let variables = variables(conversation, provided, now);
            let mut text = String::new();
            let mut output = make_string_output(&mut text);
            let no_blocks = BTreeMap::new();
            eval(
                &environment,
                &program,
                variables,
                &no_blocks,
                &mut output,
                AutoEscape::None,
            )
            .map(drop)
            .map_err(|error| self.failure(&error))?;
            drop(output);
            if text.len() > text_bytes_max {
                return Err(ChatError::TooMuch {
                    template: self.name.clone(),
                    line: None,
                });
            }
            Ok(text)
        };
        on_a_deep_stack(render)?
    }

    fn failure(&self, error: &Error) -> ChatError {
        let (template, line) = (self.name.clone(), error.line());
        let mut below = Some(error as &dyn std::error::Error);
        while let Some(cause) = below {
            if let Some(Refusal(message)) = cause.downcast_ref() {
                return ChatError::Refused {
                    message: message.clone(),
                };
            }
            let kind = cause.downcast_ref().map(Error::kind);
            if kind == Some(ErrorKind::OutOfFuel) {
                return ChatError::TooMuch { template, line };
            }
            below = cause.source();
        }
        ChatError::Failed {
            template,
            line,
            reason: reason(error),
        }
    }
}

/// What is wrong, without the place, which is told apart.
fn reason(error: &Error) -> String {
    let mut reason = match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    };
    if let Some(cause) = error.source() {
        reason.push_str(&format!(": {cause}"));
    }
    reason
}

/// Everything that a template finds by name besides filters, tests and functions.
fn variables(
    conversation: &Conversation,
    provided: &[(&'static str, Json)],
    now: DateTime,
) -> Value {
    let messages = conversation.messages.iter();
    let messages: Value = messages.map(|Json(message)| message.clone()).collect();
    let tools = conversation.tools.as_ref().map(|Json(tools)| tools.clone());
    let own = [
        ("messages", messages),
        ("tools", tools.unwrap_or(Value::from(()))),
        ("documents", Value::from(())),
        (
            "add_generation_prompt",
            Value::from(conversation.add_generation_prompt),
        ),
        ("strftime_now", strftime_now(now)),
    ];
    let provided = provided
        .iter()
        .map(|(name, Json(value))| (*name, value.clone()));
    // Names that are none in Jinja are those of the checks.
    let is_name = |name: &str| name != TEMPLATE_VARIABLE && !name.starts_with('<');
    let wanted = conversation.variables.iter();
    let wanted = wanted
        .filter(|(name, _)| is_name(name))
        .map(|(name, Json(value))| (name.as_str(), value.clone()));
    Value::from_pairs(own.into_iter().chain(provided).chain(wanted))
}

/// Runs `work` where deep nesting has room.
fn on_a_deep_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, ChatError> {
    thread::scope(|scope| {
        let builder = thread::Builder::new().stack_size(STACK_BYTES);
        let thread = builder
            .spawn_scoped(scope, work)
            .map_err(|error| ChatError::Thread(error.to_string()))?;
        match thread.join() {
            Ok(outcome) => Ok(outcome),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
