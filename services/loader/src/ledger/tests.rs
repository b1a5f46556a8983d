use super::*;

fn key(generation: u64, extent: u32) -> Key {
    Key {
        generation,
        extent: ExtentId(extent),
    }
}

fn extents(keys: &[Key]) -> Vec<u32> {
    keys.iter().map(|key| key.extent.0).collect()
}

const A: LeaseId = LeaseId(1);
const B: LeaseId = LeaseId(2);

#[test]
fn without_a_budget_nothing_is_dropped() {
    let mut ledger = Ledger::new(None);
    for extent in 0..100 {
        ledger.use_extent(key(1, extent), 1 << 40);
    }
    assert!(ledger.take_excess().is_empty());
    assert_eq!(ledger.room_for(1), None);
}

#[test]
fn the_least_recently_used_goes_first() {
    let mut ledger = Ledger::new(Some(30));
    for extent in [0, 1, 2] {
        ledger.use_extent(key(1, extent), 10);
    }
    ledger.use_extent(key(1, 0), 10);
    assert!(ledger.take_excess().is_empty());
    ledger.use_extent(key(1, 3), 15);
    assert_eq!(extents(&ledger.take_excess()), [1, 2]);
    assert_eq!(ledger.total_bytes(), 25);
}

#[test]
fn what_is_held_stays() {
    let mut ledger = Ledger::new(Some(10));
    ledger.hold(A, key(1, 0), 10);
    ledger.hold(B, key(1, 0), 10);
    ledger.use_extent(key(1, 1), 10);
    assert_eq!(extents(&ledger.take_excess()), [1]);
    ledger.let_go(A, key(1, 0));
    ledger.use_extent(key(1, 2), 10);
    assert_eq!(extents(&ledger.take_excess()), [2]);
    ledger.end(B);
    ledger.use_extent(key(1, 3), 10);
    assert_eq!(extents(&ledger.take_excess()), [0]);
}

#[test]
fn holding_twice_is_holding_once() {
    let mut ledger = Ledger::new(Some(0));
    ledger.hold(A, key(1, 0), 10);
    ledger.hold(A, key(1, 0), 10);
    ledger.let_go(A, key(1, 0));
    ledger.let_go(A, key(1, 0));
    assert_eq!(extents(&ledger.take_excess()), [0]);
    assert_eq!(ledger.total_bytes(), 0);
}

#[test]
fn what_is_pinned_stays_and_takes_room() {
    let mut ledger = Ledger::new(Some(20));
    ledger.use_extent(key(1, 0), 15);
    ledger.pin(1, 15);
    ledger.use_extent(key(2, 7), 10);
    assert_eq!(extents(&ledger.take_excess()), [7]);
    assert_eq!(ledger.room_for(2), Some(5));
    assert_eq!(ledger.room_for(1), Some(20));
    ledger.unpin(1);
    assert_eq!(ledger.room_for(2), Some(20));
    ledger.use_extent(key(2, 7), 10);
    assert_eq!(extents(&ledger.take_excess()), [0]);
}

#[test]
fn forgotten_contents_leave_nothing() {
    let mut ledger = Ledger::new(Some(0));
    ledger.pin(1, 15);
    ledger.hold(A, key(1, 0), 10);
    ledger.forget(1);
    assert_eq!(ledger.total_bytes(), 0);
    ledger.end(A);
    assert!(ledger.take_excess().is_empty());
}

/// Every order of thirteen events on three extents, up to five deep: totals and lists agree, and nothing that is held or pinned is dropped.
#[test]
fn every_order_of_events() {
    const KINDS: usize = 13;
    for depth in 1..=5 {
        for history in 0..KINDS.pow(depth) {
            let mut ledger = Ledger::new(Some(20));
            let mut rest = history;
            for _ in 1..depth {
                apply(&mut ledger, rest % KINDS);
                rest /= KINDS;
                ledger.take_excess();
            }
            apply(&mut ledger, rest);
            check_excess(&mut ledger, history);
        }
    }
}

fn apply(ledger: &mut Ledger, kind: usize) {
    match kind {
        0 => ledger.use_extent(key(1, 0), 10),
        1 => ledger.use_extent(key(1, 1), 10),
        2 => ledger.use_extent(key(1, 2), 10),
        3 => ledger.use_extent(key(2, 0), 10),
        4 => ledger.hold(A, key(1, 0), 10),
        5 => ledger.hold(B, key(1, 0), 10),
        6 => ledger.hold(A, key(2, 0), 10),
        7 => ledger.let_go(A, key(1, 0)),
        8 => ledger.end(A),
        9 => ledger.end(B),
        10 => ledger.pin(1, 15),
        11 => ledger.unpin(1),
        _ => ledger.forget(1),
    }
}

fn check_excess(ledger: &mut Ledger, history: usize) {
    let held: HashSet<Key> = ledger.holds.values().flatten().copied().collect();
    let excess = ledger.take_excess();
    let kept = |key: &Key| held.contains(key) || ledger.pinned.contains_key(&key.generation);
    assert!(!excess.iter().any(kept), "history {history}: {excess:?}");
    let total: u64 = ledger.entries.values().map(|entry| entry.len_bytes).sum();
    assert_eq!(ledger.total_bytes(), total, "history {history}");
    let idle: HashSet<Key> = ledger.idle.values().copied().collect();
    let free: HashSet<Key> = ledger
        .entries
        .keys()
        .filter(|key| !held.contains(key) && !ledger.pinned.contains_key(&key.generation))
        .copied()
        .collect();
    assert_eq!(idle, free, "history {history}");
    assert!(total <= 20 || idle.is_empty(), "history {history}");
}
