//! Lines from a person or from a pipe, read on a thread of their own: neither kind of reading can be stopped.

use std::{
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
};

use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use rustyline::{Config, DefaultEditor, error::ReadlineError};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::failure::Failure;

/// In front of a message.
const PROMPT: &str = "> ";
/// In front of further lines of one message.
const CONTINUED: &str = "… ";
/// Ends a line that has another one behind it.
const GOES_ON: char = '\\';
/// Longest line from a pipe; the service has its own, smaller limit.
const LINE_BYTES_MAX: u64 = 256 << 20;

/// What came.
#[derive(Debug)]
pub(super) enum Input {
    /// A line, without its end.
    Line(String),
    /// Ctrl-C instead of a line.
    Interrupted,
    /// There is nothing more.
    End,
}

/// The reading thread and how to ask it.
pub(super) struct Reader {
    wanted: mpsc::Sender<()>,
    lines: UnboundedReceiver<io::Result<Input>>,
    /// Puts the terminal back as it was.
    _terminal: Option<Terminal>,
}

impl Reader {
    /// Reads from whoever is there; lines are edited and remembered if it is a person. `history`: a file to remember them in.
    ///
    /// # Errors
    /// [`Failure::File`] if the history cannot be read.
    pub(super) fn open(interactive: bool, history: Option<PathBuf>) -> Result<Reader, Failure> {
        let (wanted, wants) = mpsc::channel();
        let (sender, lines) = unbounded_channel();
        let mut terminal = None;
        if interactive {
            terminal = Terminal::remember();
            let editor = Typing::new(history)?;
            thread::spawn(move || serve(editor, &wants, &sender));
        } else {
            thread::spawn(move || serve(Piped, &wants, &sender));
        }
        Ok(Reader {
            wanted,
            lines,
            _terminal: terminal,
        })
    }

    /// The next line.
    ///
    /// # Errors
    /// [`Failure::File`] if standard input cannot be read.
    pub(super) async fn line(&mut self) -> Result<Input, Failure> {
        // A thread that is gone has said `End` or an error before; either way nothing more comes.
        let _ = self.wanted.send(());
        let line = self.lines.recv().await.unwrap_or(Ok(Input::End));
        line.map_err(Failure::file("standard input"))
    }
}

/// Where lines come from.
trait Source {
    fn read(&mut self) -> io::Result<Input>;
}

fn serve(
    mut source: impl Source,
    wants: &mpsc::Receiver<()>,
    lines: &UnboundedSender<io::Result<Input>>,
) {
    while wants.recv().is_ok() && lines.send(source.read()).is_ok() {}
}

/// A pipe or a file.
struct Piped;

impl Source for Piped {
    fn read(&mut self) -> io::Result<Input> {
        let mut line = String::new();
        let mut stdin = io::Read::take(io::stdin().lock(), LINE_BYTES_MAX);
        if stdin.read_line(&mut line)? == 0 {
            return Ok(Input::End);
        }
        let len = line.trim_end_matches(['\n', '\r']).len();
        line.truncate(len);
        Ok(Input::Line(line))
    }
}

/// A person.
struct Typing {
    editor: DefaultEditor,
    history: Option<PathBuf>,
}

impl Typing {
    fn new(history: Option<PathBuf>) -> Result<Typing, Failure> {
        let config = Config::builder().auto_add_history(false).build();
        let editor = DefaultEditor::with_config(config);
        let mut editor = editor.map_err(|error| Failure::Child(error.to_string()))?;
        if let Some(path) = &history
            && path.exists()
        {
            editor
                .load_history(path)
                .map_err(|error| Failure::file(path)(plain(error)))?;
        }
        Ok(Typing { editor, history })
    }

    fn remember(&mut self, line: &str) -> io::Result<()> {
        if line.trim().is_empty() || !self.editor.add_history_entry(line).map_err(plain)? {
            return Ok(());
        }
        match &self.history {
            Some(path) => append(path, line),
            None => Ok(()),
        }
    }
}

/// Adds a line to the history file, which only its owner may read: people tell models what they tell nobody.
fn append(path: &Path, line: &str) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.create(true).append(true).mode(0o600).open(path)?;
    file.write_all(format!("{}\n", line.replace('\n', " ")).as_bytes())
}

impl Source for Typing {
    fn read(&mut self) -> io::Result<Input> {
        let mut message = String::new();
        loop {
            let prompt = if message.is_empty() {
                PROMPT
            } else {
                CONTINUED
            };
            match self.editor.readline(prompt) {
                Ok(line) => match line.strip_suffix(GOES_ON) {
                    Some(line) => {
                        message.push_str(line);
                        message.push('\n');
                    }
                    None => {
                        message.push_str(&line);
                        self.remember(&message)?;
                        return Ok(Input::Line(message));
                    }
                },
                Err(ReadlineError::Eof) => return Ok(Input::End),
                Err(ReadlineError::Interrupted) => return Ok(Input::Interrupted),
                // The window changed its size.
                Err(ReadlineError::Signal(_)) => {}
                Err(error) => return Err(plain(error)),
            }
        }
    }
}

fn plain(error: ReadlineError) -> io::Error {
    match error {
        ReadlineError::Io(error) => error,
        other => io::Error::other(other.to_string()),
    }
}

/// The terminal as it was found. Editing changes its mode, and a process that a signal ends in the middle of a line must not leave it changed.
struct Terminal(Termios);

impl Terminal {
    fn remember() -> Option<Terminal> {
        tcgetattr(io::stdin()).ok().map(Terminal)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if io::stdin().is_terminal() {
            // Nothing is left to tell a failure to.
            let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.0);
        }
    }
}
