//! A model that is attached.

use std::{
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use engine::{AttachReport, LoadStats};
use telemetry::SpanContext;
use text::{Tokenizer, chat::ChatTemplates};
use tokio::task::AbortHandle;
use tracing::Span;
use weights::Weights;

use super::{
    usage::{Usage, User},
    view::load_kind,
};

/// A model whose plan stands.
#[derive(Debug)]
pub(crate) struct Attached {
    /// Its id.
    pub(crate) id: String,
    /// Its vocabulary.
    pub(crate) tokenizer: Arc<Tokenizer>,
    /// What makes prompts of conversations.
    pub(crate) templates: Arc<ChatTemplates>,
    /// Its directory and mapping.
    pub(crate) weights: Arc<Weights>,
    /// What the engine found.
    pub(crate) report: AttachReport,
    /// How long lease, hand-off, tokenizer and plan took.
    pub(crate) attach_took: Duration,
    pub(super) usage: Arc<Usage>,
    /// The load that brought it here.
    pub(super) load: Mutex<Load>,
    /// Ends with the model.
    pub(super) companions: Mutex<Vec<Companion>>,
}

/// The load that requests owe a model to.
#[derive(Debug, Default)]
pub(super) struct Load {
    /// Who it is, for links; also after its end.
    identity: Option<SpanContext>,
    /// Its span, while it lasts.
    under_way: Option<(Span, Until)>,
}

/// When a load is over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Until {
    /// When a request has passed over the weights once, or nobody is left who would.
    FirstPass,
    /// When whoever began it says so.
    Told,
}

/// A task that ends when this is dropped.
#[derive(Debug)]
pub(super) struct Companion(pub(super) AbortHandle);

/// An attached model in use: it does not count as idle.
#[derive(Debug)]
pub(crate) struct InUse {
    attached: Arc<Attached>,
    user: Option<User>,
}

// === impl Attached ===

impl Attached {
    /// `general.architecture`.
    pub(crate) fn architecture(&self) -> &str {
        let metadata = self.weights.directory().metadata();
        metadata
            .get_str("general.architecture")
            .ok()
            .flatten()
            .unwrap_or_default()
    }

    /// Number of tensors in the file.
    pub(crate) fn tensor_count(&self) -> usize {
        self.weights.directory().tensors().len()
    }

    /// Uses the model until the result is dropped.
    pub(crate) fn enter(self: &Arc<Attached>) -> InUse {
        InUse {
            attached: Arc::clone(self),
            user: Some(self.usage.enter()),
        }
    }

    /// Identity of the load that brought it here.
    pub(crate) fn load_identity(&self) -> Option<SpanContext> {
        self.load().identity.clone()
    }

    /// From now on, requests owe their weights to this load.
    pub(crate) fn begin_load(&self, span: Span, until: Until) {
        let identity = telemetry::span_context(&span);
        *self.load() = Load {
            identity,
            under_way: Some((span, until)),
        };
    }

    /// The load is over, if it was not before, and moved these bytes.
    pub(crate) fn end_load(&self, moved: &LoadStats) {
        if let Some((span, _)) = self.load().under_way.take() {
            record_load(&span, moved);
        }
    }

    /// A request has passed over all weights for the first time, and this is what it found.
    pub(crate) fn end_first_pass(&self, found: &LoadStats) {
        let mut load = self.load();
        if let Some((span, _)) = load
            .under_way
            .take_if(|(_, until)| *until == Until::FirstPass)
        {
            record_load(&span, found);
        }
    }

    /// Nobody waits for the rest of the load any more.
    pub(crate) fn abandon_load(&self) {
        if !self.usage.is_used() {
            self.end_first_pass(&LoadStats::default());
        }
    }

    fn load(&self) -> MutexGuard<'_, Load> {
        self.load.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn accompany(&self, task: AbortHandle) {
        self.companions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Companion(task));
    }
}

/// Tells the span of a load what was moved. A span ends where it was last entered.
fn record_load(span: &Span, moved: &LoadStats) {
    let _entered = span.enter();
    span.record("load_kind", load_kind(moved));
    span.record("cold_bytes", moved.cold_bytes);
    span.record("warm_bytes", moved.warm_bytes);
    span.record("hot_bytes", moved.hot_bytes);
    span.record("unknown_bytes", moved.unknown_bytes);
}

impl Deref for InUse {
    type Target = Attached;

    fn deref(&self) -> &Attached {
        &self.attached
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.user = None;
        self.attached.abandon_load();
    }
}

impl Drop for Companion {
    fn drop(&mut self) {
        self.0.abort();
    }
}
