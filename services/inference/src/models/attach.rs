//! From a model's name to a plan: lease, descriptors, tokenizer, engine. No weight is read.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use engine::{AttachReport, AttachRequest, Engine};
use text::{Tokenizer, TokenizerError, chat::ChatTemplates};
use tokio::{sync::Notify, task::spawn_blocking};
use tracing::{Instrument as _, Span, field::Empty, info_span};
use weights::{
    Weights,
    handoff::{self, AcceptOptions},
};

use super::{
    attached::{Attached, Until},
    lease,
    usage::Usage,
};
use crate::{daemon::Daemon, error::Error};

/// What attaching needs to know.
#[derive(Clone, Debug)]
pub(super) struct Attacher {
    pub(super) engine: Engine,
    pub(super) daemon: Daemon,
    /// How long the daemon may take to fetch an extent.
    pub(super) fetch_timeout: Duration,
}

/// What attaching brings together before it needs an engine: the descriptors, and what stands between words and tokens.
#[derive(Debug)]
pub(crate) struct Parts {
    weights: Arc<Weights>,
    lost: Arc<Notify>,
    tokenizer: Tokenizer,
    templates: ChatTemplates,
    took: Duration,
}

/// The span of one load. Its phases are its children: they do not overlap and add up to it.
pub(crate) fn load_span(model: &str, load_mode: &'static str) -> Span {
    info_span!(
        "model.load",
        model,
        load_mode,
        load_kind = Empty,
        cold_bytes = Empty,
        warm_bytes = Empty,
        hot_bytes = Empty,
        unknown_bytes = Empty,
        total_bytes = Empty,
        cause = Empty
    )
}

// === impl Attacher ===

impl Attacher {
    /// Attaches `id`, whose parts may have been brought together before; runs in `load`'s span.
    ///
    /// # Errors
    /// [`Error`].
    pub(super) async fn attach(
        self,
        id: String,
        pin: bool,
        parts: Option<Parts>,
        load: Span,
    ) -> Result<Arc<Attached>, Error> {
        let outcome = self.run(&id, pin, parts).instrument(load.clone()).await;
        if let Err(error) = &outcome {
            load.record("cause", crate::error::Chain(error).to_string());
        }
        let attached = outcome?;
        load.record("total_bytes", attached.report.tensor_bytes);
        attached.begin_load(load, Until::FirstPass);
        Ok(Arc::new(attached))
    }

    async fn run(self, id: &str, pin: bool, parts: Option<Parts>) -> Result<Attached, Error> {
        let parts = match parts {
            Some(parts) => parts,
            None => Parts::bring(&self.daemon, self.fetch_timeout, id).await?,
        };
        let began = Instant::now();
        let tokenizer = Arc::new(parts.tokenizer);
        let report = self.plan(id, pin, &parts.weights, &tokenizer).await?;
        let attach_took = parts.took + began.elapsed();
        let plan_build = report.plan_build;
        tracing::info!(
            model = id,
            ?attach_took,
            ?plan_build,
            tensor_bytes = report.tensor_bytes,
            "attached"
        );
        let weights = parts.weights;
        let attached = Attached {
            id: id.to_owned(),
            tokenizer,
            templates: Arc::new(parts.templates),
            weights: Arc::clone(&weights),
            report,
            attach_took,
            usage: Usage::new(),
            load: Mutex::default(),
            companions: Mutex::default(),
        };
        let keeper = tokio::spawn(lease::keep(id.to_owned(), weights, parts.lost, self.daemon));
        attached.accompany(keeper.abort_handle());
        Ok(attached)
    }

    async fn plan(
        &self,
        id: &str,
        pin: bool,
        weights: &Arc<Weights>,
        tokenizer: &Arc<Tokenizer>,
    ) -> Result<AttachReport, Error> {
        let weights: Arc<Weights> = Arc::clone(weights);
        let request = AttachRequest {
            id: id.to_owned(),
            weights,
            tokenizer: Arc::clone(tokenizer),
            pin,
        };
        let outcome = self
            .engine
            .attach(request)
            .instrument(info_span!("model.load.plan"))
            .await;
        outcome.map_err(|source| Error::Attach {
            model: id.to_owned(),
            source: Arc::new(source),
        })
    }
}

// === impl Parts ===

impl Parts {
    /// Brings them together; reads no weight.
    ///
    /// # Errors
    /// [`Error`].
    pub(crate) async fn bring(
        daemon: &Daemon,
        fetch_timeout: Duration,
        id: &str,
    ) -> Result<Parts, Error> {
        let began = Instant::now();
        let lost = Arc::new(Notify::new());
        let weights = Arc::new(take_over(daemon, fetch_timeout, id, &lost).await?);
        let (tokenizer, templates) = text_side(id, &weights).await?;
        Ok(Parts {
            weights,
            lost,
            tokenizer,
            templates,
            took: began.elapsed(),
        })
    }
}

/// Lease, then descriptors.
async fn take_over(
    daemon: &Daemon,
    fetch_timeout: Duration,
    id: &str,
    lost: &Arc<Notify>,
) -> Result<Weights, Error> {
    let lease = daemon
        .acquire_lease(id)
        .instrument(info_span!("model.load.lease"))
        .await?;
    let lost = Arc::clone(lost);
    let options = AcceptOptions {
        fetch_timeout,
        on_lost: Some(Box::new(move || lost.notify_one())),
    };
    let span = info_span!("model.load.hand_off");
    let accept =
        move || span.in_scope(|| handoff::accept(&lease.handoff_socket, &lease.token, options));
    let outcome = spawn_blocking(accept).await.map_err(|_| Error::Lost {
        what: "the hand-off",
    })?;
    outcome.map_err(|source| Error::Accept {
        model: id.to_owned(),
        source: Arc::new(source),
    })
}

/// What stands between words and tokens. A template that cannot be used is told of when somebody wants to chat.
async fn text_side(id: &str, weights: &Arc<Weights>) -> Result<(Tokenizer, ChatTemplates), Error> {
    let weights = Arc::clone(weights);
    let span = info_span!("model.load.tokenizer");
    let build = move || {
        let _entered = span.entered();
        let metadata = weights.directory().metadata();
        let tokenizer = Tokenizer::from_metadata(metadata)?;
        Ok((tokenizer, ChatTemplates::from_metadata(metadata)))
    };
    let outcome = spawn_blocking(build).await.map_err(|_| Error::Lost {
        what: "building a tokenizer",
    })?;
    outcome.map_err(|source: TokenizerError| Error::Tokenizer {
        model: id.to_owned(),
        source: Arc::new(source),
    })
}
