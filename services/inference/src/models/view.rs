//! Models as clients see them: what the daemon publishes, overlaid with what is attached.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use engine::{LoadStats, ModelStats, Stats};
use proto::{
    inference::v1::{Load, LoadKind, Model, ModelState, PlanCounters},
    loader::v1 as loader,
};

use tokio::time::timeout;

use super::{Attached, Models};
use crate::error::Error;

/// How long the daemon may take to add its word about a model that needs none: it may be away.
const DIGEST_TIMEOUT: Duration = Duration::from_millis(250);

// === impl Models ===

impl Models {
    /// Every published or attached model, sorted by id.
    ///
    /// # Errors
    /// [`Error::Daemon`].
    pub(crate) async fn list(&self) -> Result<Vec<Model>, Error> {
        let published = self.inner.daemon.list_models().await?;
        let stats = self.stats();
        let mut models: BTreeMap<String, Model> = published
            .into_iter()
            .map(|model| (model.id.clone(), self.published(model)))
            .collect();
        for (id, attached) in self.inner.flights.all_landed() {
            let digest = models
                .get(&id)
                .map(|model| model.digest.clone())
                .unwrap_or_default();
            models.insert(id, view(&attached, &stats, digest));
        }
        Ok(models.into_values().collect())
    }

    /// One model. The daemon is asked only for what is not attached, and for the digest.
    ///
    /// # Errors
    /// [`Error::UnknownModel`]; [`Error::Daemon`] if it is not attached.
    pub(crate) async fn get(&self, id: &str) -> Result<Model, Error> {
        if let Some(attached) = self.inner.flights.landed(id) {
            let published = timeout(DIGEST_TIMEOUT, self.inner.daemon.get_model(id)).await;
            let digest = published
                .ok()
                .and_then(Result::ok)
                .map(|model| model.digest);
            return Ok(view(&attached, &self.stats(), digest.unwrap_or_default()));
        }
        match self.inner.daemon.get_model(id).await {
            Ok(model) => Ok(self.published(model)),
            Err(Error::UnknownModel { model, known }) => Err(Error::UnknownModel {
                model,
                known: self.with_attached(known),
            }),
            Err(error) => Err(error),
        }
    }

    /// An attached model, without the daemon's word.
    pub(crate) fn view(&self, attached: &Arc<Attached>) -> Model {
        view(attached, &self.stats(), String::new())
    }

    fn published(&self, model: loader::Model) -> Model {
        let state = match model.status() {
            loader::ModelStatus::Invalid => ModelState::Invalid,
            loader::ModelStatus::Available | loader::ModelStatus::Unspecified => {
                match self.inner.flights.is_flying(&model.id) {
                    true => ModelState::Attaching,
                    false => ModelState::Published,
                }
            }
        };
        Model {
            id: model.id,
            state: state.into(),
            reason: model.reason,
            architecture: model.architecture,
            tensor_count: model.tensor_count,
            tensor_bytes: model.tensor_bytes,
            digest: model.digest,
            ..Model::default()
        }
    }
}

fn view(attached: &Attached, stats: &Stats, digest: String) -> Model {
    let fresh = ModelStats::default();
    let counts = stats.model(&attached.id).unwrap_or(&fresh);
    let report = &attached.report;
    let (state, reason) = state(counts, report.tensor_bytes);
    Model {
        id: attached.id.clone(),
        state: state.into(),
        reason: reason.to_owned(),
        architecture: attached.architecture().to_owned(),
        tensor_count: u32::try_from(attached.tensor_count()).unwrap_or(u32::MAX),
        tensor_bytes: report.tensor_bytes,
        resident_bytes: counts.resident_bytes,
        context_length: report.context_length,
        n_vocab: report.n_vocab,
        counters: Some(counters(counts, report.n_extents)),
        plan_build: Some(duration(report.plan_build)),
        attach: Some(duration(attached.attach_took)),
        pinned: counts.pinned,
        digest,
    }
}

fn state(counts: &ModelStats, tensor_bytes: u64) -> (ModelState, &'static str) {
    if counts.degraded {
        return (
            ModelState::Degraded,
            "its file changed or was truncated while in use; unload it and load it again",
        );
    }
    match counts.resident_bytes >= tensor_bytes && tensor_bytes > 0 {
        true => (ModelState::Resident, ""),
        false => (ModelState::Attached, ""),
    }
}

fn counters(counts: &ModelStats, extents: u32) -> PlanCounters {
    let of = &counts.extents;
    PlanCounters {
        extents,
        hits: of.hits,
        misses: of.misses,
        loads: of.loads,
        evictions: of.evictions,
        loaded_bytes: of.cold_bytes + of.warm_bytes + of.unknown_bytes,
        cold_bytes: of.cold_bytes,
        warm_bytes: of.warm_bytes,
        unknown_bytes: of.unknown_bytes,
        self_read_bytes: of.self_read_bytes,
        failures: of.failures,
        steps: counts.steps,
        wide_steps: counts.wide_steps,
    }
}

/// Where weights came from, for a message.
pub(crate) fn proto_load(load: &LoadStats) -> Load {
    let kind = match load_kind(load) {
        "cold" => LoadKind::Cold,
        "warm" => LoadKind::Warm,
        "hot" => LoadKind::Hot,
        _ => LoadKind::Unspecified,
    };
    Load {
        kind: kind.into(),
        cold_bytes: load.cold_bytes,
        warm_bytes: load.warm_bytes,
        hot_bytes: load.hot_bytes,
        unknown_bytes: load.unknown_bytes,
    }
}

/// COLD if any byte is, else WARM if any is, else HOT; nothing can be said of bytes that the file system did not account for.
pub(crate) fn load_kind(load: &LoadStats) -> &'static str {
    match load {
        load if load.cold_bytes > 0 => "cold",
        load if load.warm_bytes > 0 => "warm",
        load if load.unknown_bytes > 0 => "unknown",
        _ => "hot",
    }
}

/// A duration of ours for a message; centuries become the longest that fits.
pub(crate) fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration::try_from(duration).unwrap_or(prost_types::Duration {
        seconds: i64::MAX,
        nanos: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        let check = |cold_bytes, warm_bytes, unknown_bytes, expected| {
            let load = LoadStats {
                cold_bytes,
                warm_bytes,
                unknown_bytes,
                hot_bytes: 5,
                ..LoadStats::default()
            };
            assert_eq!(load_kind(&load), expected);
        };
        check(1, 1, 1, "cold");
        check(0, 1, 1, "warm");
        check(0, 0, 1, "unknown");
        check(0, 0, 0, "hot");
    }

    #[test]
    fn states() {
        let counts = |resident_bytes, degraded| ModelStats {
            resident_bytes,
            degraded,
            ..ModelStats::default()
        };
        assert_eq!(state(&counts(9, false), 10).0, ModelState::Attached);
        assert_eq!(state(&counts(10, false), 10).0, ModelState::Resident);
        assert_eq!(state(&counts(10, true), 10).0, ModelState::Degraded);
    }
}
