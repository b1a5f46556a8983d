use gguf::ExtentId;
use weights::Fetched;

use super::{Completion, Counters, ModelExtents, Wanted};

/// Where an extent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Unloaded,
    Loading,
    Resident,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) len_bytes: u64,
    pub(super) state: State,
    /// The layers that use it; ascending. Empty for an extent that no layer uses.
    layers: Vec<usize>,
    /// Whether the step that stands at a layer of which it uses a part chose it.
    chosen: bool,
    /// When a step last came to it.
    pub(super) last_wanted: u64,
    /// Whether the last fetch failed; then only a step or an eager load asks again, not prefetch.
    failed: bool,
    /// When the last fetch ended, and what it moved.
    loaded: Option<(u64, Fetched)>,
}

/// Where a model's step stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor {
    pub(super) layer: usize,
    /// When it got there.
    pub(super) ticket: u64,
}

/// The extents of one attached model.
#[derive(Clone, Debug)]
pub(super) struct Model {
    entries: Vec<Entry>,
    layers: Vec<Vec<ExtentId>>,
    /// Of each layer, whether steps use a part of it.
    routed: Vec<bool>,
    /// That part, where the cursor is at such a layer.
    chosen: Vec<ExtentId>,
    pub(super) pinned: bool,
    pub(super) cursor: Option<Cursor>,
    /// When an eager load was asked for, while it runs.
    pub(super) eager: Option<u64>,
    /// When a step last moved or ended.
    pub(super) last_used: u64,
    pub(super) in_flight: usize,
    /// Bytes of all extents that some layer uses, and of those that are resident. What no layer uses is never loaded.
    pub(super) total_bytes: u64,
    pub(super) resident_bytes: u64,
    pub(super) counters: Counters,
}

impl Model {
    pub(super) fn new(extents: ModelExtents, clock: u64) -> Model {
        let mut entries: Vec<Entry> = extents
            .len_bytes
            .iter()
            .map(|&len_bytes| Entry {
                len_bytes,
                state: State::Unloaded,
                layers: Vec::new(),
                chosen: false,
                last_wanted: 0,
                failed: false,
                loaded: None,
            })
            .collect();
        for (layer, ids) in extents.layers.iter().enumerate() {
            for id in ids {
                entries[id.0 as usize].layers.push(layer);
            }
        }
        let used = entries.iter().filter(|entry| !entry.layers.is_empty());
        Model {
            total_bytes: used.map(|entry| entry.len_bytes).sum(),
            resident_bytes: 0,
            entries,
            layers: extents.layers,
            routed: extents.routed,
            chosen: Vec::new(),
            pinned: extents.pinned,
            cursor: None,
            eager: None,
            last_used: clock,
            in_flight: 0,
            counters: Counters::default(),
        }
    }

    pub(super) fn entry(&self, id: ExtentId) -> &Entry {
        &self.entries[id.0 as usize]
    }

    fn entry_mut(&mut self, id: ExtentId) -> &mut Entry {
        &mut self.entries[id.0 as usize]
    }

    /// Extents by id.
    pub(super) fn entries(&self) -> impl Iterator<Item = (ExtentId, &Entry)> {
        (0..).map(ExtentId).zip(&self.entries)
    }

    /// See [`Residency::want`](super::Residency::want) and [`Residency::want_some`](super::Residency::want_some).
    pub(super) fn want(&mut self, layer: usize, chosen: Option<&[ExtentId]>, clock: u64) -> Wanted {
        assert_eq!(
            chosen.is_some(),
            self.routed[layer],
            "a part is chosen of the layers that are used in part, and of no others"
        );
        if self.cursor.is_none_or(|cursor| cursor.layer != layer) {
            self.cursor = Some(Cursor {
                layer,
                ticket: clock,
            });
            self.last_used = clock;
            self.choose(chosen.unwrap_or_default());
            for index in 0..self.cursor_extents().len() {
                self.count_use(self.cursor_extents()[index], clock);
            }
        }
        if self.cursor_is_ready() {
            Wanted::Ready
        } else {
            Wanted::Waiting
        }
    }

    /// Lets go of the part that was chosen before.
    fn choose(&mut self, chosen: &[ExtentId]) {
        for id in std::mem::take(&mut self.chosen) {
            self.entry_mut(id).chosen = false;
        }
        for &id in chosen {
            self.entry_mut(id).chosen = true;
        }
        self.chosen = chosen.to_vec();
    }

    fn count_use(&mut self, id: ExtentId, clock: u64) {
        let entry = self.entry_mut(id);
        entry.failed = false;
        entry.last_wanted = clock;
        let (resident, len_bytes) = (entry.state == State::Resident, entry.len_bytes);
        if resident {
            self.counters.hits += 1;
            self.counters.hot_bytes += len_bytes;
        } else {
            self.counters.misses += 1;
        }
    }

    /// Lets prefetch and eager loads try again what failed before.
    pub(super) fn forgive(&mut self) {
        for entry in &mut self.entries {
            entry.failed = false;
        }
    }

    /// Whether the layer under the cursor is complete: then it is about to be used and nothing may take from it.
    pub(super) fn cursor_is_ready(&self) -> bool {
        self.cursor_extents()
            .iter()
            .all(|&id| self.entry(id).state == State::Resident)
    }

    /// The extents that the step needs where the cursor is; empty without one.
    fn cursor_extents(&self) -> &[ExtentId] {
        match self.cursor {
            None => &[],
            Some(cursor) if self.routed[cursor.layer] => &self.chosen,
            Some(cursor) => &self.layers[cursor.layer],
        }
    }

    /// Whether the step needs this extent where it stands.
    pub(super) fn under_cursor(&self, id: ExtentId) -> bool {
        let entry = self.entry(id);
        self.cursor.is_some_and(|cursor| {
            entry.layers.contains(&cursor.layer) && (entry.chosen || !self.routed[cursor.layer])
        })
    }

    /// How many layers pass before the extent is used again, going round in execution order from the cursor (or from the start, without one). What no layer uses is furthest.
    pub(super) fn distance(&self, id: ExtentId) -> usize {
        let here = self.cursor.map_or(0, |cursor| cursor.layer);
        let n_layers = self.layers.len();
        let passed_over = self.cursor.is_some() && !self.under_cursor(id);
        let uses = self.entry(id).layers.iter();
        uses.map(|&layer| (layer + n_layers - here) % n_layers)
            // What the step does not need of the layer where it stands comes round again.
            .map(|distance| match distance {
                0 if passed_over => n_layers,
                _ => distance,
            })
            .min()
            .unwrap_or(n_layers)
    }

    /// The first extent under the cursor that has to be fetched.
    pub(super) fn next_wanted(&self) -> Option<ExtentId> {
        let mut missing = self.cursor_extents().iter();
        missing
            .find(|&&id| self.entry(id).state == State::Unloaded)
            .copied()
    }

    /// The first extent in execution order that has to be fetched, those that failed left out.
    pub(super) fn next_unloaded(&self) -> Option<ExtentId> {
        self.layers
            .iter()
            .flatten()
            .copied()
            .find(|&id| self.is_wanting(id))
    }

    /// The first extent within `window_bytes` behind the cursor's layer that has to be fetched, and its distance.
    pub(super) fn next_ahead(&self, window_bytes: u64) -> Option<(ExtentId, usize)> {
        let cursor = self.cursor?;
        let mut ahead_bytes = 0;
        let layers = self.layers.iter().enumerate().skip(cursor.layer + 1);
        for (layer, ids) in layers.filter(|&(layer, _)| !self.routed[layer]) {
            for &id in ids {
                ahead_bytes += self.entry(id).len_bytes;
                if ahead_bytes > window_bytes {
                    return None;
                }
                if self.is_wanting(id) {
                    return Some((id, layer - cursor.layer));
                }
            }
        }
        None
    }

    fn is_wanting(&self, id: ExtentId) -> bool {
        let entry = self.entry(id);
        entry.state == State::Unloaded && !entry.failed
    }

    /// Marks the extent as being fetched; returns its length.
    pub(super) fn start(&mut self, id: ExtentId) -> u64 {
        self.in_flight += 1;
        let entry = self.entry_mut(id);
        assert_eq!(entry.state, State::Unloaded, "an extent is loaded once");
        entry.state = State::Loading;
        entry.len_bytes
    }

    /// See [`Residency::completed`](super::Residency::completed).
    pub(super) fn completed(
        &mut self,
        id: ExtentId,
        moved: Option<Fetched>,
        clock: u64,
    ) -> Completion {
        self.in_flight -= 1;
        let entry = self.entry_mut(id);
        assert_eq!(
            entry.state,
            State::Loading,
            "only what is loading can complete"
        );
        match moved {
            Some(moved) => {
                entry.state = State::Resident;
                entry.loaded = Some((clock, moved));
                self.resident_bytes += self.entry(id).len_bytes;
                self.counters.add_load(&moved);
                Completion::Resident
            }
            None => {
                entry.state = State::Unloaded;
                entry.failed = true;
                self.counters.failures += 1;
                Completion::Failed {
                    step: self.under_cursor(id),
                    eager: self.eager.is_some(),
                }
            }
        }
    }

    /// Forgets a resident extent; returns its length.
    pub(super) fn unload(&mut self, id: ExtentId) -> u64 {
        self.counters.evictions += 1;
        let entry = self.entry_mut(id);
        assert_eq!(
            entry.state,
            State::Resident,
            "only what is resident can be evicted"
        );
        entry.state = State::Unloaded;
        let len_bytes = entry.len_bytes;
        self.resident_bytes -= len_bytes;
        len_bytes
    }

    /// What lies there and is not under the cursor.
    pub(super) fn resident_unheld(&self) -> Vec<ExtentId> {
        let resident = self
            .entries()
            .filter(|(_, entry)| entry.state == State::Resident);
        resident
            .map(|(id, _)| id)
            .filter(|&id| !self.under_cursor(id))
            .collect()
    }

    /// What the extent's last fetch moved, if it ended after `since`.
    pub(super) fn moved_since(&self, id: ExtentId, since: u64) -> Option<Fetched> {
        let (at, moved) = self.entry(id).loaded?;
        (at > since).then_some(moved)
    }

    /// Bytes of the layer that has the most: what must be resident at once for the model to run.
    pub(super) fn largest_layer_bytes(&self) -> u64 {
        let layers = self.layers.iter();
        layers
            .map(|ids| ids.iter().map(|&id| self.entry(id).len_bytes).sum())
            .max()
            .unwrap_or(0)
    }
}
