use super::*;

fn parse(args: &[&str]) -> Result<Config, String> {
    let fixed = [
        "hearth-inference",
        "--instance",
        "here",
        "--runtime-dir",
        "/run/user/7",
    ];
    let line =
        CommandLine::try_parse_from(fixed.iter().chain(args)).map_err(|error| error.to_string())?;
    line.flags.validated().map_err(|error| error.to_string())
}

fn refused(args: &[&str], word: &str) {
    let error = parse(args).expect_err("refused");
    assert!(error.contains(word), "{args:?}: {error}");
}

#[test]
fn defaults() {
    let config = parse(&[]).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:50051");
    assert_eq!(
        config.loader_socket,
        Path::new("/run/user/7/hearth/loader.sock")
    );
    assert_eq!(config.device.device, DeviceChoice::Auto);
    assert_eq!(config.weights_budget_bytes, None);
    assert_eq!(config.kv_budget_bytes, None);
    assert!(config.auto_attach);
    assert!(!config.pin_threads);
    assert!(config.preload.is_empty());
}

#[test]
fn values_are_typed() {
    let config = parse(&[
        "--listen",
        "unix:/run/i.sock",
        "--preload",
        "a/b,c",
        "--preload",
        "d",
        "--weights-budget",
        "1.5GiB",
        "--no-auto-attach",
        "--pin-threads",
        "--drain-timeout",
        "500ms",
        "--device",
        "reference",
    ])
    .unwrap();
    assert_eq!(config.listen, Address::Unix("/run/i.sock".into()));
    assert_eq!(config.preload, ["a/b", "c", "d"]);
    assert_eq!(config.weights_budget_bytes, Some(3 << 29));
    assert!(!config.auto_attach);
    assert!(config.pin_threads);
    assert_eq!(config.drain_timeout, Duration::from_millis(500));
    assert_eq!(config.device.device, DeviceChoice::Reference);
}

#[test]
fn devices_are_spelled_as_they_are_said() {
    for (text, device) in [
        ("auto", DeviceChoice::Auto),
        ("cpu", DeviceChoice::Cpu),
        ("reference", DeviceChoice::Reference),
        ("hip:0", DeviceChoice::Hip { index: 0 }),
        ("hip:11", DeviceChoice::Hip { index: 11 }),
    ] {
        assert_eq!(parse(&["--device", text]).unwrap().device.device, device);
        assert_eq!(device.to_string(), text);
    }
    let first = parse(&[
        "--device",
        "hip",
        "--hip-library",
        "/x.so",
        "--kv-type",
        "f16",
    ]);
    let first = first.unwrap().device;
    assert_eq!(first.device, DeviceChoice::Hip { index: 0 });
    assert_eq!(first.hip_library, Some("/x.so".into()));
    assert_eq!(first.kv_type, Some(KvChoice::F16));
    assert!(!first.batch_invariant);
}

#[test]
fn bad_values_are_named() {
    for device in ["hip:", "hip:-1", "hip:x", "hip1", "cuda", ""] {
        refused(&["--device", device], "--device");
    }
    refused(&["--kv-type", "q8_0"], "--kv-type");
    refused(&["--listen", "nowhere"], "--listen");
    refused(&["--device", "abacus"], "--device");
    refused(&["--kv-budget", "0"], "--kv-budget");
    refused(&["--weights-budget", "0"], "--weights-budget");
    refused(&["--weights-budget", "much"], "--weights-budget");
    refused(&["--max-running", "0"], "--max-running");
    refused(&["--max-running", "5000"], "--max-running");
    refused(&["--threads", "2000"], "--threads");
    refused(&["--max-message-bytes", "1KiB"], "--max-message-bytes");
    refused(&["--fetch-timeout", "0"], "--fetch-timeout");
    refused(&["--slow-client-timeout", "0s"], "--slow-client-timeout");
    refused(&["--trace-ratio", "2"], "--trace-ratio");
}
