//! What is changed in a template's source before it is compiled. Lines stay where they are.

use std::borrow::Cow;

/// `source` with what the compiler does not know put in terms that it does.
///
/// `{% generation %}` marks the assistant's words for training and means nothing to a prompt, but it has a scope of its own, as `{% with %}` has. Line ends are `\n` to Jinja, whatever they are in
/// the file.
pub(super) fn prepared(source: &str) -> Cow<'_, str> {
    let source: Cow<'_, str> = if source.contains('\r') {
        source.replace("\r\n", "\n").replace('\r', "\n").into()
    } else {
        source.into()
    };
    if !source.contains("generation") {
        return source;
    }
    let mut out = String::with_capacity(source.len());
    let mut rest = &*source;
    while let Some(tag) = Tag::first(rest) {
        out.push_str(&rest[..tag.start]);
        let text = &rest[tag.start..tag.end];
        match tag.word {
            "generation" => out.push_str(&text.replacen("generation", "with", 1)),
            "endgeneration" => out.push_str(&text.replacen("endgeneration", "endwith", 1)),
            _ => out.push_str(text),
        }
        rest = &rest[tag.end..];
    }
    out.push_str(rest);
    out.into()
}

/// A tag, or a stretch of text that is to be passed over as a whole: a comment, an expression, a raw block.
struct Tag<'s> {
    start: usize,
    end: usize,
    /// The first word of a block tag, else empty.
    word: &'s str,
}

impl Tag<'_> {
    /// The first tag of `text`. One that is not closed extends to the end: the compiler will say so.
    fn first(text: &str) -> Option<Tag<'_>> {
        let start = text
            .match_indices('{')
            .map(|(at, _)| at)
            .find(|&at| matches!(text.as_bytes().get(at + 1), Some(b'{' | b'%' | b'#')))?;
        let inner = start + 2;
        let (end, word) = match text.as_bytes()[start + 1] {
            b'#' => (behind(text, inner, "#}"), ""),
            b'{' => (behind_code(text, inner, "}}"), ""),
            _ => {
                let word = first_word(&text[inner..]);
                let end = behind_code(text, inner, "%}");
                match word {
                    "raw" => (behind_raw(text, end), word),
                    _ => (end, word),
                }
            }
        };
        Some(Tag { start, end, word })
    }
}

fn first_word(inside: &str) -> &str {
    let inside = inside.trim_start_matches(['-', '+']).trim_start();
    let end = inside
        .find(|character: char| !character.is_alphanumeric() && character != '_')
        .unwrap_or(inside.len());
    &inside[..end]
}

fn behind(text: &str, from: usize, closing: &str) -> usize {
    text[from..]
        .find(closing)
        .map_or(text.len(), |at| from + at + closing.len())
}

/// The same, where strings may hold what looks like the closing.
fn behind_code(text: &str, from: usize, closing: &str) -> usize {
    let bytes = text.as_bytes();
    let mut quote = None;
    let mut at = from;
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (Some(_), b'\\') => at += 1,
            (Some(open), byte) if byte == open => quote = None,
            (None, byte @ (b'"' | b'\'')) => quote = Some(byte),
            (None, _) if bytes[at..].starts_with(closing.as_bytes()) => return at + closing.len(),
            _ => {}
        }
        at += 1;
    }
    text.len()
}

fn behind_raw(text: &str, from: usize) -> usize {
    let mut at = from;
    while let Some(opening) = text[at..].find("{%") {
        let inner = at + opening + 2;
        at = behind(text, inner, "%}");
        if first_word(&text[inner..]) == "endraw" {
            return at;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, expected: &str) {
        assert_eq!(prepared(source), expected);
    }

    #[test]
    fn generation_becomes_a_scope() {
        check(
            "a{% generation %}b{%- endgeneration -%}c",
            "a{% with %}b{%- endwith -%}c",
        );
        check("{%+generation%}x{%endgeneration%}", "{%+with%}x{%endwith%}");
    }

    #[test]
    fn only_tags_are_changed() {
        for same in [
            "generation {% if add_generation_prompt %}x{% endif %}",
            "{# {% generation %} #}",
            "{{ '{% generation %}' }}",
            r#"{{ "\"}} {% generation %}" }}"#,
            "{% raw %}{% generation %}{% endraw %}",
            "{% set generation = '%}{% generation %}' %}",
            "{% generation",
            "{{ generation",
            "{% raw %} generation",
            "{{{ generation }}",
        ] {
            let expected = same.replace("{% generation\u{0}", "");
            let found = prepared(same);
            if same == "{% generation" {
                assert_eq!(found, "{% with");
            } else {
                assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn line_ends_are_jinjas() {
        check("a\r\nb\rc", "a\nb\nc");
    }
}
