use gguf::ExtentId;

use super::model::{Model, State};
use super::wish::{Urgency, Wish};
use super::{ModelKey, Residency};

/// Whether there is room for a wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Free,
    /// There will be, once this and perhaps more is evicted.
    After(ModelKey, ExtentId),
    /// Not before something else happens.
    None,
}

impl Residency {
    /// Whether `wish` can have room. Nothing is evicted for a wish that would not fit even so.
    pub(super) fn room_for(&self, wish: Wish) -> Room {
        let Some(budget_bytes) = self.limits.budget_bytes else {
            return Room::Free;
        };
        let len_bytes = self.models[&wish.key].entry(wish.extent).len_bytes;
        let free_bytes = budget_bytes.saturating_sub(self.used_bytes);
        if len_bytes <= free_bytes {
            return Room::Free;
        }
        let mut evictable_bytes = 0;
        let mut first: Option<(Rank, ModelKey, ExtentId)> = None;
        for (&key, model) in &self.models {
            if model.pinned || self.active_eager() == Some(key) {
                continue;
            }
            for (id, entry) in model.entries() {
                if entry.state != State::Resident || !may_take(wish, key, model, id) {
                    continue;
                }
                evictable_bytes += entry.len_bytes;
                let rank = Rank::of(model, id);
                if first.is_none_or(|(best, ..)| rank < best) {
                    first = Some((rank, key, id));
                }
            }
        }
        match first {
            Some((_, key, id)) if free_bytes + evictable_bytes >= len_bytes => Room::After(key, id),
            _ => Room::None,
        }
    }

    /// The model whose eager load runs: the one that was asked for first.
    pub(super) fn active_eager(&self) -> Option<ModelKey> {
        let eager = self
            .models
            .iter()
            .filter_map(|(&key, model)| Some((model.eager?, key)));
        eager.min().map(|(_, key)| key)
    }
}

/// Whether `wish` outranks whatever keeps the extent `id` of `model` where it is.
fn may_take(wish: Wish, key: ModelKey, model: &Model, id: ExtentId) -> bool {
    let same_model = key == wish.key;
    if let Some(cursor) = model.cursor.filter(|_| model.under_cursor(id)) {
        let Urgency::Step { ticket } = wish.urgency else {
            return false;
        };
        return !same_model && !model.cursor_is_ready() && cursor.ticket > ticket;
    }
    match wish.urgency {
        Urgency::Step { .. } => true,
        Urgency::Eager => !same_model,
        Urgency::Ahead { distance } if same_model => model.distance(id) > distance,
        Urgency::Ahead { .. } => model.cursor.is_none(),
    }
}

/// Smaller goes first: models without a step before those with one, the least recently used of them first; then whatever is needed last, and of that what was needed longest ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    in_use: bool,
    last_used: u64,
    nearness: std::cmp::Reverse<usize>,
    last_wanted: u64,
}

impl Rank {
    fn of(model: &Model, id: ExtentId) -> Rank {
        let in_use = model.cursor.is_some();
        Rank {
            in_use,
            last_used: if in_use { 0 } else { model.last_used },
            nearness: std::cmp::Reverse(model.distance(id)),
            last_wanted: model.entry(id).last_wanted,
        }
    }
}
