//! `tojson`, as Hugging Face defines it: `json.dumps` with `ensure_ascii=False`.

use std::fmt::Write as _;

use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};

/// Deepest nesting of a value; what JSON brought in has less.
const DEPTH_MAX: usize = 256;
/// The order of the filter's arguments.
const ARGUMENTS: [&str; 4] = ["ensure_ascii", "indent", "separators", "sort_keys"];

/// The filter.
pub(super) fn tojson(
    state: &State<'_, '_>,
    value: Value,
    positional: Rest<Value>,
    named: Kwargs,
) -> Result<String, Error> {
    let mut arguments = ARGUMENTS.map(|_| Value::UNDEFINED);
    if positional.len() > arguments.len() {
        return Err(ErrorKind::TooManyArguments.into());
    }
    for (argument, value) in arguments.iter_mut().zip(&*positional) {
        *argument = value.clone();
    }
    for (argument, name) in arguments.iter_mut().zip(ARGUMENTS) {
        if named.has(name) {
            *argument = named.get(name)?;
        }
    }
    named.assert_all_used()?;
    let [ascii, indent, separators, sort_keys] = arguments;
    let indent = indentation(&indent)?;
    let (between_items, behind_key) = separated(&separators, indent.is_some())?;
    let mut dump = Dump {
        state,
        out: String::new(),
        ascii: ascii.is_true(),
        indent,
        between_items,
        behind_key,
        sort_keys: sort_keys.is_true(),
    };
    dump.value(&value, 0)?;
    Ok(dump.out)
}

/// What stands before each item, once per level.
fn indentation(indent: &Value) -> Result<Option<String>, Error> {
    if indent.is_undefined() || indent.is_none() {
        return Ok(None);
    }
    if let Some(text) = indent.as_str() {
        return Ok(Some(text.to_owned()));
    }
    // Python counts `true` as 1, and less than nothing as nothing.
    let width = match indent.kind() {
        ValueKind::Bool => i64::from(indent.is_true()),
        _ => indent
            .as_i64()
            .ok_or_else(|| invalid("indent must be a number or a string"))?,
    };
    let width = usize::try_from(width.max(0)).unwrap_or(usize::MAX);
    const WIDEST: usize = 256;
    if width > WIDEST {
        return Err(invalid("indent must be at most 256"));
    }
    Ok(Some(" ".repeat(width)))
}

fn separated(separators: &Value, indented: bool) -> Result<(String, String), Error> {
    if separators.is_undefined() || separators.is_none() {
        let between_items = if indented { "," } else { ", " };
        return Ok((between_items.to_owned(), ": ".to_owned()));
    }
    let pair: Vec<Value> = separators.try_iter()?.take(3).collect();
    match pair.as_slice() {
        [between, behind] => match (between.as_str(), behind.as_str()) {
            (Some(between), Some(behind)) => Ok((between.to_owned(), behind.to_owned())),
            _ => Err(invalid("separators must be strings")),
        },
        _ => Err(invalid("separators must be a pair")),
    }
}

fn invalid(reason: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason.into())
}

/// A document in the making.
struct Dump<'s, 't, 'e> {
    state: &'s State<'t, 'e>,
    out: String,
    ascii: bool,
    indent: Option<String>,
    between_items: String,
    behind_key: String,
    sort_keys: bool,
}

impl Dump<'_, '_, '_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        // One value may hold another many times over, so its size is only known by walking.
        self.state.consume_fuel(1)?;
        if depth > DEPTH_MAX {
            return Err(invalid("the value is nested too deep"));
        }
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self
                .out
                .push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.number(value),
            ValueKind::String => {
                let text = value.as_str().unwrap_or_default();
                self.pay(text.len())?;
                self.string(text);
            }
            ValueKind::Seq => self.sequence(value, depth)?,
            ValueKind::Map => self.map(value, depth)?,
            kind => return Err(invalid(format!("{kind} is not JSON serializable"))),
        }
        Ok(())
    }

    fn pay(&self, bytes: usize) -> Result<(), Error> {
        self.state.consume_fuel((bytes / 64) as u64)
    }

    fn number(&mut self, number: &Value) {
        match number.is_integer() {
            true => self.write(number),
            false => self
                .out
                .push_str(&float(f64::try_from(number.clone()).unwrap_or(f64::NAN))),
        }
    }

    fn write(&mut self, value: &Value) {
        write!(self.out, "{value}").expect("a string takes everything");
    }

    fn sequence(&mut self, items: &Value, depth: usize) -> Result<(), Error> {
        self.out.push('[');
        let mut is_empty = true;
        for item in items.try_iter()? {
            self.before_item(is_empty, depth)?;
            is_empty = false;
            self.value(&item, depth + 1)?;
        }
        self.close(']', is_empty, depth)
    }

    fn map(&mut self, map: &Value, depth: usize) -> Result<(), Error> {
        let mut keys: Vec<Value> = map.try_iter()?.collect();
        if self.sort_keys {
            keys.sort();
        }
        self.out.push('{');
        let mut is_empty = true;
        for key in keys {
            self.before_item(is_empty, depth)?;
            is_empty = false;
            self.key(&key)?;
            let behind_key = std::mem::take(&mut self.behind_key);
            self.out.push_str(&behind_key);
            self.behind_key = behind_key;
            self.value(&map.get_item(&key)?, depth + 1)?;
        }
        self.close('}', is_empty, depth)
    }

    /// Keys are strings in JSON; Python makes some of what is none.
    fn key(&mut self, key: &Value) -> Result<(), Error> {
        match key.kind() {
            ValueKind::String => return self.value(key, 0),
            ValueKind::None | ValueKind::Bool | ValueKind::Number => {}
            kind => return Err(invalid(format!("{kind} is no key of a JSON object"))),
        }
        self.out.push('"');
        self.value(key, 0)?;
        self.out.push('"');
        Ok(())
    }

    fn before_item(&mut self, is_first: bool, depth: usize) -> Result<(), Error> {
        if !is_first {
            self.pay(self.between_items.len())?;
            self.out.push_str(&self.between_items);
        }
        self.new_line(depth + 1)
    }

    fn close(&mut self, bracket: char, is_empty: bool, depth: usize) -> Result<(), Error> {
        if !is_empty {
            self.new_line(depth)?;
        }
        self.out.push(bracket);
        Ok(())
    }

    fn new_line(&mut self, depth: usize) -> Result<(), Error> {
        let Some(indent) = &self.indent else {
            return Ok(());
        };
        self.pay(indent.len().saturating_mul(depth))?;
        self.out.push('\n');
        for _ in 0..depth {
            self.out.push_str(indent);
        }
        Ok(())
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for character in text.chars() {
            match character {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                '\0'..='\x1f' => self.escape(character),
                ' '..='~' => self.out.push(character),
                _ if self.ascii => self.escape(character),
                _ => self.out.push(character),
            }
        }
        self.out.push('"');
    }

    fn escape(&mut self, character: char) {
        for unit in character.encode_utf16(&mut [0; 2]) {
            write!(self.out, "\\u{unit:04x}").expect("a string takes everything");
        }
    }
}

/// Python's `repr` of a float, which `json.dumps` writes: the shortest digits that read back as the same number, with an exponent below 1e-4 and from 1e16 on.
fn float(number: f64) -> String {
    if !number.is_finite() {
        let name = if number.is_nan() { "NaN" } else { "Infinity" };
        let sign = if number < 0.0 { "-" } else { "" };
        return format!("{sign}{name}");
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific
        .split_once('e')
        .expect("the format has an exponent");
    let exponent: i32 = exponent.parse().expect("the exponent is a small number");
    if number != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    let plain = number.to_string();
    if plain.contains('.') {
        plain
    } else {
        plain + ".0"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::environment::tests::rendered;

    fn check(expression: &str, expected: &str) {
        let source = format!("{{{{ {expression} }}}}");
        assert_eq!(rendered(&source).as_deref(), Ok(expected), "{expression}");
    }

    #[test]
    fn equals_json_dumps() {
        check(
            "{'b': 1, 'a': [true, none, 1.0, 1.5]}|tojson",
            r#"{"b": 1, "a": [true, null, 1.0, 1.5]}"#,
        );
        check(
            "{'b': 1, 'a': 2}|tojson(sort_keys=true)",
            r#"{"a": 2, "b": 1}"#,
        );
        check(
            "{'b': [1, 2]}|tojson(separators=(',', ':'))",
            r#"{"b":[1,2]}"#,
        );
        check(
            "{'b': [1, {}], 'c': []}|tojson(indent=2)",
            "{\n  \"b\": [\n    1,\n    {}\n  ],\n  \"c\": []\n}",
        );
        check("[1]|tojson(indent='--')", "[\n--1\n]");
        check(
            "{2: 2, none: 3, true: 4}|tojson",
            r#"{"2": 2, "null": 3, "true": 4}"#,
        );
        check(
            r#""<a href='x'>&é\u2028\n\t\x00\x7f\"\\"|tojson"#,
            "\"<a href='x'>&é\u{2028}\\n\\t\\u0000\u{7f}\\\"\\\\\"",
        );
        check(
            r#""é😀\x7f"|tojson(ensure_ascii=true)"#,
            r#""\u00e9\ud83d\ude00\u007f""#,
        );
        check("(1, 2)|tojson", "[1, 2]");
    }

    #[test]
    fn floats_are_written_as_python_does() {
        for (number, expected) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (7.5, "7.5"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (0.0001, "0.0001"),
            (0.000_012_5, "1.25e-05"),
            (f64::NEG_INFINITY, "-Infinity"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(float(number), expected);
        }
    }

    #[test]
    fn what_has_no_json_is_an_error() {
        for expression in [
            "missing|tojson",
            "[missing]|tojson",
            "namespace|tojson",
            "1|tojson(indent='x', what=1)",
        ] {
            assert!(
                rendered(&format!("{{{{ {expression} }}}}")).is_err(),
                "{expression}"
            );
        }
    }
}
