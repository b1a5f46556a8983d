//! A trace shows what a start on a GPU waits for, phase by phase. Needs a HIP library with a device: HEARTH_HIP_LIBRARY names it.

use std::time::Duration;

use e2e::collector::Collector;
use e2e::node::{Daemon, Launch, Service, workspace};
use nix::sys::signal::Signal;
use opentelemetry_proto::tonic::trace::v1::Span;

/// What opening a GPU does, one after the other.
const PHASES: [&str; 4] = [
    "device.open.library",
    "device.open.driver",
    "device.open.context",
    "device.open.kernels",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opening_a_gpu_shows_each_phase() {
    let library = std::env::var("HEARTH_HIP_LIBRARY").expect("HEARTH_HIP_LIBRARY names a library");
    let (collector, address) = Collector::start().await;
    let home = workspace();
    let models = home.path().join("models");
    std::fs::create_dir(&models).expect("a folder without models");
    let daemon = Daemon::start(home.path(), &models, &Launch::new()).await;
    let launch = Launch::new()
        .flags(["--otlp-endpoint", &format!("http://{address}")])
        .flags(["--device", "hip", "--hip-library", &library]);
    let mut service = Service::start(home.path(), "inference", &daemon, &launch).await;
    // A service serves while its ring is still being pinned, and the whole is told when that has ended.
    while collector.named("device.open").is_empty() {
        assert!(service.process.alive(), "{}", service.process.log());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    service.process.signal(Signal::SIGTERM);
    let log = service.process.log();
    assert!(service.process.wait().success(), "{log}");

    let whole = only(&collector, "device.open");
    let mut time = whole.start_time_unix_nano;
    for name in PHASES {
        let phase = only(&collector, name);
        assert_eq!(phase.parent_span_id, whole.span_id, "{name}");
        assert!(
            time <= phase.start_time_unix_nano
                && phase.start_time_unix_nano <= phase.end_time_unix_nano,
            "{name} begins when the one before it has ended"
        );
        time = phase.end_time_unix_nano;
    }
    let rings = collector.named("device.open.ring");
    assert!(!rings.is_empty(), "memory for copies is pinned");
    for (_, ring) in &rings {
        assert_eq!(ring.parent_span_id, whole.span_id);
        assert!(
            time <= ring.start_time_unix_nano,
            "a context comes before what is pinned in it, beside what follows"
        );
    }
}

fn only(collector: &Collector, name: &str) -> Span {
    let mut spans = collector.named(name);
    assert_eq!(spans.len(), 1, "{name}");
    spans.remove(0).1
}
