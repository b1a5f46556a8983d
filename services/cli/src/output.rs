//! The only place that writes to the standard streams.
//!
//! Every write can fail, and one failure is ordinary: the reader of a pipe has seen enough. Writing through handles instead of the print macros makes that an error value,
//! which [`crate::failure::Failure`] turns into a quiet end.

use std::{
    env,
    io::{self, IsTerminal, Write},
};

/// One standard stream and how to write to it.
pub(crate) struct Stream {
    writer: Box<dyn Write>,
    /// A person looks: progress, colours and summaries make sense.
    pub(crate) is_terminal: bool,
    /// How text may be dressed on this stream.
    pub(crate) style: Style,
}

/// Standard output: what the user asked for.
pub(crate) fn stdout() -> Stream {
    let is_terminal = io::stdout().is_terminal();
    Stream::new(Box::new(io::stdout()), is_terminal)
}

/// Standard error: what is said about the work.
pub(crate) fn stderr() -> Stream {
    let is_terminal = io::stderr().is_terminal();
    Stream::new(Box::new(io::stderr()), is_terminal)
}

impl Stream {
    fn new(writer: Box<dyn Write>, is_terminal: bool) -> Stream {
        let no_color = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        let style = Style {
            colours: is_terminal && !no_color && !dumb,
        };
        Stream {
            writer,
            is_terminal,
            style,
        }
    }

    /// Writes `text` and a line break.
    pub(crate) fn line(&mut self, text: impl AsRef<str>) -> io::Result<()> {
        self.writer.write_all(text.as_ref().as_bytes())?;
        self.writer.write_all(b"\n")?;
        self.writer.flush()
    }

    /// Writes `text` as it is, at once.
    pub(crate) fn text(&mut self, text: &str) -> io::Result<()> {
        self.writer.write_all(text.as_bytes())?;
        self.writer.flush()
    }

    /// Writes text that somebody else made, such as a model: on a terminal its control characters are shown instead of obeyed.
    pub(crate) fn foreign(&mut self, text: &str) -> io::Result<()> {
        if self.is_terminal {
            self.text(&defused(text))
        } else {
            self.text(text)
        }
    }

    /// Writes `value` as one line of JSON.
    pub(crate) fn json(&mut self, value: &impl serde::Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(value).map_err(io::Error::other)?;
        line.push(b'\n');
        self.writer.write_all(&line)?;
        self.writer.flush()
    }
}

/// Colours, or none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    colours: bool,
}

impl Style {
    /// No colours, whatever the stream.
    #[cfg(test)]
    pub(crate) const PLAIN: Style = Style { colours: false };

    /// Headings.
    pub(crate) fn bold(self, text: &str) -> String {
        self.dress("1", text)
    }

    /// What may be skipped.
    pub(crate) fn dim(self, text: &str) -> String {
        self.dress("2", text)
    }

    /// Failures.
    pub(crate) fn red(self, text: &str) -> String {
        self.dress("1;31", text)
    }

    /// What is good to see.
    pub(crate) fn green(self, text: &str) -> String {
        self.dress("32", text)
    }

    /// Things to notice.
    pub(crate) fn yellow(self, text: &str) -> String {
        self.dress("33", text)
    }

    fn dress(self, code: &str, text: &str) -> String {
        if self.colours {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// `text` with control characters other than line break and tab replaced by their pictures, so that it cannot move the cursor, retitle the window or fake a prompt.
pub(crate) fn defused(text: &str) -> String {
    text.chars().map(picture).collect()
}

/// `text` on one line: as [`defused`], and line breaks and tabs become spaces.
pub(crate) fn one_line(text: &str) -> String {
    let flat: Vec<&str> = text.split_whitespace().collect();
    defused(&flat.join(" "))
}

fn picture(character: char) -> char {
    match character {
        '\n' | '\t' => character,
        '\u{7f}' => '\u{2421}',
        '\0'..='\u{1f}' => char::from_u32(0x2400 + u32::from(character)).unwrap_or('\u{fffd}'),
        // C1 controls act as escape sequences in some terminals; direction overrides reorder what was written before them.
        '\u{80}'..='\u{9f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        _ => character,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_lose_their_power() {
        assert_eq!(
            defused("a\x1b[2Jb\n\tc\x07\u{9b}\u{202e}"),
            "a␛[2Jb\n\tc␇\u{fffd}\u{fffd}"
        );
        assert_eq!(defused("früh 日本 🦀"), "früh 日本 🦀");
    }

    #[test]
    fn one_line_keeps_words_apart() {
        assert_eq!(one_line("  a\n b\r\n\tc\x1b"), "a b c␛");
    }

    #[test]
    fn plain_style_adds_nothing() {
        assert_eq!(Style::PLAIN.red("x"), "x");
        assert_eq!(Style { colours: true }.green("x"), "\x1b[32mx\x1b[0m");
    }
}
