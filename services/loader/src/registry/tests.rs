use super::*;

fn file(path: &str) -> SeenFile {
    SeenFile {
        path: path.into(),
        stamp: None,
        directory: false,
    }
}

fn found(path: &str) -> Found {
    Found {
        files: vec![file(path)],
        flaw: None,
    }
}

fn invalid(reason: &str, passing: bool) -> Content {
    Content::Invalid {
        reason: reason.to_owned(),
        passing,
    }
}

fn known(entries: &[(&str, &str, bool)]) -> BTreeMap<String, Arc<Model>> {
    let model = |(id, path, passing): &(&str, &str, bool)| {
        let model = Model {
            id: (*id).to_owned(),
            generation: 1,
            files: vec![file(path)],
            content: invalid("bad", *passing),
        };
        ((*id).to_owned(), Arc::new(model))
    };
    entries.iter().map(model).collect()
}

#[test]
fn a_walk_against_the_list() {
    let check =
        |before: &[(&str, &str, bool)], now: &[(&str, &str)], opened: &[&str], removed: &[&str]| {
            let now = now
                .iter()
                .map(|(id, path)| ((*id).to_owned(), found(path)))
                .collect();
            let diff = diff(&known(before), now);
            assert_eq!(
                diff.open
                    .iter()
                    .map(|(id, _)| id.as_str())
                    .collect::<Vec<_>>(),
                opened
            );
            assert_eq!(diff.removed, removed);
        };
    check(&[], &[("a", "a.gguf")], &["a"], &[]);
    check(&[("a", "a.gguf", false)], &[("a", "a.gguf")], &[], &[]);
    check(
        &[("a", "a.gguf", false)],
        &[("a", "a-00001-of-00001.gguf")],
        &["a"],
        &[],
    );
    check(
        &[("a", "a.gguf", false), ("b", "b.gguf", false)],
        &[("b", "b.gguf"), ("c", "c.gguf")],
        &["c"],
        &["a"],
    );
    check(&[("a", "a.gguf", true)], &[("a", "a.gguf")], &["a"], &[]);
}

#[test]
fn the_same_failure_is_no_news() {
    let mut list = List::default();
    let first = list
        .replace(
            "a".to_owned(),
            invalid("too short", false),
            vec![file("a.gguf")],
        )
        .unwrap();
    assert_eq!(first.generation, 1);
    assert!(
        list.replace(
            "a".to_owned(),
            invalid("too short", false),
            vec![file("b.gguf")]
        )
        .is_none()
    );
    assert_eq!(list.models["a"].files, [file("b.gguf")]);
    let next = list
        .replace(
            "a".to_owned(),
            invalid("malformed", false),
            vec![file("b.gguf")],
        )
        .unwrap();
    assert_eq!(next.generation, 2);
}

#[test]
fn numbers_are_never_used_twice() {
    let mut list = List::default();
    let mut generations = BTreeSet::new();
    for (id, reason) in [("a", "1"), ("b", "1"), ("a", "2"), ("a", "1")] {
        let model = list
            .replace(id.to_owned(), invalid(reason, false), Vec::new())
            .unwrap();
        assert!(generations.insert(model.generation));
    }
}

#[test]
fn reasons_are_one_short_line() {
    assert_eq!(shortened("a\nb\u{7}c"), "a b c");
    assert_eq!(shortened(&"x".repeat(10_000)).len(), REASON_CHARS_MAX);
}

#[tokio::test]
async fn watchers_hear_of_pins_and_latecomers_see_them() {
    let registry = Registry::new();
    registry
        .lock()
        .replace("a".to_owned(), invalid("bad", false), Vec::new());
    let (models, mut changes) = registry.watch();
    assert_eq!(models.len(), 1);
    registry.pin("a");
    registry.pin("a");
    registry.pin("not there yet");
    assert_eq!(changes.recv().await.unwrap().updated[0].id, "a");
    assert!(changes.try_recv().is_err());
    assert!(registry.is_pinned("a"));
    assert_eq!(registry.pinned(), ["a", "not there yet"]);
}
