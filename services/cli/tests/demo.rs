//! `hearth demo` as a person sees it the first time.

use std::{fs, process::Command};

#[test]
fn three_runs_end_in_a_table_and_leave_nothing_behind() {
    let cache = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory");
    let output = Command::new(env!("CARGO_BIN_EXE_hearth"))
        .args(["demo", "--max-tokens", "6", "--prompt", "The little bird"])
        .env("XDG_CACHE_HOME", cache.path())
        // A variable of a daily set-up that would make a private daemon fail.
        .env("HEARTH_PIN", "no/such/model")
        .output()
        .expect("the binary runs");
    let stdout = String::from_utf8(output.stdout).expect("UTF-8");
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(
        output.status.success(),
        "{}: {stderr}\n{stdout}",
        output.status
    );
    assert_eq!(stderr, "");
    assert_eq!(
        stdout
            .lines()
            .filter(|line| line.starts_with("The little bird"))
            .count(),
        3,
        "{stdout}"
    );
    let row = |name: &str| {
        let line = stdout.lines().find(|line| {
            line.split_whitespace()
                .next()
                .is_some_and(|word| word.trim_end_matches('*') == name)
        });
        line.unwrap_or_else(|| panic!("no row {name}:\n{stdout}"))
    };
    assert!(
        row("RUN").contains("COLD") && row("RUN").contains("FIRST TOKEN"),
        "{stdout}"
    );
    let [cold, hot, warm] = ["cold", "hot", "warm"].map(|name| {
        row(name)
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    });
    // Where a file cannot be made cold, or the file system does not account for reads, the row says so.
    assert!(
        cold[1] == "cold" || stdout.contains("* cold: ") || stdout.contains("does not account"),
        "{stdout}"
    );
    assert_eq!(hot[1], "hot", "{stdout}");
    assert!(
        warm[1] == "warm" || stdout.contains("does not account"),
        "{stdout}"
    );
    assert!(
        stdout.contains("all three runs put out the same 6 tokens"),
        "{stdout}"
    );
    let runs = cache.path().join("hearth").join("demo");
    assert_eq!(fs::read_dir(runs).expect("the demo made it").count(), 0);
}
