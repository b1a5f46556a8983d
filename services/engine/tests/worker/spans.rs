//! What a trace shows: one span for a load, one for each request's wait, and a link between them.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::model::{Tiny, write};
use crate::support::{attach, collect, complete, config, prompt, request, start};

#[derive(Clone, Debug, Default)]
struct Span {
    name: String,
    parent: Option<u64>,
    fields: BTreeMap<String, String>,
    follows: Vec<u64>,
    closed: bool,
}

/// Keeps every span, by id from 1.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<Span>>>);

struct Fields<'a>(&'a mut BTreeMap<String, String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }
}

impl Recorder {
    fn with<T>(&self, f: impl FnOnce(&mut Vec<Span>) -> T) -> T {
        f(&mut self.0.lock().expect("nothing panics while it holds this"))
    }

    fn change(&self, id: &Id, f: impl FnOnce(&mut Span)) {
        self.with(|spans| f(&mut spans[usize::try_from(id.into_u64()).expect("few spans") - 1]));
    }

    /// The spans called `name`, with their ids.
    fn named(&self, name: &str) -> Vec<(u64, Span)> {
        self.with(|spans| {
            (1..)
                .zip(spans.iter().cloned())
                .filter(|(_, span)| span.name == name)
                .collect()
        })
    }
}

impl Subscriber for Recorder {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut span = Span {
            name: attributes.metadata().name().to_owned(),
            parent: attributes.parent().map(Id::into_u64),
            ..Span::default()
        };
        attributes.record(&mut Fields(&mut span.fields));
        self.with(|spans| {
            spans.push(span);
            Id::from_u64(spans.len() as u64)
        })
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        self.change(id, |span| values.record(&mut Fields(&mut span.fields)));
    }

    fn record_follows_from(&self, id: &Id, follows: &Id) {
        self.change(id, |span| span.follows.push(follows.into_u64()));
    }

    fn event(&self, _: &Event<'_>) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}

    fn try_close(&self, id: Id) -> bool {
        self.change(&id, |span| span.closed = true);
        true
    }
}

#[tokio::test]
async fn waits_are_children_of_their_requests_and_follow_the_one_load() {
    let recorder = Recorder::default();
    // The worker is another thread, so the recorder has to be everybody's; other tests of this process only add spans of other models.
    tracing::subscriber::set_global_default(recorder.clone()).expect("the only test that sets one");
    let engine = start(config());
    let source = attach(&engine, "traced", &write(Tiny::LLAMA)).await;
    source.gate().close();
    let spans: Vec<tracing::Span> = (0..2)
        .map(|n| tracing::info_span!("test.request", n))
        .collect();
    let streams: Vec<_> = (0..)
        .zip(&spans)
        .map(|(n, span)| {
            let mut request = request("traced", prompt(n, 9), 3);
            request.span = span.clone();
            engine.submit(request).expect("room")
        })
        .collect();
    source.gate().wait_for_somebody();
    source.gate().open();
    for stream in streams {
        collect(stream).await.expect("an answer");
    }
    complete(&engine, request("traced", prompt(3, 9), 3))
        .await
        .expect("an answer");
    engine.shutdown().await;

    let loads = recorder.named("model.fetch");
    let loads: Vec<_> = loads
        .iter()
        .filter(|(_, span)| span.fields["model"] == "traced")
        .collect();
    assert_eq!(loads.len(), 1, "a hot request loads nothing");
    let (load_id, load) = loads[0];
    assert!(load.closed && load.parent.is_none());
    assert_eq!(load.fields["cold_bytes"], source.total_bytes().to_string());
    assert_eq!(load.fields["extents"], source.fetched().len().to_string());
    assert!(load.fields.contains_key("stalled_us") && load.fields.contains_key("overlapped_us"));

    let requests: Vec<u64> = recorder
        .named("test.request")
        .into_iter()
        .map(|(id, _)| id)
        .collect();
    let waits = recorder.named("model.wait");
    let waits: Vec<_> = waits
        .iter()
        .filter(|(_, span)| span.parent.is_some_and(|parent| requests.contains(&parent)))
        .collect();
    assert!(!waits.is_empty());
    for (_, wait) in waits {
        assert_eq!(wait.follows, [*load_id]);
        assert!(wait.closed);
        assert_eq!(wait.fields["cold_bytes"], source.total_bytes().to_string());
        assert!(wait.fields["stalls"].parse::<u64>().expect("a number") > 0);
    }
}
