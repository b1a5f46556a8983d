//! What the binary says of itself, and how it refuses what it cannot read.

use std::process::{Command, Output};

fn hearth(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
    command
        .args(args)
        .env_remove("HEARTH_SERVER")
        .env_remove("HEARTH_MODELS");
    command.output().expect("the binary runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

#[test]
fn help_lists_what_people_use_and_hides_what_they_do_not() {
    let output = hearth(&["--help"]);
    let text = stdout(&output);
    assert!(output.status.success());
    for command in [
        "up", "demo", "generate", "chat", "models", "inspect", "load", "unload", "prefetch",
        "bench", "top",
    ] {
        assert!(
            text.contains(&format!("\n  {command} ")),
            "{command} is missing:\n{text}"
        );
    }
    for hidden in ["loader", "inference"] {
        assert!(
            !text.contains(&format!("\n  {hidden} ")),
            "{hidden} shows:\n{text}"
        );
    }
    assert!(text.contains("Exit status"), "{text}");
}

#[test]
fn every_command_explains_itself() {
    for command in [
        "up",
        "demo",
        "generate",
        "models",
        "inspect",
        "load",
        "unload",
        "prefetch",
        "chat",
        "bench",
        "top",
        "loader",
        "inference",
    ] {
        let output = hearth(&[command, "--help"]);
        let text = stdout(&output);
        assert!(
            output.status.success() && text.contains("Usage: hearth"),
            "{command}:\n{text}"
        );
        assert!(!text.contains("--parent-pid"), "{command}:\n{text}");
    }
}

#[test]
fn usage_errors_exit_with_64() {
    for args in [
        &[][..],
        &["--nonsense"],
        &["fly"],
        &["inspect"],
        &["generate", "--top-k", "many", "x"],
        &["demo", "--max-tokens", "0"],
        &["bench", "--streams", "0"],
        &["bench", "--streams", "1,x"],
        &["chat", "--temperature", "hot"],
        &["top", "--interval", "soon"],
    ] {
        let output = hearth(args);
        assert_eq!(
            output.status.code(),
            Some(64),
            "{args:?}: {}",
            stderr(&output)
        );
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn a_service_that_is_away_is_named_on_one_line() {
    let socket = tempfile::tempdir()
        .expect("a temporary directory")
        .path()
        .join("nobody.sock");
    let server = format!("unix:{}", socket.display());
    for args in [
        &["models", "--server", &server][..],
        &["generate", "--server", &server, "x"],
        &["load", "m", "--server", &server],
        &["chat", "-m", "m", "--server", &server],
        &["bench", "--server", &server],
        &["top", "--server", &server],
    ] {
        let output = hearth(args);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(69), "{args:?}: {text}");
        assert!(
            text.starts_with("hearth: cannot reach the inference service at unix:"),
            "{text}"
        );
        assert!(
            text.contains("hearth up") && text.lines().count() == 1,
            "{text}"
        );
    }
    let socket = socket.display().to_string();
    let output = hearth(&["prefetch", "m", "--loader-socket", &socket]);
    assert_eq!(output.status.code(), Some(69));
    assert!(
        stderr(&output).contains("loader daemon"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn up_checks_everything_before_it_starts_anything() {
    for (args, word) in [
        (&["--models", "/nowhere/at/all"][..], "/nowhere/at/all"),
        (&["--models", "/", "--listen", "127.0.0.1:0"], "port"),
        (&["--models", "/", "--device", "abacus"], "--device"),
        (&["--models", "/", "--kv-budget", "plenty"], "--kv-budget"),
        (&["--models", "/", "--pin", "../up"], "--pin"),
    ] {
        let output = hearth(&[&["up"], args].concat());
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(64), "{args:?}: {text}");
        assert!(
            text.contains(word) && text.lines().count() == 1,
            "{args:?}: {text}"
        );
    }
}

#[test]
fn services_refuse_to_outlive_a_parent_that_is_gone() {
    // Process 1 is nobody's parent here: it stands for a parent that died before the service could ask to follow it.
    let output = hearth(&[
        "loader",
        "--models",
        "/",
        "--socket",
        "/tmp/hearth-never.sock",
        "--parent-pid",
        "1",
    ]);
    assert_eq!(output.status.code(), Some(70));
    assert!(stderr(&output).contains("is gone"), "{}", stderr(&output));
}
