use gguf::ExtentId;

use super::evict::Room;
use super::model::Model;
use super::{Action, ModelKey, Residency};

/// On whose behalf room is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// A step stands at this extent's layer since `ticket`.
    Step { ticket: u64 },
    /// Somebody asked for the whole model.
    Eager,
    /// A step will get there after `distance` layers.
    Ahead { distance: usize },
}

/// An extent that should be fetched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub(super) key: ModelKey,
    pub(super) extent: ExtentId,
    pub(super) urgency: Urgency,
}

impl Residency {
    /// What the step waits for that began to wait first.
    pub(super) fn next_wanted(&self) -> Option<Wish> {
        let mut oldest: Option<(u64, ModelKey, ExtentId)> = None;
        for (&key, model) in self
            .models
            .iter()
            .filter(|(_, model)| self.may_start(model))
        {
            let Some((extent, cursor)) = model.next_wanted().zip(model.cursor) else {
                continue;
            };
            if oldest.is_none_or(|(ticket, ..)| cursor.ticket < ticket) {
                oldest = Some((cursor.ticket, key, extent));
            }
        }
        oldest.map(|(ticket, key, extent)| Wish {
            key,
            extent,
            urgency: Urgency::Step { ticket },
        })
    }

    pub(super) fn next_eager(&self) -> Option<Wish> {
        let key = self.active_eager()?;
        let model = &self.models[&key];
        let extent = self.may_start(model).then(|| model.next_unloaded())??;
        Some(Wish {
            key,
            extent,
            urgency: Urgency::Eager,
        })
    }

    /// The next extent on each running step's way.
    pub(super) fn wishes_ahead(&self) -> impl Iterator<Item = Wish> {
        let running = self
            .models
            .iter()
            .filter(|(_, model)| self.may_start(model));
        running.filter_map(|(&key, model)| {
            let (extent, distance) = model.next_ahead(self.limits.prefetch_window_bytes)?;
            Some(Wish {
                key,
                extent,
                urgency: Urgency::Ahead { distance },
            })
        })
    }

    fn may_start(&self, model: &Model) -> bool {
        model.in_flight < self.limits.max_in_flight
    }

    pub(super) fn grant(&mut self, wish: Wish) -> Option<Action> {
        match self.room_for(wish) {
            Room::Free => {
                self.used_bytes += self.model_mut(wish.key).start(wish.extent);
                Some(Action::Fetch(wish.key, wish.extent))
            }
            Room::After(key, extent) => {
                self.used_bytes -= self.model_mut(key).unload(extent);
                Some(Action::Evict(key, extent))
            }
            Room::None => None,
        }
    }
}
