use std::collections::BTreeSet;

use gguf::ExtentId;
use weights::Fetched;

use crate::residency::{
    Action, Completion, ModelExtents, ModelKey, Residency, ResidencyLimits, Wanted,
};

/// Something that may happen to the machine. Models are numbers; their keys change with each attach.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// The model's step goes on if it can: to its first layer, to the next, or to its end.
    Advance(usize),
    /// The model's step is given up.
    Release(usize),
    /// The oldest fetch ends well.
    CompleteOldest,
    /// The newest fetch ends well.
    CompleteNewest,
    /// The oldest fetch fails.
    FailOldest,
    /// The model goes and comes back.
    Reattach(usize),
    /// Its cache is cleared.
    Clear(usize),
    /// Everything of it is wanted at once.
    LoadAll(usize),
}

/// A world of a few models around the machine, with its own idea of what is where.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) machine: Residency,
    pub(super) shapes: Vec<ModelExtents>,
    pub(super) keys: Vec<ModelKey>,
    /// The layer that each model's step is at.
    pub(super) cursors: Vec<Option<usize>>,
    pub(super) in_flight: Vec<(ModelKey, ExtentId)>,
    pub(super) resident: BTreeSet<(ModelKey, ExtentId)>,
    pub(super) budget_bytes: Option<u64>,
    pub(super) steps_done: usize,
}

impl World {
    pub(super) fn new(
        shapes: &[ModelExtents],
        budget_bytes: Option<u64>,
        prefetch_window_bytes: u64,
    ) -> World {
        let limits = ResidencyLimits {
            budget_bytes,
            prefetch_window_bytes,
            max_in_flight: 2,
        };
        let mut world = World {
            machine: Residency::new(limits),
            shapes: shapes.to_vec(),
            keys: (0..shapes.len() as u64).map(ModelKey).collect(),
            cursors: vec![None; shapes.len()],
            in_flight: Vec::new(),
            resident: BTreeSet::new(),
            budget_bytes,
            steps_done: 0,
        };
        for (key, shape) in world.keys.iter().zip(shapes) {
            world.machine.add(*key, shape.clone());
        }
        world
    }

    fn index(&self, key: ModelKey) -> Option<usize> {
        self.keys.iter().position(|&known| known == key)
    }

    fn len_bytes(&self, key: ModelKey, id: ExtentId) -> u64 {
        // Every attach of model i has a key that is i modulo their number.
        let model = usize::try_from(key.0).expect("few attaches") % self.shapes.len();
        self.shapes[model].len_bytes[id.0 as usize]
    }

    fn layer_is_resident(&self, model: usize, layer: usize) -> bool {
        let ids = self.shapes[model].layers[layer].iter();
        ids.copied()
            .all(|id| self.resident.contains(&(self.keys[model], id)))
    }

    /// Whether the model's step stands at a complete layer.
    pub(super) fn is_ready(&self, model: usize) -> bool {
        self.cursors[model].is_some_and(|layer| self.layer_is_resident(model, layer))
    }

    pub(super) fn play(&mut self, event: Event) {
        match event {
            Event::Advance(model) => self.advance(model),
            Event::Release(model) => self.release(model),
            Event::CompleteOldest if !self.in_flight.is_empty() => self.complete(0, true),
            Event::CompleteNewest if !self.in_flight.is_empty() => {
                self.complete(self.in_flight.len() - 1, true)
            }
            Event::FailOldest if !self.in_flight.is_empty() => self.complete(0, false),
            Event::CompleteOldest | Event::CompleteNewest | Event::FailOldest => {}
            Event::Reattach(model) => self.reattach(model),
            Event::Clear(model) => {
                for id in self.machine.clear(self.keys[model]) {
                    self.evicted(self.keys[model], id);
                }
            }
            Event::LoadAll(model) => self.machine.load_all(self.keys[model]),
        }
        self.act();
        self.check();
    }

    fn advance(&mut self, model: usize) {
        let next = match self.cursors[model] {
            None => 0,
            Some(layer) if self.layer_is_resident(model, layer) => layer + 1,
            Some(layer) => layer,
        };
        if next == self.shapes[model].layers.len() {
            self.steps_done += 1;
            return self.release(model);
        }
        let wanted = self.machine.want(self.keys[model], next);
        self.cursors[model] = Some(next);
        assert_eq!(wanted == Wanted::Ready, self.layer_is_resident(model, next));
    }

    fn release(&mut self, model: usize) {
        self.cursors[model] = None;
        self.machine.release(self.keys[model]);
    }

    fn complete(&mut self, index: usize, well: bool) {
        let (key, id) = self.in_flight.remove(index);
        let moved = Fetched {
            cold_bytes: self.len_bytes(key, id),
            warm_bytes: 0,
            unknown_bytes: 0,
            self_read: false,
        };
        let completion = self.machine.completed(key, id, well.then_some(moved));
        let Some(model) = self.index(key) else {
            assert_eq!(completion, Completion::Stale);
            return;
        };
        let wanted =
            self.cursors[model].is_some_and(|layer| self.shapes[model].layers[layer].contains(&id));
        match completion {
            Completion::Resident => {
                assert!(well);
                self.resident.insert((key, id));
            }
            Completion::Failed { step, eager } => {
                assert!(!well);
                assert_eq!(step, wanted, "whoever waits hears of the failure");
                if step {
                    self.release(model);
                }
                if eager {
                    self.machine.stop_load_all(key);
                }
            }
            Completion::Stale => panic!("the model is there"),
        }
    }

    fn reattach(&mut self, model: usize) {
        let key = self.keys[model];
        for id in self.machine.remove(key) {
            assert!(self.resident.remove(&(key, id)));
        }
        assert!(
            self.resident.iter().all(|(other, _)| *other != key),
            "what is resident is handed back"
        );
        self.cursors[model] = None;
        self.keys[model] = ModelKey(key.0 + self.shapes.len() as u64);
        self.machine
            .add(self.keys[model], self.shapes[model].clone());
    }

    /// Does what the machine asks for, each time after checking that it may ask for it.
    fn act(&mut self) {
        while let Some(action) = self.machine.next_action() {
            match action {
                Action::Fetch(key, id) => {
                    assert!(!self.in_flight.contains(&(key, id)), "loaded twice");
                    assert!(
                        !self.resident.contains(&(key, id)),
                        "loaded although resident"
                    );
                    self.in_flight.push((key, id));
                    let of_model = self.in_flight.iter().filter(|(other, _)| *other == key);
                    assert!(of_model.count() <= 2, "too many fetches of one model");
                }
                Action::Evict(key, id) => {
                    let model = self
                        .index(key)
                        .expect("nothing of a model that is gone is evicted");
                    let layer = self.cursors[model].filter(|_| self.is_ready(model));
                    let held =
                        layer.is_some_and(|layer| self.shapes[model].layers[layer].contains(&id));
                    assert!(!held, "evicted from under a step");
                    assert!(!self.shapes[model].pinned, "evicted although pinned");
                    self.evicted(key, id);
                }
            }
        }
    }

    fn evicted(&mut self, key: ModelKey, id: ExtentId) {
        assert!(
            self.resident.remove(&(key, id)),
            "evicted although not resident"
        );
    }

    fn check(&self) {
        let used_bytes: u64 = self
            .in_flight
            .iter()
            .chain(&self.resident)
            .map(|&(key, id)| self.len_bytes(key, id))
            .sum();
        assert_eq!(self.machine.used_bytes(), used_bytes);
        assert!(
            self.budget_bytes
                .is_none_or(|budget_bytes| used_bytes <= budget_bytes),
            "over budget"
        );
        let waits = |model: usize| self.cursors[model].is_some() && !self.is_ready(model);
        let models = 0..self.shapes.len();
        let goes_on =
            !self.in_flight.is_empty() || models.clone().any(|model| self.is_ready(model));
        assert!(
            goes_on || !models.clone().any(waits),
            "somebody waits and nothing is under way"
        );
    }
}
