//! A collector that accepts and never answers must not keep a process from ending.

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use telemetry::{Config, Error};

#[test]
fn flushing_is_bounded() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let config = Config {
        otlp_endpoint: Some(endpoint),
        ..Config::logs_only()
    };
    let guard = telemetry::init(&config, "hearth-test").unwrap();
    let again = telemetry::init(&Config::logs_only(), "hearth-test");
    assert!(
        matches!(again, Err(Error::AlreadySet(_))),
        "a process has one log"
    );

    tracing::info_span!("last words").in_scope(|| {});
    let began = Instant::now();
    guard.shutdown();
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
}
