//! The names that templates find, as Hugging Face's renderer has them.
//!
//! Two things of Python's are not here: `|safe` marks nothing, so `+` escapes nothing behind it, and `%` divides numbers but formats no strings (`|format` and `.format` do).

use jiff::{civil::DateTime, fmt::strtime};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, Value};

use super::{dumps, methods};

/// Deepest nesting of macro calls and blocks while a template runs.
const RECURSION_MAX: usize = 200;

/// What `raise_exception` was given.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Refusal(pub(super) String);

/// Jinja's own delimiters; tags on lines of their own leave no trace.
pub(super) fn syntax() -> SyntaxConfig {
    SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()
        .expect("the default delimiters are valid")
}

/// An environment without templates.
pub(super) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_recursion_limit(RECURSION_MAX);
    environment.set_unknown_method_callback(methods::call);
    minijinja_contrib::add_to_environment(&mut environment);
    environment.add_filter("tojson", dumps::tojson);
    environment.add_test("callable", is_callable);
    environment.add_test("iterable", is_iterable);
    environment.add_function("raise_exception", raise_exception);
    // Tells of the renderer, not of the conversation.
    environment.remove_global("debug");
    environment
}

/// `strftime_now`, at a frozen local time.
pub(super) fn strftime_now(now: DateTime) -> Value {
    Value::from_function(move |format: &str| {
        strtime::format(format, now).map_err(|error| {
            Error::new(
                ErrorKind::InvalidOperation,
                format!("strftime_now: {error}"),
            )
        })
    })
}

fn raise_exception(message: &Value) -> Result<Value, Error> {
    let refusal = Refusal(message.to_string());
    Err(Error::new(ErrorKind::InvalidOperation, "raised by the template").with_source(refusal))
}

fn is_callable(value: &Value) -> bool {
    let name = value.as_object().map(|object| object.type_name());
    name.is_some_and(|name| name.contains("Macro") || name.contains("Function"))
}

/// In Python nothing at all is not iterable, though what is not defined is.
fn is_iterable(value: &Value) -> bool {
    !value.is_none() && value.try_iter().is_ok()
}

#[cfg(test)]
pub(super) mod tests {
    use jiff::civil::date;

    use crate::chat::{ChatError, Conversation, template::Template};

    /// What a template makes of nothing at all.
    pub(in crate::chat) fn rendered(source: &str) -> Result<String, ChatError> {
        let conversation = Conversation {
            messages: Vec::new(),
            tools: None,
            variables: Vec::new(),
            add_generation_prompt: true,
        };
        let now = date(2026, 3, 7).at(14, 5, 9, 0);
        Template::new("test", source)?.render(&conversation, &[], now)
    }

    fn check(source: &str, expected: &str) {
        assert_eq!(rendered(source).as_deref(), Ok(expected), "{source}");
    }

    /// What Jinja2 3.1 makes of the same sources in Hugging Face's environment.
    #[test]
    fn values_are_written_as_python_does() {
        check(
            "{{ true }} {{ none }} {{ 1.0 }} {{ 7 // 2 }} {{ 7 / 2 }}",
            "True None 1.0 3 3.5",
        );
        check(
            "{{ [1, 'a', none] }} {{ {'k': false} }} {{ (1,) }}",
            "[1, 'a', None] {'k': False} (1,)",
        );
        check("{{ 'it' ~ 1 ~ true ~ none }}", "it1TrueNone");
        check("{{ missing }}[{{ none.x }}{{ {}.x }}{{ [][3] }}]", "[]");
    }

    #[test]
    fn blocks_trim_their_lines() {
        check("a\n  {% if true %}\n  b\n  {% endif %}\nc\n", "a\n  b\nc");
        check("a\n  {%+ if true %}\nb{% endif %}", "a\n  b");
    }

    #[test]
    fn loops_can_be_left_and_continued() {
        check(
            "{% for i in range(9) %}{% if i == 2 %}{% continue %}{% elif i == 5 %}{% break %}{% endif %}{{ i }}{{ loop.index0 }},{% endfor %}",
            "00,11,33,44,",
        );
    }

    #[test]
    fn state_lives_in_namespaces() {
        check(
            "{% set ns = namespace(n=0, s='') %}{% for c in 'abc' %}{% set ns.n = ns.n + 1 %}{% set ns.s = c ~ ns.s %}{% endfor %}{{ ns.n }}{{ ns.s }}",
            "3cba",
        );
    }

    #[test]
    fn generation_marks_have_a_scope() {
        check(
            "{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}",
            "21",
        );
    }

    #[test]
    fn the_clock_is_the_callers() {
        check(
            "{{ strftime_now('%d %b %Y') }} {{ strftime_now('%A, %-d %B %y %H:%M:%S') }}",
            "07 Mar 2026 Saturday, 7 March 26 14:05:09",
        );
        assert!(rendered("{{ strftime_now('%!') }}").is_err());
    }

    #[test]
    fn refusals_carry_the_authors_words() {
        let refused =
            rendered("{% for x in [1] %}\n{{ raise_exception('no ' ~ 'way') }}{% endfor %}");
        assert_eq!(
            refused,
            Err(ChatError::Refused {
                message: "no way".to_owned()
            })
        );
        let through_a_macro =
            rendered("{% macro m() %}{{ raise_exception('x') }}{% endmacro %}{% set y = m() %}");
        assert_eq!(
            through_a_macro,
            Err(ChatError::Refused {
                message: "x".to_owned()
            })
        );
    }

    #[test]
    fn filters_and_tests_are_there() {
        check(
            "{{ [3, 1, 2]|sort|join('-') }}{{ 'x'|default('y') }}{{ missing|default('y') }}",
            "1-2-3xy",
        );
        check(
            "{{ [{'r': 'a'}, {'r': 'b'}]|selectattr('r', 'equalto', 'b')|map(attribute='r')|list }}",
            "['b']",
        );
        check(
            "{{ 'x' is string }}{{ {} is mapping }}{{ [] is iterable }}{{ none is none }}{{ missing is defined }}{{ raise_exception is callable }}",
            "TrueTrueTrueTrueFalseTrue",
        );
        check(
            "{{ none is iterable }}{{ missing is iterable }}{{ 1 is iterable }}{{ 'a' is iterable }}{{ {} is iterable }}",
            "FalseTrueFalseTrueTrue",
        );
        check(
            "{{ 'abcdef'[::-1] }}{{ [1, 2, 3, 4][1:-1] }}{{ 'abc'[-1] }}",
            "fedcba[2, 3]c",
        );
        check(
            "{% macro m(a, b='z') %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}{{ m(1, b=2) }}",
            "1z12",
        );
    }
}
