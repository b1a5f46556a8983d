//! Methods of Python's strings, lists and dictionaries: those of minijinja's own collection, and the rest of what templates call.

use minijinja::value::{ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

/// Calls a method that the value does not have by itself.
pub(super) fn call(
    state: &mut State<'_, '_>,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let own = match (value.as_str(), value.kind()) {
        (Some(text), _) => string_method(state, text, method, args)?,
        (None, ValueKind::Seq) => list_method(value, method, args)?,
        (None, ValueKind::Map) if method == "copy" => {
            let () = from_args(args)?;
            Some(value.clone())
        }
        _ => None,
    };
    match own {
        Some(answer) => Ok(answer),
        None => unknown_method_callback(state, value, method, args),
    }
}

fn string_method(
    state: &State<'_, '_>,
    text: &str,
    method: &str,
    args: &[Value],
) -> Result<Option<Value>, Error> {
    Ok(Some(match method {
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            text.strip_prefix(prefix).unwrap_or(text).into()
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            text.strip_suffix(suffix).unwrap_or(text).into()
        }
        "partition" => {
            let (separator,): (&str,) = from_args(args)?;
            match text.split_once(divider(separator)?) {
                Some((before, behind)) => triple(before, separator, behind),
                None => triple(text, "", ""),
            }
        }
        "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            match text.rsplit_once(divider(separator)?) {
                Some((before, behind)) => triple(before, separator, behind),
                None => triple("", "", text),
            }
        }
        "rsplit" => {
            let (separator, max): (Option<&str>, Option<i64>) = from_args(args)?;
            rsplit(text, separator, max)?
        }
        "index" | "rindex" => {
            let (part,): (&str,) = from_args(args)?;
            let found = if method == "index" {
                text.find(part)
            } else {
                text.rfind(part)
            };
            let at = found.ok_or_else(|| invalid("substring not found"))?;
            text[..at].chars().count().into()
        }
        "zfill" => {
            let (width,): (i64,) = from_args(args)?;
            zfill(state, text, width)?
        }
        "ljust" | "rjust" | "center" => {
            let (width, fill): (i64, Option<&str>) = from_args(args)?;
            justify(state, text, method, width, fill.unwrap_or(" "))?
        }
        "casefold" => {
            let () = from_args(args)?;
            text.to_lowercase().into()
        }
        "swapcase" => {
            let () = from_args(args)?;
            let swapped = text.chars().map(|character| {
                if character.is_uppercase() {
                    character.to_lowercase().to_string()
                } else {
                    character.to_uppercase().to_string()
                }
            });
            swapped.collect::<String>().into()
        }
        "isdecimal" => {
            let () = from_args(args)?;
            let all = text.chars().all(|character| character.is_ascii_digit());
            (!text.is_empty() && all).into()
        }
        _ => return Ok(None),
    }))
}

fn list_method(list: &Value, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    match method {
        "index" => {
            let (wanted,): (&Value,) = from_args(args)?;
            let found = list.try_iter()?.position(|item| item == *wanted);
            let at = found.ok_or_else(|| invalid("the value is not in the list"))?;
            Ok(Some(at.into()))
        }
        "copy" => {
            let () = from_args(args)?;
            Ok(Some(list.clone()))
        }
        _ => Ok(None),
    }
}

fn invalid(reason: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason)
}

/// A separator; Python refuses an empty one.
fn divider(separator: &str) -> Result<&str, Error> {
    Some(separator)
        .filter(|separator| !separator.is_empty())
        .ok_or_else(|| invalid("empty separator"))
}

fn triple(before: &str, separator: &str, behind: &str) -> Value {
    let parts = [before, separator, behind].map(Value::from);
    Value::from(minijinja::value::Tuple::from(parts))
}

fn rsplit(text: &str, separator: Option<&str>, max: Option<i64>) -> Result<Value, Error> {
    // A negative number is no limit.
    let pieces = max
        .and_then(|max| usize::try_from(max).ok())
        .map_or(usize::MAX, |max| max.saturating_add(1));
    let mut parts: Vec<&str> = match separator {
        Some(separator) => text.rsplitn(pieces, divider(separator)?).collect(),
        None => {
            let mut rest = text.trim_end();
            let mut parts = Vec::new();
            while let (Some(at), true) = (rest.rfind(char::is_whitespace), parts.len() + 1 < pieces)
            {
                let word = &rest[at..];
                parts.push(word.trim_start());
                rest = rest[..at].trim_end();
            }
            parts.extend(Some(rest).filter(|rest| !rest.is_empty()));
            parts
        }
    };
    parts.reverse();
    Ok(parts.into_iter().map(Value::from).collect())
}

/// How many characters are missing to `width`, and that they are paid for.
fn missing(state: &State<'_, '_>, text: &str, width: i64) -> Result<usize, Error> {
    let width = usize::try_from(width).unwrap_or(0);
    let missing = width.saturating_sub(text.chars().count());
    state.consume_fuel((missing / 16) as u64)?;
    Ok(missing)
}

fn zfill(state: &State<'_, '_>, text: &str, width: i64) -> Result<Value, Error> {
    let zeros = "0".repeat(missing(state, text, width)?);
    let digits = text.trim_start_matches(['+', '-']);
    let (sign, digits) = match text.len() - digits.len() {
        1 => text.split_at(1),
        _ => ("", text),
    };
    Ok(format!("{sign}{zeros}{digits}").into())
}

fn justify(
    state: &State<'_, '_>,
    text: &str,
    method: &str,
    width: i64,
    fill: &str,
) -> Result<Value, Error> {
    if fill.chars().count() != 1 {
        return Err(invalid("the fill character must be one character"));
    }
    let missing = missing(state, text, width)?;
    let before = match method {
        "ljust" => 0,
        "rjust" => missing,
        // Of an odd number Python puts the larger half in front if the width is odd.
        _ => missing / 2 + (missing & usize::try_from(width).unwrap_or(0) & 1),
    };
    let (left, right) = (fill.repeat(before), fill.repeat(missing - before));
    Ok(format!("{left}{text}{right}").into())
}

#[cfg(test)]
mod tests {
    use crate::chat::environment::tests::rendered;

    /// Expected values are what Python 3.12 prints.
    fn check(expression: &str, expected: &str) {
        let source = format!("{{{{ {expression} }}}}");
        assert_eq!(rendered(&source).as_deref(), Ok(expected), "{expression}");
    }

    #[test]
    fn strings_have_the_methods_of_python() {
        check("'</think>x'.removeprefix('</think>')", "x");
        check(
            "'x.py'.removesuffix('.py') ~ 'x.py'.removesuffix('.rs')",
            "xx.py",
        );
        check("'a=b=c'.partition('=')", "('a', '=', 'b=c')");
        check("'a=b=c'.rpartition('=')", "('a=b', '=', 'c')");
        check("'abc'.rpartition('=')", "('', '', 'abc')");
        check("'a,b,c'.rsplit(',', 1)", "['a,b', 'c']");
        check("' a  b c '.rsplit(none, 1)", "[' a  b', 'c']");
        check("' a  b c '.rsplit()", "['a', 'b', 'c']");
        check("'a,b'.split(',')[-1].strip().upper()", "B");
        check("'héllo'.index('l') ~ 'héllo'.rindex('l')", "23");
        check(
            "'-7'.zfill(4) ~ '7'.zfill(3) ~ '12345'.zfill(3)",
            "-00700712345",
        );
        check(
            "'[' ~ 'ab'.ljust(4, '.') ~ 'ab'.rjust(4) ~ 'ab'.center(5) ~ 'abc'.center(6) ~ ']'",
            "[ab..  ab  ab  abc  ]",
        );
        check("'aBc'.swapcase() ~ 'ABC'.casefold()", "AbCabc");
        check("'12'.isdecimal() ~ ''.isdecimal()", "TrueFalse");
        check("'{} is {n:>3}'.format('x', n=5)", "x is   5");
    }

    #[test]
    fn lists_and_dictionaries_too() {
        check("[1, 2, 1].index(2) ~ [1, 2, 1].count(1)", "12");
        check("{'a': 1}.get('b', 7) ~ {'a': 1}.copy().a", "71");
        check("{'a': 1, 'b': 2}.items()|list", "[('a', 1), ('b', 2)]");
    }

    #[test]
    fn what_changes_a_value_is_refused() {
        for expression in [
            "[1].append(2)",
            "{}.update({'a': 1})",
            "[1].pop()",
            "'a'.nonsense()",
            "'a'.partition('')",
            "[1].index(2)",
        ] {
            assert!(
                rendered(&format!("{{{{ {expression} }}}}")).is_err(),
                "{expression}"
            );
        }
    }
}
