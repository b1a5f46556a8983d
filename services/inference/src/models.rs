//! The models of this device: attached once for all who ask, let go when nobody does.

mod attach;
mod attached;
mod flights;
mod lease;
mod usage;
mod view;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use engine::{Engine, Stats};
use tracing::{Instrument as _, Span, info_span};

use self::{attach::Attacher, flights::Flights};
pub(crate) use self::{
    attach::{Parts, load_span},
    attached::{Attached, InUse, Until},
    view::{duration, load_kind, proto_load},
};
use crate::{daemon::Daemon, error::Error};

/// The models of this device. Cheap to clone; clones are the same models.
#[derive(Clone, Debug)]
pub(crate) struct Models {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    engine: Engine,
    daemon: Daemon,
    flights: Flights<Arc<Attached>>,
    fetch_timeout: Duration,
    /// Requests attach what they name.
    auto_attach: bool,
}

/// A model to work with, and what it cost to get it.
#[derive(Debug)]
pub(crate) struct Acquired {
    /// The model.
    pub(crate) model: InUse,
    /// How long it had to be waited for.
    pub(crate) load_wait: Duration,
}

// === impl Models ===

impl Models {
    pub(crate) fn new(
        engine: Engine,
        daemon: Daemon,
        fetch_timeout: Duration,
        auto_attach: bool,
    ) -> Models {
        let inner = Inner {
            engine,
            daemon,
            flights: Flights::default(),
            fetch_timeout,
            auto_attach,
        };
        Models {
            inner: Arc::new(inner),
        }
    }

    /// The model that a request names, or the only attached one; attached now if need be. A span of its own says how long that took and which load it is owed to.
    ///
    /// # Errors
    /// [`Error::UnknownModel`], [`Error::AutoAttachOff`], [`Error::Degraded`], [`Error::Invalid`] where a name is needed, and everything that attaching can fail with.
    pub(crate) async fn acquire(&self, model: Option<&str>) -> Result<Acquired, Error> {
        let span = info_span!("model.acquire", model);
        let acquired = self.find(model).instrument(span.clone()).await?;
        if let Some(load) = acquired.model.load_identity() {
            telemetry::link(&span, load);
        }
        Ok(acquired)
    }

    async fn find(&self, model: Option<&str>) -> Result<Acquired, Error> {
        let landed = match model {
            None => Some(self.only_attached()?),
            Some(id) => self.inner.flights.landed(id),
        };
        let began = Instant::now();
        let (attached, load_wait) = match landed {
            Some(attached) => (attached, Duration::ZERO),
            None => (
                self.wait_for(model.unwrap_or_default()).await?,
                began.elapsed(),
            ),
        };
        if self.is_degraded(&attached.id) {
            return Err(Error::Degraded {
                model: attached.id.clone(),
            });
        }
        Ok(Acquired {
            model: attached.enter(),
            load_wait,
        })
    }

    async fn wait_for(&self, id: &str) -> Result<Arc<Attached>, Error> {
        if !self.inner.auto_attach && !self.inner.flights.is_flying(id) {
            return Err(self.refuse_to_attach(id).await);
        }
        self.attach(id, false, || load_span(id, "lazy")).await
    }

    /// Attaches `id` unless it is attached, or joins whoever does so already. `span` makes the span of the load, if there is one.
    ///
    /// # Errors
    /// [`Error`].
    pub(crate) async fn attach(
        &self,
        id: &str,
        pin: bool,
        span: impl FnOnce() -> Span,
    ) -> Result<Arc<Attached>, Error> {
        self.attach_parts(id, pin, None, span).await
    }

    /// The same, of parts that were brought together before.
    ///
    /// # Errors
    /// [`Error`].
    pub(crate) async fn attach_parts(
        &self,
        id: &str,
        pin: bool,
        parts: Option<Parts>,
        span: impl FnOnce() -> Span,
    ) -> Result<Arc<Attached>, Error> {
        let start = || self.clone().fly(id.to_owned(), pin, parts, span());
        let outcome = self.inner.flights.get(id, start).await;
        outcome.map_err(|error| match error {
            Error::UnknownModel { model, known } => Error::UnknownModel {
                model,
                known: self.with_attached(known),
            },
            error => error,
        })
    }

    async fn fly(
        self,
        id: String,
        pin: bool,
        parts: Option<Parts>,
        load: Span,
    ) -> Result<Arc<Attached>, Error> {
        let attacher = Attacher {
            engine: self.inner.engine.clone(),
            daemon: self.inner.daemon.clone(),
            fetch_timeout: self.inner.fetch_timeout,
        };
        let attached = attacher.attach(id.clone(), pin, parts, load).await?;
        let usage = Arc::clone(&attached.usage);
        let reaper = tokio::spawn(async move {
            usage.idle().await;
            tracing::info!(model = id, "unloading: idle for longer than its keep-alive");
            // On a task of its own: this one ends with the model that it unloads.
            tokio::spawn(async move { self.unload(&id, false).await });
        });
        attached.accompany(reaper.abort_handle());
        Ok(attached)
    }

    /// Frees a model's memory; with `keep_attached`, its plan stays. Answers the bytes freed.
    ///
    /// # Errors
    /// [`Error::NotAttached`]; [`Error::Engine`].
    pub(crate) async fn unload(&self, id: &str, keep_attached: bool) -> Result<u64, Error> {
        if keep_attached {
            let attached = self.attached(id)?;
            return Ok(self.inner.engine.unload(&attached.id, true).await?);
        }
        let engine = self.inner.engine.clone();
        let leave = |attached: Arc<Attached>| async move {
            let freed = engine.unload(&attached.id, false).await?;
            tracing::info!(model = attached.id, freed_bytes = freed, "unloaded");
            Ok(freed)
        };
        let outcome = self.inner.flights.leave(id, leave).await;
        outcome.unwrap_or_else(|| Err(self.not_attached(id)))
    }

    /// The attached model called `id`.
    ///
    /// # Errors
    /// [`Error::NotAttached`].
    pub(crate) fn attached(&self, id: &str) -> Result<Arc<Attached>, Error> {
        self.inner
            .flights
            .landed(id)
            .ok_or_else(|| self.not_attached(id))
    }

    /// Sets how long an idle model stays; `None` is for ever.
    pub(crate) fn set_keep_alive(&self, attached: &Attached, keep_alive: Option<Duration>) {
        attached.usage.set_keep_alive(keep_alive);
    }

    /// What the engine is doing.
    pub(crate) fn stats(&self) -> Stats {
        self.inner.engine.stats()
    }

    /// The handle that requests go to.
    pub(crate) fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    /// The daemon that models come from.
    pub(crate) fn daemon(&self) -> &Daemon {
        &self.inner.daemon
    }

    fn is_degraded(&self, id: &str) -> bool {
        self.stats().model(id).is_some_and(|model| model.degraded)
    }

    fn only_attached(&self) -> Result<Arc<Attached>, Error> {
        let mut attached = self.inner.flights.all_landed();
        match attached.len() {
            1 => Ok(attached.remove(0).1),
            0 => Err(Error::invalid("model", "must be set: no model is attached")),
            _ => Err(Error::invalid(
                "model",
                "must be set: several models are attached",
            )),
        }
    }

    /// Says whether the model could be attached, so that a misspelt name is not taken for one that only has to be loaded.
    async fn refuse_to_attach(&self, id: &str) -> Error {
        match self.inner.daemon.get_model(id).await {
            Err(Error::UnknownModel { model, known }) => Error::UnknownModel {
                model,
                known: self.with_attached(known),
            },
            Ok(_) | Err(_) => Error::AutoAttachOff {
                model: id.to_owned(),
            },
        }
    }

    fn not_attached(&self, id: &str) -> Error {
        Error::NotAttached {
            model: id.to_owned(),
            attached: self.with_attached(Vec::new()),
        }
    }

    /// `known` and the attached models, each once.
    fn with_attached(&self, mut known: Vec<String>) -> Vec<String> {
        known.extend(
            self.inner
                .flights
                .all_landed()
                .into_iter()
                .map(|(id, _)| id),
        );
        known.sort();
        known.dedup();
        known
    }
}
