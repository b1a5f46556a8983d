//! Which extents are on the device: a pure state machine that the worker owns.
//!
//! Every extent of every attached model is `Unloaded`, `Loading` or `Resident`. The worker tells what happened ([`want`](Residency::want), [`completed`](Residency::completed), …) and then asks
//! [`next_action`](Residency::next_action) what to do until nothing is left. Nothing here reads a byte, looks at a clock or waits.
//!
//! # Why a layer is wanted by a model and not by a sequence
//! A model runs one step at a time, and a step stands at one layer. So a model has one cursor, the layer under it is what the step holds, and load once follows from the state of the extent: however many
//! sequences are in the step, an extent that is `Loading` is not asked for again.
//!
//! # Why it cannot stall
//! Cursors that wait are served in the order in which they began to wait. The oldest may take room from whatever younger ones have gathered, because a step that waits computes nothing; it may not
//! take it from a cursor that is ready, because that one is about to be used and will move on. Each time a cursor moves it queues anew, so models alternate when the budget holds only one layer.
//!
//! # Why not plain LRU
//! A model reads its layers in a circle. If it is larger than the budget, the least recently used extent is exactly the one that it needs next, and every token would read the whole model again. So models that
//! have no step running lose extents first, the least recently used model before the others; among models in use, the extent whose next use in execution order is furthest away goes. Prefetch never evicts what is
//! needed sooner than what it brings.
//!
//! # Layers of which a step uses a part
//! Which experts a step needs is known only when it stands before them. So they are not fetched ahead, and of two experts of one layer the one that was used longer ago goes first.

mod ask;
mod counters;
mod evict;
mod model;
mod wish;

use std::collections::{BTreeMap, HashMap};

use gguf::ExtentId;
use weights::Fetched;

pub use counters::Counters;
use model::{Model, State};
use wish::Wish;

/// One attach of one model: the generation. Never used twice, so that what arrives late for an earlier attach is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelKey(pub u64);

/// What bounds the state machine.
#[derive(Clone, Copy, Debug)]
pub struct ResidencyLimits {
    /// Bytes of extents that may be loading or resident at once; `None` for no bound.
    pub budget_bytes: Option<u64>,
    /// How far ahead of a step extents are fetched, in bytes along the execution order; 0 switches prefetch off.
    pub prefetch_window_bytes: u64,
    /// Fetches of one model that may run at once.
    pub max_in_flight: usize,
}

/// What there is to know about a model that joins.
#[derive(Clone, Debug)]
pub struct ModelExtents {
    /// Length of each extent, by [`ExtentId`].
    pub len_bytes: Vec<u64>,
    /// The extents of each layer, layers in execution order. Inside a layer they are fetched in this order.
    pub layers: Vec<Vec<ExtentId>>,
    /// For each layer whether a step uses only some of its extents, and only it knows which. They are not fetched ahead.
    pub routed: Vec<bool>,
    /// Whether extents stay once they are resident.
    pub pinned: bool,
}

/// Something for the worker to do, in the order given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start a fetch; its end is reported by [`Residency::completed`].
    Fetch(ModelKey, ExtentId),
    /// Let go of the extent's memory.
    Evict(ModelKey, ExtentId),
}

/// What the end of a fetch meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// The model is gone; the memory must be let go.
    Stale,
    /// The extent is resident.
    Resident,
    /// The fetch failed. Nothing is spoilt: it is tried again when a step or an eager load asks anew.
    Failed {
        /// The model's step stands at this extent's layer.
        step: bool,
        /// An eager load of the model runs.
        eager: bool,
    },
}

/// The budget is too small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortfall {
    /// Bytes that must be there at once.
    pub need_bytes: u64,
    /// Bytes that can be had.
    pub free_bytes: u64,
}

/// Whether a layer can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All of its extents are resident, and held until the cursor moves.
    Ready,
    /// Some are on their way.
    Waiting,
}

/// The state machine.
#[derive(Clone, Debug)]
pub struct Residency {
    limits: ResidencyLimits,
    models: BTreeMap<ModelKey, Model>,
    /// Fetches that still run for models that are gone; their bytes count until they end.
    orphans: HashMap<(ModelKey, ExtentId), u64>,
    used_bytes: u64,
    /// Counts events, for order of use and for tickets.
    clock: u64,
}

impl Residency {
    /// An empty machine.
    pub fn new(limits: ResidencyLimits) -> Residency {
        Residency {
            limits,
            models: BTreeMap::new(),
            orphans: HashMap::new(),
            used_bytes: 0,
            clock: 0,
        }
    }

    /// Takes a model in; all of its extents are unloaded.
    pub fn add(&mut self, key: ModelKey, extents: ModelExtents) {
        let clock = self.tick();
        let model = Model::new(extents, clock);
        let before = self.models.insert(key, model);
        assert!(before.is_none(), "a generation is added once");
    }

    /// Keeps the model's extents from now on; the caller has seen that it [fits whole](Residency::fits_whole).
    pub fn pin(&mut self, key: ModelKey) {
        self.model_mut(key).pinned = true;
    }

    /// Forgets a model. Its resident extents are returned, to be let go; what is still being fetched ends as [`Completion::Stale`].
    pub fn remove(&mut self, key: ModelKey) -> Vec<ExtentId> {
        let Some(model) = self.models.remove(&key) else {
            return Vec::new();
        };
        let mut resident = Vec::new();
        for (id, entry) in model.entries() {
            match entry.state {
                State::Unloaded => {}
                State::Loading => {
                    self.orphans.insert((key, id), entry.len_bytes);
                }
                State::Resident => {
                    self.used_bytes -= entry.len_bytes;
                    resident.push(id);
                }
            }
        }
        resident
    }

    /// Moves the model's cursor to `layer`, in the name of its step: the layer before is let go, this one is held.
    ///
    /// Asking again for the layer that the cursor is at only tells how things stand.
    pub fn want(&mut self, key: ModelKey, layer: usize) -> Wanted {
        let clock = self.tick();
        self.model_mut(key).want(layer, None, clock)
    }

    /// As [`want`](Residency::want), for a layer of which the step uses only the extents `chosen`: the others are neither fetched nor held.
    pub fn want_some(&mut self, key: ModelKey, layer: usize, chosen: &[ExtentId]) -> Wanted {
        let clock = self.tick();
        self.model_mut(key).want(layer, Some(chosen), clock)
    }

    /// The model's step is over or given up: nothing is held in its name.
    pub fn release(&mut self, key: ModelKey) {
        let clock = self.tick();
        if let Some(model) = self.models.get_mut(&key) {
            model.cursor = None;
            model.last_used = clock;
        }
    }

    /// Asks for everything that the model has, to be resident at once. Eager loads run one after the other.
    pub fn load_all(&mut self, key: ModelKey) {
        let clock = self.tick();
        let model = self.model_mut(key);
        model.eager.get_or_insert(clock);
        model.forgive();
    }

    /// Gives up an eager load; what it brought stays.
    pub fn stop_load_all(&mut self, key: ModelKey) {
        if let Some(model) = self.models.get_mut(&key) {
            model.eager = None;
        }
    }

    /// The end of a fetch that [`Action::Fetch`] started. `moved` is `None` when it failed.
    pub fn completed(
        &mut self,
        key: ModelKey,
        extent: ExtentId,
        moved: Option<Fetched>,
    ) -> Completion {
        let clock = self.tick();
        let Some(model) = self.models.get_mut(&key) else {
            let orphan = self.orphans.remove(&(key, extent));
            self.used_bytes -= orphan.expect("what loads for a model that is gone was counted");
            return Completion::Stale;
        };
        let completion = model.completed(extent, moved, clock);
        if completion != Completion::Resident {
            self.used_bytes -= model.entry(extent).len_bytes;
        }
        completion
    }

    /// Lets go of everything of the model that no step holds and that is not being fetched; returns what to evict.
    pub fn clear(&mut self, key: ModelKey) -> Vec<ExtentId> {
        let model = self.models.get_mut(&key).expect("an attached model");
        let unheld = model.resident_unheld();
        for &id in &unheld {
            self.used_bytes -= model.unload(id);
        }
        unheld
    }

    /// What to do next, if anything. Its effect is already counted when this returns, so ask until it answers `None`.
    pub fn next_action(&mut self) -> Option<Action> {
        let urgent = self.next_wanted().or_else(|| self.next_eager());
        if let Some(wish) = urgent {
            // Room goes to the most urgent wish; what is less urgent must not take it meanwhile.
            return self.grant(wish);
        }
        let ahead: Vec<Wish> = self.wishes_ahead().collect();
        ahead.into_iter().find_map(|wish| self.grant(wish))
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn model_mut(&mut self, key: ModelKey) -> &mut Model {
        self.models.get_mut(&key).expect("an attached model")
    }

    fn model(&self, key: ModelKey) -> &Model {
        self.models.get(&key).expect("an attached model")
    }
}

#[cfg(test)]
mod tests;
