//! Traces tell a cold load from a warm one, across both processes, in the caller's own trace.
#![expect(
    clippy::too_many_lines,
    reason = "a test tells one story from beginning to end"
)]

use std::collections::BTreeMap;

use e2e::client;
use e2e::collector::Collector;
use e2e::model::Llama;
use e2e::node::{Daemon, Launch, Service, workspace};
use nix::sys::signal::Signal;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn numbers(span: &Span) -> BTreeMap<String, i64> {
    let number = |value: Option<Value>| {
        if let Some(Value::IntValue(number)) = value {
            Some(number)
        } else {
            None
        }
    };
    span.attributes
        .iter()
        .filter_map(|attribute| {
            Some((
                attribute.key.clone(),
                number(attribute.value.clone()?.value)?,
            ))
        })
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_links_to_the_one_load_that_served_it() {
    let (collector, address) = Collector::start().await;
    let endpoint = format!("http://{address}");
    let home = workspace();
    let models = home.path().join("models");
    let file = models.join("m.gguf");
    let tensor_bytes = Llama::large_extents()
        .write(&file)
        .expect("the model is written");
    e2e::proc::drop_page_cache(&file).expect("the cache can be dropped");
    let traced = Launch::new().flags(["--otlp-endpoint", endpoint.as_str()]);
    let mut daemon = Daemon::start(home.path(), &models, &traced).await;
    let mut service = Service::start(home.path(), "inference", &daemon, &traced).await;

    let mut tasks = tokio::task::JoinSet::new();
    for parent in ["00f067aa0ba902b7", "00f067aa0ba902b8"] {
        let mut client = service.client().await;
        let mut request = tonic::Request::new(client::greedy("m", &[1, 2, 3], 2));
        request.metadata_mut().insert(
            "traceparent",
            format!("00-{TRACE_ID}-{parent}-01").parse().expect("ASCII"),
        );
        tasks.spawn(async move {
            client::Completion::collect(client.generate(request).await?.into_inner()).await
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("the reader lives").expect("two tokens");
    }
    // Ending the processes flushes what they have recorded.
    service.process.signal(Signal::SIGTERM);
    assert!(
        service.process.wait().success(),
        "{}",
        service.process.log()
    );
    daemon.process.signal(Signal::SIGTERM);
    assert!(daemon.process.wait().success(), "{}", daemon.process.log());

    let requests = collector.named("hearth.inference.v1.InferenceService/Generate");
    assert_eq!(requests.len(), 2, "a span per request");
    assert!(requests.iter().all(|(service, span)| service == "hearth-inference" && hex(&span.trace_id) == TRACE_ID));
    let mut parents: Vec<String> = requests
        .iter()
        .map(|(_, span)| hex(&span.parent_span_id))
        .collect();
    parents.sort();
    assert_eq!(
        parents,
        ["00f067aa0ba902b7", "00f067aa0ba902b8"],
        "the caller's spans are the parents"
    );

    let loads = collector.named("model.load");
    assert_eq!(loads.len(), 1, "two requests, one load");
    let load = &loads[0].1;
    let acquires = collector.named("model.acquire");
    assert_eq!(
        acquires.len(),
        2,
        "each request waits on the model in a span of its own"
    );
    for (_, acquire) in &acquires {
        assert!(
            requests
                .iter()
                .any(|(_, request)| request.span_id == acquire.parent_span_id),
            "it belongs to its request"
        );
        assert!(
            acquire
                .links
                .iter()
                .any(|link| link.span_id == load.span_id),
            "it links to the load that served it"
        );
    }
    // Attaching reads no weight: they come by the fetches that the requests wait for, in one span whoever asked first.
    let fetches = collector.named("model.fetch");
    assert_eq!(fetches.len(), 1, "two requests, one fetch of everything");
    let numbers = numbers(&fetches[0].1);
    let waits = collector.named("model.wait");
    assert!(!waits.is_empty(), "somebody waits for the weights");
    for (_, wait) in &waits {
        assert!(
            wait.links
                .iter()
                .any(|link| link.span_id == fetches[0].1.span_id),
            "a wait links to the fetches that it waited for"
        );
    }
    let bytes = |kind: &str| {
        numbers
            .get(&format!("model.load.{kind}_bytes"))
            .copied()
            .unwrap_or_else(|| panic!("{kind} in {numbers:?}"))
    };
    assert_eq!(
        bytes("cold") + bytes("warm"),
        i64::try_from(tensor_bytes).expect("it fits"),
        "{numbers:?}"
    );

    let daemons: Vec<_> = collector.named("hearth.loader.v1.LoaderService/AcquireLease");
    assert!(
        daemons
            .iter()
            .any(|(service, span)| service == "hearth-loader" && span.trace_id == load.trace_id),
        "the daemon joins the load's trace"
    );
    for phase in [
        "model.load.lease",
        "model.load.hand_off",
        "model.load.tokenizer",
        "model.load.plan",
    ] {
        assert!(
            collector
                .named(phase)
                .iter()
                .any(|(_, span)| span.parent_span_id == load.span_id),
            "the load has no phase {phase}"
        );
    }
}
