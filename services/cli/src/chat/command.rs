//! What a line that was typed means.

/// A line, understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'l> {
    /// Nothing was typed.
    Nothing,
    /// For the model.
    Say(&'l str),
    /// List the commands.
    Help,
    /// Begin anew.
    Reset,
    /// Tell the model something before all else; without a text, say what it was told.
    System(Option<&'l str>),
    /// Leave.
    Quit,
    /// No command of ours.
    Unknown(&'l str),
}

/// The commands, for people.
pub(super) const HELP: [(&str, &str); 4] = [
    ("/reset", "forget the conversation, keep the system message"),
    (
        "/system TEXT",
        "tell the model who it is; `/system -` takes that back, `/system` alone shows it",
    ),
    ("/help", "this list"),
    ("/quit", "leave; Ctrl-D does too"),
];

/// Reads a line. A message that begins with a slash is typed with two.
pub(super) fn read(line: &str) -> Line<'_> {
    if line.trim().is_empty() {
        return Line::Nothing;
    }
    let Some(command) = line.strip_prefix('/') else {
        return Line::Say(line);
    };
    if command.starts_with('/') {
        return Line::Say(command);
    }
    let (name, rest) = command
        .split_once(char::is_whitespace)
        .unwrap_or((command, ""));
    let rest = rest.trim();
    match (name, rest) {
        ("help" | "?", "") => Line::Help,
        ("reset" | "clear", "") => Line::Reset,
        ("quit" | "exit" | "bye", "") => Line::Quit,
        ("system", "") => Line::System(None),
        ("system", "-") => Line::System(Some("")),
        ("system", text) => Line::System(Some(text)),
        _ => Line::Unknown(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_messages_or_commands() {
        for (line, expected) in [
            ("", Line::Nothing),
            ("  \t", Line::Nothing),
            ("hi there", Line::Say("hi there")),
            (" /reset", Line::Say(" /reset")),
            ("//usr/bin", Line::Say("/usr/bin")),
            ("/help", Line::Help),
            ("/reset ", Line::Reset),
            ("/system  be brief ", Line::System(Some("be brief"))),
            ("/system", Line::System(None)),
            ("/system -", Line::System(Some(""))),
            ("/quit", Line::Quit),
            ("/quit now", Line::Unknown("/quit now")),
            ("/fly", Line::Unknown("/fly")),
        ] {
            assert_eq!(read(line), expected, "{line:?}");
        }
    }
}
