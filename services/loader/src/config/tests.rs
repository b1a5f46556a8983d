use super::*;

fn parse(args: &[&str]) -> Result<Config, String> {
    let args = [
        "hearth-loader",
        "--instance",
        "here",
        "--runtime-dir",
        "/run/user/7",
    ]
    .iter()
    .chain(args);
    let line = CommandLine::try_parse_from(args).map_err(|error| error.to_string())?;
    line.flags.validated().map_err(|error| error.to_string())
}

fn refused(args: &[&str], word: &str) {
    let error = parse(args).expect_err("refused");
    assert!(error.contains(word), "{error}");
}

#[test]
fn defaults() {
    let config = parse(&["--models", "/"]).unwrap();
    assert_eq!(config.socket, Path::new("/run/user/7/hearth/loader.sock"));
    assert_eq!(
        config.handoff_socket,
        Path::new("/run/user/7/hearth/loader.sock.handoff")
    );
    assert_eq!(
        (
            config.cache_budget_bytes,
            config.read_rate_max,
            config.listen
        ),
        (None, None, None)
    );
    assert_eq!(config.rescan_every, Some(Duration::from_mins(1)));
}

#[test]
fn values_are_typed() {
    let args = [
        "--models",
        "/",
        "--socket",
        "/run/l.sock",
        "--handoff-socket",
        "/run/h.sock",
        "--cache-budget",
        "1.5GiB",
    ];
    let more = [
        "--pin",
        "a/b,c",
        "--pin",
        "d",
        "--read-rate-max",
        "20MB",
        "--rescan-every",
        "0",
        "--listen",
        "[::1]:7000",
    ];
    let config = parse(&[&args[..], &more[..]].concat()).unwrap();
    assert_eq!(config.cache_budget_bytes, Some(3 << 29));
    assert_eq!(
        config.pin.iter().map(ModelId::as_str).collect::<Vec<_>>(),
        ["a/b", "c", "d"]
    );
    assert_eq!(config.read_rate_max, Some(20_000_000));
    assert_eq!(config.rescan_every, None);
    assert_eq!(config.listen, Some("[::1]:7000".parse().unwrap()));
}

#[test]
fn bad_values_are_named() {
    refused(&["--models", "/nowhere/at/all"], "--models /nowhere/at/all");
    refused(&["--models", "/", "--pin", "../up"], "--pin");
    refused(
        &["--models", "/", "--cache-budget", "lots"],
        "--cache-budget",
    );
    refused(&["--models", "/", "--cache-budget", "0"], "--cache-budget");
    refused(
        &["--models", "/", "--read-rate-max", "1"],
        "--read-rate-max",
    );
    refused(
        &["--models", "/", "--fetch-threads", "0"],
        "--fetch-threads",
    );
    refused(
        &["--models", "/", "--fetch-threads", "1000"],
        "--fetch-threads",
    );
    refused(&["--models", "/", "--lease-ttl", "0s"], "--lease-ttl");
    refused(
        &[
            "--models",
            "/",
            "--socket",
            "/run/a",
            "--handoff-socket",
            "/tmp/b",
        ],
        "--handoff-socket",
    );
    refused(
        &[
            "--models",
            "/",
            "--socket",
            "/run/a",
            "--handoff-socket",
            "/run/a",
        ],
        "--handoff-socket",
    );
    refused(&["--models", "/", "--socket", "/run/"], "--socket");
    refused(
        &[
            "--models",
            "/",
            "--socket",
            &format!("/{}", "s".repeat(100)),
        ],
        "--socket",
    );
}
