//! Another engine, behind a script that answers lines.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// A running script; it goes when its value goes.
#[derive(Debug)]
pub struct Peer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// Version of the package.
    pub version: String,
    /// What it says of its build and the instructions that it uses.
    pub system: String,
}

#[derive(Deserialize)]
struct Hello {
    version: String,
    system: String,
}

#[derive(Deserialize)]
struct Answer {
    seconds: f64,
}

impl Peer {
    /// Starts the script on a file and waits until it has loaded it.
    ///
    /// # Errors
    /// If it cannot be started, or says something else than it should.
    pub fn start(python: &str, script: &str, file: &Path, threads: usize) -> Result<Peer> {
        let mut child = Command::new(python)
            .arg(script)
            .arg(file)
            .arg(threads.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {python}"))?;
        let input = child.stdin.take().context("its input is a pipe")?;
        let output = child.stdout.take().context("its output is a pipe")?;
        let mut peer = Peer {
            child,
            input,
            output: BufReader::new(output),
            version: String::new(),
            system: String::new(),
        };
        let hello: Hello = peer.line()?;
        (peer.version, peer.system) = (hello.version, hello.system);
        Ok(peer)
    }

    /// Asks for a run and returns how long it took.
    ///
    /// # Errors
    /// If it ends or says something else than it should.
    pub fn seconds(&mut self, request: &[&str]) -> Result<f64> {
        writeln!(self.input, "{}", request.join(" "))?;
        let answer: Answer = self.line()?;
        Ok(answer.seconds)
    }

    fn line<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("the peer said {line:?}"))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
