use gguf::ExtentId;
use weights::Fetched;

use super::model::Model;
use super::{Counters, ModelExtents, ModelKey, Residency, Shortfall};

/// What can be asked.
impl Residency {
    /// A stamp for [`moved_since`](Residency::moved_since): fetches that end from here on come after it.
    pub fn now(&self) -> u64 {
        self.clock
    }

    /// What the last fetch of the extent moved, if that fetch ended after the stamp `since`.
    pub fn moved_since(&self, key: ModelKey, extent: ExtentId, since: u64) -> Option<Fetched> {
        self.model(key).moved_since(extent, since)
    }

    /// Bytes loading or resident, those of models that are gone included until their fetches end.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    /// Bytes of one model that are resident, of those that some layer uses.
    pub fn resident_bytes(&self, key: ModelKey) -> u64 {
        self.model(key).resident_bytes
    }

    /// Bytes of one model that some layer uses.
    pub fn total_bytes(&self, key: ModelKey) -> u64 {
        self.model(key).total_bytes
    }

    /// Whether every extent that some layer of the model uses is resident.
    pub fn is_whole(&self, key: ModelKey) -> bool {
        let model = self.model(key);
        model.resident_bytes == model.total_bytes
    }

    /// Fetches of one model that are running.
    pub fn in_flight(&self, key: ModelKey) -> usize {
        self.model(key).in_flight
    }

    /// What one model's extents have been through.
    pub fn counters(&self, key: ModelKey) -> Counters {
        self.model(key).counters
    }

    /// Whether the model's extents are kept once they are there.
    pub fn is_pinned(&self, key: ModelKey) -> bool {
        self.model(key).pinned
    }

    /// Whether the layer that the model's step waits for is complete by now.
    pub fn is_ready(&self, key: ModelKey) -> bool {
        self.model(key).cursor_is_ready()
    }

    /// Whether a model that is about to join could run: its largest layer has to fit beside what is pinned. One that would itself be pinned has to leave room for the largest layer of every other.
    /// # Errors
    /// [`Shortfall`].
    pub fn fits(&self, extents: &ModelExtents) -> Result<(), Shortfall> {
        let model = Model::new(extents.clone(), self.clock);
        let need_bytes = if model.pinned {
            model.total_bytes + self.largest_layer_bytes(None)
        } else {
            model.largest_layer_bytes()
        };
        self.check_free(need_bytes, None)
    }

    /// Whether all of a model could be resident at once, with room for the largest layer of every other model besides, so that those go on meanwhile.
    /// # Errors
    /// [`Shortfall`].
    pub fn fits_whole(&self, key: ModelKey) -> Result<(), Shortfall> {
        let need_bytes = self.model(key).total_bytes + self.largest_layer_bytes(Some(key));
        self.check_free(need_bytes, Some(key))
    }

    /// Compares with the budget less what is pinned, `except` one model.
    fn check_free(&self, need_bytes: u64, except: Option<ModelKey>) -> Result<(), Shortfall> {
        let Some(budget_bytes) = self.limits.budget_bytes else {
            return Ok(());
        };
        let pinned = self.others(except).filter(|model| model.pinned);
        let pinned_bytes: u64 = pinned.map(|model| model.total_bytes).sum();
        let free_bytes = budget_bytes.saturating_sub(pinned_bytes);
        if need_bytes > free_bytes {
            return Err(Shortfall {
                need_bytes,
                free_bytes,
            });
        }
        Ok(())
    }

    /// The largest layer of all models that are not pinned, `except` one.
    fn largest_layer_bytes(&self, except: Option<ModelKey>) -> u64 {
        let others = self.others(except).filter(|model| !model.pinned);
        others.map(Model::largest_layer_bytes).max().unwrap_or(0)
    }

    fn others(&self, except: Option<ModelKey>) -> impl Iterator<Item = &Model> {
        let others = self
            .models
            .iter()
            .filter(move |&(&key, _)| Some(key) != except);
        others.map(|(_, model)| model)
    }
}
