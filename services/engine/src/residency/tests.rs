mod world;

use proptest::prelude::*;

use super::*;
use world::{Event, World};

fn extents(len_bytes: &[u64], layers: &[&[u32]]) -> ModelExtents {
    ModelExtents {
        len_bytes: len_bytes.to_vec(),
        layers: layers
            .iter()
            .map(|ids| ids.iter().copied().map(ExtentId).collect())
            .collect(),
        routed: vec![false; layers.len()],
        pinned: false,
    }
}

/// Two small models; in the first one the output uses the embedding's extent. Largest layers: 7 and 5 bytes.
fn two_models() -> [ModelExtents; 2] {
    [
        extents(&[4, 2, 2, 3], &[&[0], &[1, 2], &[0, 3]]),
        extents(&[3, 5], &[&[0], &[1]]),
    ]
}

fn every_order(world: &World, events: &[Event], depth: usize) {
    if depth == 0 {
        return;
    }
    for &event in events {
        let mut next = world.clone();
        next.play(event);
        every_order(&next, events, depth - 1);
    }
}

#[test]
fn every_order_of_events_with_the_smallest_budget() {
    use Event::{Advance, Clear, CompleteNewest, CompleteOldest, FailOldest, Reattach, Release};
    let events = [
        Advance(0),
        Advance(1),
        CompleteOldest,
        CompleteNewest,
        FailOldest,
        Release(0),
        Reattach(0),
        Clear(0),
    ];
    every_order(&World::new(&two_models(), Some(7), 100), &events, 5);
}

#[test]
fn every_order_of_events_with_eager_loads() {
    use Event::{Advance, CompleteOldest, FailOldest, LoadAll, Reattach};
    let events = [
        Advance(0),
        Advance(1),
        CompleteOldest,
        FailOldest,
        LoadAll(0),
        Reattach(0),
    ];
    every_order(&World::new(&two_models(), Some(16), 3), &events, 6);
    every_order(&World::new(&two_models(), None, 0), &events, 5);
}

/// Completes fetches and advances steps until every model has done `n` more steps.
fn run_steps(world: &mut World, n: usize) {
    let goal = world.steps_done + n;
    for _ in 0..10_000 {
        for model in 0..world.shapes.len() {
            if world.cursors[model].is_none() || world.is_ready(model) {
                world.play(Event::Advance(model));
            }
        }
        world.play(Event::CompleteOldest);
        if world.steps_done >= goal {
            return;
        }
    }
    panic!("no progress: {world:?}");
}

fn shape() -> impl Strategy<Value = ModelExtents> {
    let layer = prop::collection::vec(1u64..20, 1..4);
    (prop::collection::vec(layer, 1..8), any::<bool>()).prop_map(|(layers, tied)| {
        let len_bytes = layers.concat();
        let mut ids = (0..).map(ExtentId);
        let mut layers: Vec<Vec<ExtentId>> = layers
            .iter()
            .map(|layer| ids.by_ref().take(layer.len()).collect())
            .collect();
        if tied && layers.len() > 1 {
            layers.last_mut().expect("a layer").push(ExtentId(0));
        }
        ModelExtents {
            len_bytes,
            routed: vec![false; layers.len()],
            layers,
            pinned: false,
        }
    })
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..3usize).prop_map(Event::Advance),
        1 => (0..3usize).prop_map(Event::Release),
        5 => Just(Event::CompleteOldest),
        3 => Just(Event::CompleteNewest),
        1 => Just(Event::FailOldest),
        1 => (0..3usize).prop_map(Event::Reattach),
        1 => (0..3usize).prop_map(Event::Clear),
    ]
}

fn largest_layer_bytes(shape: &ModelExtents) -> u64 {
    let bytes = shape
        .layers
        .iter()
        .map(|ids| ids.iter().map(|id| shape.len_bytes[id.0 as usize]).sum());
    bytes.max().unwrap_or(0)
}

proptest! {
    /// `World` asserts at each event: never over budget, loaded once, evicted only if unheld, failures heard, nobody left waiting. Afterwards steps still come to their ends.
    #[test]
    fn any_events_then_steps_finish(
        shapes in prop::collection::vec(shape(), 3),
        events in prop::collection::vec(event(), 0..120),
        (slack, window) in (0u64..60, 0u64..60),
    ) {
        let least = shapes.iter().map(largest_layer_bytes).max().unwrap_or(0);
        let mut world = World::new(&shapes, Some(least + slack), window);
        for event in events {
            world.play(event);
        }
        run_steps(&mut world, 6);
    }
}

#[test]
fn one_fetch_serves_everybody_and_is_counted() {
    let mut world = World::new(&two_models(), None, 0);
    world.play(Event::Advance(0));
    world.play(Event::Advance(0));
    assert_eq!(world.in_flight, [(ModelKey(0), ExtentId(0))]);
    let before = world.machine.now();
    world.play(Event::CompleteOldest);
    let since = world.machine.now();
    assert!(
        world
            .machine
            .moved_since(ModelKey(0), ExtentId(0), before)
            .is_some()
    );
    assert!(
        world
            .machine
            .moved_since(ModelKey(0), ExtentId(0), since)
            .is_none()
    );
    run_steps(&mut world, 4);
    let counters = world.machine.counters(ModelKey(0));
    assert_eq!((counters.loads, counters.cold_bytes), (4, 11));
    assert_eq!(
        counters.hits + counters.misses,
        counters.misses / 4 * 5 + counters.hits - counters.misses / 4
    );
    assert_eq!(counters.evictions, 0);
}

#[test]
fn a_failed_fetch_can_be_tried_again() {
    let mut world = World::new(&two_models(), None, 0);
    world.play(Event::Advance(0));
    world.play(Event::FailOldest);
    assert!(world.in_flight.is_empty() && world.cursors[0].is_none());
    world.play(Event::Advance(0));
    world.play(Event::CompleteOldest);
    assert!(world.is_ready(0));
    assert_eq!(world.machine.counters(ModelKey(0)).failures, 1);
}

#[test]
fn a_failed_prefetch_waits_until_the_step_gets_there() {
    let mut world = World::new(&two_models()[1..], None, 100);
    world.play(Event::Advance(0));
    world.play(Event::CompleteOldest);
    world.play(Event::FailOldest);
    assert!(world.in_flight.is_empty(), "prefetch does not insist");
    world.play(Event::Advance(0));
    assert_eq!(world.in_flight, [(ModelKey(0), ExtentId(1))]);
}

#[test]
fn prefetch_runs_in_execution_order_within_its_window() {
    // The embedding is 4 bytes, then 2 + 2, then 3 (with the embedding again: 7).
    let check = |window, expected: &[u32]| {
        let mut world = World::new(&two_models()[..1], None, window);
        let mut order = Vec::new();
        world.play(Event::Advance(0));
        while let Some(&(_, id)) = world.in_flight.first() {
            order.push(id.0);
            world.play(Event::CompleteOldest);
        }
        assert_eq!(order, expected, "window {window}");
    };
    check(0, &[0]);
    check(3, &[0, 1]);
    check(4, &[0, 1, 2]);
    check(11, &[0, 1, 2, 3]);
}

#[test]
fn a_model_larger_than_the_budget_keeps_what_it_can() {
    // Ten layers of one extent each, room for six: a plain LRU would load all ten in every step.
    let layers: Vec<[u32; 1]> = (0..10).map(|id| [id]).collect();
    let layers: Vec<&[u32]> = layers.iter().map(<[u32; 1]>::as_slice).collect();
    let mut world = World::new(&[extents(&[1; 10], &layers)], Some(6), 1);
    run_steps(&mut world, 3);
    let before = world.machine.counters(ModelKey(0));
    run_steps(&mut world, 10);
    let loads = world.machine.counters(ModelKey(0)).loads - before.loads;
    assert!((40..=60).contains(&loads), "{loads} loads in ten steps");
}

#[test]
fn idle_models_lose_their_extents_first_the_least_recently_used_before_the_others() {
    let one = || extents(&[4, 4], &[&[0], &[1]]);
    let mut world = World::new(&[one(), one(), one()], Some(16), 0);
    for model in [1, 0] {
        while world.steps_done < 2 - model {
            world.play(Event::Advance(model));
            world.play(Event::CompleteOldest);
        }
    }
    assert_eq!(world.resident.len(), 4);
    world.play(Event::Advance(2));
    let left: Vec<(u64, u32)> = world
        .resident
        .iter()
        .map(|(key, id)| (key.0, id.0))
        .collect();
    assert_eq!(
        left,
        [(0, 0), (0, 1), (1, 0)],
        "model 1 was used longest ago, and needs its last layer last"
    );
}

#[test]
fn pinned_models_keep_their_extents() {
    let mut pinned = two_models()[1].clone();
    pinned.pinned = true;
    let mut world = World::new(&[two_models()[0].clone(), pinned], Some(15), 0);
    assert_eq!(world.machine.fits(&two_models()[0]), Ok(()));
    assert_eq!(
        world.machine.fits(&extents(&[8], &[&[0]])),
        Err(Shortfall {
            need_bytes: 8,
            free_bytes: 7
        })
    );
    while world.steps_done < 1 {
        world.play(Event::Advance(1));
        world.play(Event::CompleteOldest);
    }
    run_steps(&mut world, 8);
    assert_eq!(world.machine.resident_bytes(ModelKey(1)), 8);
    assert_eq!(world.machine.counters(ModelKey(1)).evictions, 0);
}

#[test]
fn an_eager_load_brings_everything_and_lets_steps_pass() {
    let mut world = World::new(&two_models(), Some(16), 0);
    world.play(Event::LoadAll(0));
    world.play(Event::Advance(1));
    while world.machine.resident_bytes(ModelKey(0)) < 11 {
        assert!(!world.in_flight.is_empty(), "the load goes on");
        if world.cursors[1].is_none() || world.is_ready(1) {
            world.play(Event::Advance(1));
        }
        world.play(Event::CompleteOldest);
    }
    run_steps(&mut world, 1);
    assert_eq!(
        world.machine.resident_bytes(ModelKey(0)),
        11,
        "nothing is taken from it while the load stands"
    );
}

#[test]
fn a_model_that_goes_while_loading_leaves_no_bytes_behind() {
    let mut world = World::new(&two_models(), Some(7), 100);
    world.play(Event::Advance(0));
    world.play(Event::Reattach(0));
    assert_eq!(
        world.machine.used_bytes(),
        6,
        "what is being fetched still counts"
    );
    world.play(Event::CompleteOldest);
    world.play(Event::FailOldest);
    assert_eq!(world.machine.used_bytes(), 0);
}

#[test]
fn what_cannot_fit_is_refused_beforehand() {
    let pinned = |len| ModelExtents {
        pinned: true,
        ..extents(&[len], &[&[0]])
    };
    let world = World::new(&two_models(), Some(20), 0);
    let check = |extents: ModelExtents, expected: Result<(), (u64, u64)>| {
        let found = world
            .machine
            .fits(&extents)
            .map_err(|short| (short.need_bytes, short.free_bytes));
        assert_eq!(found, expected, "{extents:?}");
    };
    check(extents(&[20, 20], &[&[0], &[1]]), Ok(()));
    check(extents(&[20, 1], &[&[0, 1]]), Err((21, 20)));
    // A pinned model must leave room for the largest layer of the others.
    check(pinned(13), Ok(()));
    check(pinned(14), Err((21, 20)));
    // So must an eager load, and a model that is pinned later.
    assert_eq!(world.machine.fits_whole(ModelKey(0)), Ok(()));
    let world = World::new(&two_models(), Some(15), 0);
    assert_eq!(
        world
            .machine
            .fits_whole(ModelKey(0))
            .map_err(|short| short.need_bytes),
        Err(16)
    );
    assert_eq!(
        World::new(&two_models(), None, 0)
            .machine
            .fits_whole(ModelKey(0)),
        Ok(())
    );
}
