use std::sync::Arc;
use std::time::{Duration, Instant};

use gguf::ExtentId;
use kernels::{Device, OpError};
use text::Tokenizer;
use tokio::sync::{oneshot, watch};
use tracing::Span;

use crate::engine::LoadProgress;
use crate::fetch_pool::FetchPool;
use crate::model::{Model, Step, Workspace};
use crate::residency::Counters;
use crate::sequence::micros;
use crate::stats::ModelStats;
use crate::{EngineError, LoadStats};

/// What the worker has of one model.
pub(super) struct Attached {
    pub(super) id: String,
    pub(super) model: Model,
    pub(super) tokenizer: Arc<Tokenizer>,
    pub(super) pool: FetchPool,
    /// The step that is under way.
    pub(super) step: Option<Running>,
    /// Device memory for steps; there while any KV block holds something.
    pub(super) workspace: Option<Workspace>,
    /// Blocks that the KV store has.
    pub(super) n_blocks: usize,
    /// Its file changed: it serves nothing more.
    pub(super) degraded: bool,
    pub(super) waiters: Vec<LoadWaiter>,
    pub(super) load: Option<LoadSpan>,
    /// Counted here: steps, rows and tokens. The rest, and the id, are filled in where they are shown.
    pub(super) counts: ModelStats,
}

/// A step, since when it stands still, if it does, and what it took.
pub(super) struct Running {
    pub(super) step: Step,
    pub(super) stalled_since: Option<Instant>,
    /// Time of the device so far.
    pub(super) worked: Duration,
}

/// Somebody who waits for an eager load.
#[derive(Debug)]
pub(super) struct LoadWaiter {
    /// [`Residency::now`](crate::residency::Residency::now) when the load was asked for.
    pub(super) stamp: u64,
    pub(super) progress: watch::Sender<LoadProgress>,
    pub(super) reply: oneshot::Sender<Result<LoadStats, EngineError>>,
}

/// One busy period of a model's fetches, as a trace shows it.
#[derive(Debug)]
pub(super) struct LoadSpan {
    pub(super) span: Span,
    begun: Instant,
    /// The counters when it began.
    before: Counters,
    /// Time in which a step stood still for this load.
    pub(super) stalled: Duration,
    /// Time that fetch threads spent, added up.
    pub(super) fetching: Duration,
}

impl Attached {
    pub(super) fn degraded_error(&self) -> EngineError {
        EngineError::DataLoss {
            model: self.id.clone(),
            cause: None,
        }
    }

    /// Takes memory for steps.
    pub(super) fn make_workspace(
        &mut self,
        device: &Device,
        max_rows: usize,
        max_logit_rows: usize,
    ) -> Result<(), OpError> {
        let workspace =
            Workspace::new(&self.model, device, max_rows, max_logit_rows, self.n_blocks)?;
        self.workspace = Some(workspace);
        Ok(())
    }

    /// Lets go of an extent, and of whatever would hold it.
    pub(super) fn evict(&mut self, extent: ExtentId) {
        if let Some(workspace) = &mut self.workspace {
            workspace.forget_recordings();
        }
        self.model.evict(extent);
    }

    /// The span of the load that is going on; it begins now if none is.
    pub(super) fn load_span(&mut self, counters: Counters) -> &mut LoadSpan {
        self.load
            .get_or_insert_with(|| LoadSpan::begin(&self.id, self.counts.generation, counters))
    }

    /// Ends the load that is going on.
    pub(super) fn end_load(&mut self, counters: Counters) {
        if let Some(load) = self.load.take() {
            load.end(counters);
        }
    }
}

impl LoadSpan {
    /// Requests point to it and none is its parent, because many may wait for one load.
    fn begin(id: &str, generation: u64, before: Counters) -> LoadSpan {
        use tracing::field::Empty;
        let span = tracing::info_span!(
            parent: None,
            "model.fetch",
            model = id,
            generation,
            extents = Empty,
            failures = Empty,
            cold_bytes = Empty,
            warm_bytes = Empty,
            hot_bytes = Empty,
            unknown_bytes = Empty,
            self_read_bytes = Empty,
            fetch_us = Empty,
            stalled_us = Empty,
            overlapped_us = Empty,
        );
        LoadSpan {
            span,
            begun: Instant::now(),
            before,
            stalled: Duration::ZERO,
            fetching: Duration::ZERO,
        }
    }

    /// Stalled and overlapped are the phases: they make up the span.
    fn end(self, after: Counters) {
        let LoadSpan { span, before, .. } = &self;
        span.record("extents", after.loads - before.loads);
        span.record("failures", after.failures - before.failures);
        span.record("cold_bytes", after.cold_bytes - before.cold_bytes);
        span.record("warm_bytes", after.warm_bytes - before.warm_bytes);
        span.record("hot_bytes", after.hot_bytes - before.hot_bytes);
        span.record("unknown_bytes", after.unknown_bytes - before.unknown_bytes);
        span.record(
            "self_read_bytes",
            after.self_read_bytes - before.self_read_bytes,
        );
        span.record("fetch_us", micros(self.fetching));
        span.record("stalled_us", micros(self.stalled));
        span.record(
            "overlapped_us",
            micros(self.begun.elapsed().saturating_sub(self.stalled)),
        );
    }
}
