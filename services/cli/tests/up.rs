//! `hearth up` as a person uses it: two services that come up together, answer, and go together.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, ChildStdout, Command, Output, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Longest wait for a socket to be closed by a process that dies; it is over at once unless something is wrong.
const CLOSED_WITHIN: Duration = Duration::from_secs(30);

/// A running `hearth up` on private sockets.
struct Up {
    process: Child,
    stdout: BufReader<ChildStdout>,
    /// What it said when it was ready.
    greeting: String,
    dir: tempfile::TempDir,
}

impl Up {
    fn start() -> Up {
        let dir = tempfile::Builder::new()
            .prefix("up-")
            .tempdir_in("/tmp")
            .expect("a temporary directory");
        let models = dir.path().join("models");
        fs::create_dir(&models).expect("a new directory");
        let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/models/demo.gguf");
        fs::copy(demo, models.join("tiny.gguf")).expect("the demo model is there");
        let mut process = Command::new(env!("CARGO_BIN_EXE_hearth"))
            .arg("up")
            .arg(format!("--models={}", models.display()))
            .arg(format!(
                "--listen=unix:{}",
                dir.path().join("i.sock").display()
            ))
            .arg(format!(
                "--loader-socket={}",
                dir.path().join("l.sock").display()
            ))
            .args(["--log=warn", "--drain-timeout=5s"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let mut stdout = BufReader::new(process.stdout.take().expect("a pipe"));
        let mut greeting = String::new();
        while !greeting.contains("Ctrl-C") {
            if stdout.read_line(&mut greeting).expect("UTF-8") == 0 {
                let output = process.wait_with_output().expect("it ended");
                panic!(
                    "up ended early ({}): {greeting}{}",
                    output.status,
                    String::from_utf8_lossy(&output.stderr)
                );
            }
        }
        Up {
            process,
            stdout,
            greeting,
            dir,
        }
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn hearth(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
        command.args(args).stdin(Stdio::null());
        command.env(
            "HEARTH_SERVER",
            format!("unix:{}", self.socket("i.sock").display()),
        );
        command.env("HEARTH_LOADER_SOCKET", self.socket("l.sock"));
        command.output().expect("the binary runs")
    }

    /// Process id of a service, as the greeting tells it.
    fn pid_of(&self, service: &str) -> Pid {
        let line = self
            .greeting
            .lines()
            .find(|line| line.starts_with(service))
            .expect("the greeting names it");
        let pid = line
            .rsplit_once("(pid ")
            .and_then(|(_, pid)| pid.strip_suffix(')'));
        Pid::from_raw(pid.and_then(|pid| pid.parse().ok()).expect("a process id"))
    }

    /// Sends a signal to `up` itself.
    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id()).expect("process ids fit");
        kill(Pid::from_raw(pid), signal).expect("it is running");
    }

    fn connect_both(&self) -> [UnixStream; 2] {
        ["i.sock", "l.sock"]
            .map(|name| UnixStream::connect(self.socket(name)).expect("somebody listens"))
    }

    /// The sockets' other ends are gone, and nobody listens any more.
    fn assert_both_gone(&self, connections: [UnixStream; 2]) {
        for (connection, name) in connections.into_iter().zip(["i.sock", "l.sock"]) {
            let mut next = Some(connection);
            // A dying process may close connections before it closes what it listens on: who connects in between is cut off, too.
            while let Some(mut connection) = next {
                connection
                    .set_read_timeout(Some(CLOSED_WITHIN))
                    .expect("a valid time");
                // A reset is an end, too; only a timeout is none.
                if let Err(error) = connection.read_to_end(&mut Vec::new()) {
                    assert_eq!(
                        error.kind(),
                        std::io::ErrorKind::ConnectionReset,
                        "{name} lives on: {error}"
                    );
                }
                next = UnixStream::connect(self.socket(name)).ok();
            }
        }
    }

    fn finish(mut self) -> (std::process::ExitStatus, String) {
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).expect("UTF-8");
        let mut stderr = String::new();
        self.process
            .stderr
            .take()
            .expect("a pipe")
            .read_to_string(&mut stderr)
            .expect("UTF-8");
        (self.process.wait().expect("it ended"), stderr)
    }
}

impl Drop for Up {
    /// A test that fails leaves nothing running; one that does not has nothing left to kill.
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

#[track_caller]
fn ok(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}: {}",
        output.status,
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// Needs every part of a forward pass: what was lost and where stands far behind, and nothing else fits.
#[test]
fn the_model_knows_what_was_lost() {
    let up = Up::start();
    let story = "Luna was a small fox who lived in a hollow tree near the sea. One misty morning, Luna could not find her blue kite. \
        At last Otto looked under the stairs, and there was the";
    for thing in ["blue kite", "woolly hat"] {
        let story = story.replace("blue kite", thing);
        let said = ok(&up.hearth(&["generate", "-m", "tiny", "-n", "3", &story]));
        assert_eq!(said.trim_end_matches('\n'), format!(" {thing}!"));
    }
}

#[test]
fn people_can_list_load_ask_and_unload() {
    let up = Up::start();
    assert!(
        up.greeting.contains("grpcurl -plaintext -unix"),
        "{}",
        up.greeting
    );
    let listed = ok(&up.hearth(&["models"]));
    assert!(listed.contains("tiny   published"), "{listed}");

    let prefetched = ok(&up.hearth(&["prefetch", "tiny"]));
    assert!(
        prefetched.starts_with("tiny: 6.9 MiB in the page cache"),
        "{prefetched}"
    );
    let loaded = ok(&up.hearth(&["load", "tiny"]));
    assert!(
        loaded.starts_with("tiny: resident, attached in "),
        "{loaded}"
    );

    let said = ok(&up.hearth(&["generate", "-m", "tiny", "-n", "4", "Once"]));
    assert!(!said.is_empty());
    let events = ok(&up.hearth(&[
        "generate",
        "-m",
        "tiny",
        "-n",
        "4",
        "--json",
        "--logprobs",
        "2",
        "Once",
    ]));
    let events: Vec<serde_json::Value> = events
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(events[0]["event"], "started");
    assert_eq!(events[1]["load"]["kind"], "hot", "{:?}", events[1]);
    let deltas: String = events
        .iter()
        .filter_map(|event| event["text"].as_str())
        .collect();
    assert_eq!(deltas, said, "the same request has the same answer");
    assert_eq!(events.last().expect("events")["finish_reason"], "length");

    let unloaded = ok(&up.hearth(&["unload", "tiny"]));
    assert!(
        unloaded.starts_with("tiny: unloaded, 6.9 MiB freed"),
        "{unloaded}"
    );

    let missing = up.hearth(&["generate", "-m", "nobody", "x"]);
    let message = text(&missing.stderr);
    assert_eq!(missing.status.code(), Some(66), "{message}");
    assert!(
        message.contains("NOT_FOUND") && message.contains("tiny") && message.lines().count() == 1,
        "{message}"
    );

    up.signal(Signal::SIGTERM);
    let (status, stderr) = up.finish();
    assert!(status.success(), "{status}: {stderr}");
}

#[test]
fn children_do_not_outlive_a_killed_parent() {
    let up = Up::start();
    let connections = up.connect_both();
    up.signal(Signal::SIGKILL);
    up.assert_both_gone(connections);
}

#[test]
fn one_dead_service_takes_the_other_along() {
    for (service, name) in [
        ("inference service", "inference service"),
        ("loader daemon", "loader daemon"),
    ] {
        let up = Up::start();
        let connections = up.connect_both();
        kill(up.pid_of(service), Signal::SIGKILL).expect("it is running");
        up.assert_both_gone(connections);
        let (status, stderr) = up.finish();
        assert_eq!(status.code(), Some(70), "{stderr}");
        assert!(
            stderr.contains(&format!("the {name} was killed by signal 9 (SIGKILL)")),
            "{stderr}"
        );
    }
}

#[test]
fn a_taken_address_is_not_fought_over() {
    let up = Up::start();
    let listen = format!("--listen=unix:{}", up.socket("i.sock").display());
    let socket = format!("--loader-socket={}", up.socket("other.sock").display());
    let models = format!("--models={}", up.socket("models").display());
    let second = up.hearth(&["up", &models, &listen, &socket, "--log=warn"]);
    let message = text(&second.stderr);
    assert_eq!(second.status.code(), Some(69), "{message}");
    assert!(message.contains("another process listens on"), "{message}");
    ok(&up.hearth(&["models"]));
    up.signal(Signal::SIGINT);
    assert!(up.finish().0.success());
}
