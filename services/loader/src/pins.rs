//! Looking after the models that are to stay in the page cache.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use weights::Weights;

use crate::{
    cache::Subject,
    error::Error,
    node::Node,
    prefetch::{Progress, check_budget, prefetch},
    registry::Model,
};

/// What has been done for a pinned content.
#[derive(Clone, Debug, Default)]
struct Care {
    weights: Weak<Weights>,
    /// All of it was read once.
    brought: bool,
    /// Its pages were locked; they cannot vanish.
    locked: bool,
    /// What was last said in the log, which is not said again.
    said: String,
}

/// State of the pins.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    /// By generation.
    care: Mutex<HashMap<u64, Care>>,
    /// Pinned models that are not there, of which this has been said.
    missing: Mutex<BTreeSet<String>>,
}

// === impl Pins ===

impl Pins {
    /// Locks the pages of a content that has just been read. `Err` says why the system refused; the pages are in the page cache all the same, and are read again when they vanish.
    pub(crate) async fn lock(&self, subject: &Subject) -> Result<(), io::Error> {
        let weights = Arc::clone(&subject.weights);
        let locking = tokio::task::spawn_blocking(move || weights.lock());
        let outcome = locking
            .await
            .unwrap_or_else(|died| Err(io::Error::other(died)));
        self.with(subject, |care| {
            (care.brought, care.locked) = (true, outcome.is_ok())
        });
        outcome
    }

    fn care(&self) -> MutexGuard<'_, HashMap<u64, Care>> {
        self.care.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, subject: &Subject, look: impl FnOnce(&mut Care) -> T) -> T {
        let new = || Care {
            weights: Arc::downgrade(&subject.weights),
            ..Care::default()
        };
        look(self.care().entry(subject.generation).or_insert_with(new))
    }

    /// Forgets contents that are pinned no more, because their file is gone or has other content now. A lease may have them open still: their pages are unlocked. Blocks.
    fn keep(&self, node: &Node, present: &[(Arc<Model>, Subject)]) {
        let is_present = |generation: u64| {
            present
                .iter()
                .any(|(_, subject)| subject.generation == generation)
        };
        let gone: Vec<(u64, Care)> = self
            .care()
            .extract_if(|generation, _| !is_present(*generation))
            .collect();
        for (generation, care) in gone {
            node.cache.unpin(generation);
            if let Some(weights) = care.weights.upgrade().filter(|_| care.locked)
                && let Err(error) = weights.unlock()
            {
                tracing::warn!(%error, "pages of a content that is gone stay locked");
            }
        }
    }

    /// Says something about a pinned model, once.
    fn say(&self, model: &Model, subject: &Subject, text: String) {
        let news = self.with(subject, |care| care.said != text);
        if news {
            tracing::warn!(model = model.id, "{text}");
            self.with(subject, |care| care.said = text);
        }
    }

    /// Pinned models that are there and can be used; says once of each other one that it is not.
    fn present(&self, node: &Node) -> Vec<(Arc<Model>, Subject)> {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut present = Vec::new();
        for id in node.registry.pinned() {
            match node
                .registry
                .get(&id)
                .and_then(|model| Ok((model.subject()?, model)))
            {
                Ok((subject, model)) => {
                    missing.remove(&id);
                    present.push((model, subject));
                }
                Err(error) => {
                    if missing.insert(id) {
                        tracing::warn!(%error, "pinned, but not there");
                    }
                }
            }
        }
        present
    }
}

/// Looks after pinned models until told to stop: when the list changes, and every now and then.
pub(crate) async fn look_after(
    node: Arc<Node>,
    pins: Arc<Pins>,
    every: Duration,
    stop: CancellationToken,
) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    node.registry.ready().await;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = node.look_after_pins.notified() => {}
            _ = ticks.tick() => {}
        }
        let present = pins.present(&node);
        let (keeper, kept_by, kept) = (Arc::clone(&pins), Arc::clone(&node), present.clone());
        // Unpinning may unlock and drop pages.
        let keeping = tokio::task::spawn_blocking(move || keeper.keep(&kept_by, &kept));
        if keeping.await.is_err() {
            tracing::error!("forgetting pins panicked");
        }
        for (model, subject) in present {
            tokio::select! {
                () = stop.cancelled() => return,
                () = restore(&node, &pins, &model, &subject) => {}
            }
        }
    }
}

/// Brings what is missing of a pinned model back.
async fn restore(node: &Arc<Node>, pins: &Pins, model: &Arc<Model>, subject: &Subject) {
    if pins.with(subject, |care| care.locked) {
        return;
    }
    if pins.with(subject, |care| care.brought) {
        match resident(subject).await {
            Ok(true) => return,
            Ok(false) => tracing::info!(model = model.id, "pages of a pinned model have vanished"),
            // Without knowing what is missing, all of it would be read through again every time.
            Err(why) => {
                return pins.say(
                    model,
                    subject,
                    format!(
                        "pinned, but nobody can tell whether it stays in the page cache: {why}"
                    ),
                );
            }
        }
    }
    if let Err(error) = bring(node, pins, model, subject).await {
        pins.say(model, subject, format!("pinned model not kept: {error}"));
    }
}

async fn bring(
    node: &Arc<Node>,
    pins: &Pins,
    model: &Arc<Model>,
    subject: &Subject,
) -> Result<(), Error> {
    check_budget(node, model, subject)?;
    node.cache.pin(subject);
    let span = tracing::info_span!("pin", model = model.id);
    let progress = Arc::new(Progress::default());
    prefetch(node, model, subject, &progress)
        .instrument(span)
        .await?;
    match pins.lock(subject).await {
        Ok(()) => tracing::info!(model = model.id, "pinned and locked"),
        Err(error) => pins.say(
            model,
            subject,
            format!("pinned, but its pages cannot be locked: {error}"),
        ),
    }
    Ok(())
}

/// Whether all of a content is in the page cache; an error says why nobody knows.
async fn resident(subject: &Subject) -> Result<bool, String> {
    let weights = Arc::clone(&subject.weights);
    let residency = tokio::task::spawn_blocking(move || weights.residency())
        .await
        .map_err(|died| died.to_string())?;
    residency
        .map(|residency| residency.resident_bytes >= residency.total_bytes)
        .map_err(|error| error.to_string())
}
