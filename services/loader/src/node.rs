//! What both faces of the daemon, gRPC and the hand-off socket, work on.

use std::{
    io,
    ops::ControlFlow,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use gguf::ExtentId;
use telemetry::metrics::LoaderNumbers;
use tokio::sync::Notify;
use tracing::Span;
use weights::{FetchError, Fetched, Piece};

use crate::{
    bucket::Throttle,
    cache::{Cache, Subject},
    clock::Clock,
    config::Config,
    lease::{Lease, LeaseId, LeaseLimits, LeaseTable},
    readers::Readers,
    registry::{Content, Model, Registry},
    token::TokenSource,
};

/// What a lease is on.
#[derive(Debug)]
pub(crate) struct Leased {
    /// The model as it was when the lease was acquired.
    pub model: Arc<Model>,
    /// Its open files: alive as long as the lease, whatever happens to the list.
    pub subject: Subject,
    /// Open as long as the lease; bytes and fetches are noted in it at the end.
    pub span: Span,
    /// What was fetched over it.
    pub tally: Tally,
}

/// Bytes that were read, by where they came from.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    cold_bytes: AtomicU64,
    warm_bytes: AtomicU64,
    unknown_bytes: AtomicU64,
}

/// The daemon's state.
#[derive(Debug)]
pub(crate) struct Node {
    /// Where the models are.
    pub models: PathBuf,
    /// The models.
    pub registry: Registry,
    /// What the page cache holds because of us.
    pub cache: Cache,
    /// The threads that read.
    pub readers: Readers,
    /// The rate that they keep.
    pub throttle: Throttle,
    /// Where tokens come from.
    pub tokens: TokenSource,
    /// The time.
    pub clock: Clock,
    /// Rung when the model directory should be walked.
    pub look: Notify,
    /// Rung when pinned models should be looked after.
    pub look_after_pins: Notify,
    /// Rung when a lease may expire sooner than was known.
    pub lease_offered: Notify,
    /// What was read since the daemon began.
    pub tally: Tally,
    leases: Mutex<LeaseTable<Leased>>,
    failures: AtomicU64,
    budget_bytes: Option<u64>,
    stopping: AtomicBool,
}

// === impl Tally ===

impl Tally {
    pub(crate) fn add(&self, fetched: Fetched) {
        self.cold_bytes
            .fetch_add(fetched.cold_bytes, Ordering::Relaxed);
        self.warm_bytes
            .fetch_add(fetched.warm_bytes, Ordering::Relaxed);
        self.unknown_bytes
            .fetch_add(fetched.unknown_bytes, Ordering::Relaxed);
    }

    /// The counts so far.
    pub(crate) fn read(&self) -> Fetched {
        Fetched {
            cold_bytes: self.cold_bytes.load(Ordering::Relaxed),
            warm_bytes: self.warm_bytes.load(Ordering::Relaxed),
            unknown_bytes: self.unknown_bytes.load(Ordering::Relaxed),
            self_read: false,
        }
    }
}

// === impl Node ===

impl Node {
    /// A node that knows nothing yet.
    ///
    /// # Errors
    /// If the source of tokens cannot be had.
    pub(crate) fn new(config: &Config, clock: Clock) -> io::Result<Node> {
        let limits = LeaseLimits {
            total: config.max_leases.get(),
            per_peer: config.max_leases_per_peer.get(),
            time_to_live: config.lease_ttl,
        };
        let registry = Registry::new();
        for model in &config.pin {
            registry.pin(model.as_str());
        }
        Ok(Node {
            models: config.models.clone(),
            registry,
            cache: Cache::new(config.cache_budget_bytes),
            readers: Readers::new(config.fetch_threads.get()),
            throttle: Throttle::new(config.read_rate_max),
            tokens: TokenSource::open()?,
            clock,
            look: Notify::new(),
            look_after_pins: Notify::new(),
            lease_offered: Notify::new(),
            tally: Tally::default(),
            leases: Mutex::new(LeaseTable::new(limits)),
            failures: AtomicU64::new(0),
            budget_bytes: config.cache_budget_bytes,
            stopping: AtomicBool::new(false),
        })
    }

    /// The leases, without those that have timed out.
    pub(crate) fn leases(&self) -> LeaseGuard<'_> {
        let now = self.clock.now();
        let mut table = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = table.expire(now);
        for (id, lease) in &ended {
            tracing::info!(parent: &lease.subject.span, lease = id.0, "lease expired unused");
        }
        LeaseGuard {
            table,
            now,
            ended: ended.into_iter().map(|(_, lease)| lease).collect(),
        }
    }

    /// Cleans up after a lease that was held or read from.
    pub(crate) fn lease_ended(&self, id: LeaseId, lease: Lease<Leased>) {
        let Fetched {
            cold_bytes,
            warm_bytes,
            unknown_bytes,
            ..
        } = lease.subject.tally.read();
        lease.subject.span.record("cold_bytes", cold_bytes);
        lease.subject.span.record("warm_bytes", warm_bytes);
        lease.subject.span.record("unknown_bytes", unknown_bytes);
        tracing::info!(parent: &lease.subject.span, lease = id.0, "lease ended");
        drop(lease);
        self.cache.end(id);
        self.cache.sweep();
    }

    /// Reads an extent into the page cache on the calling thread, which must be one of [`Node::readers`]. Storage bytes are paid for; `on_piece` may stop it.
    ///
    /// # Errors
    /// [`FetchError`]; [`FetchError::Stopped`] also when the daemon is ending.
    pub(crate) fn read_extent(
        &self,
        subject: &Subject,
        extent: ExtentId,
        on_piece: &mut dyn FnMut(Piece) -> ControlFlow<()>,
    ) -> Result<Fetched, FetchError> {
        if self.is_stopping() {
            return Err(FetchError::Stopped);
        }
        let outcome = subject.weights.read_extent(extent, &mut |piece| {
            let flow = on_piece(piece);
            self.pay(piece.cold_bytes);
            if self.is_stopping() {
                ControlFlow::Break(())
            } else {
                flow
            }
        });
        match &outcome {
            Ok(fetched) => self.tally.add(*fetched),
            Err(FetchError::Stopped) => {}
            Err(error) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(extent = extent.0, %error, "read failed");
            }
        }
        outcome
    }

    /// Waits until storage bytes are paid for; only on a reader thread. Others may read meanwhile.
    pub(crate) fn pay(&self, cold_bytes: u64) {
        if cold_bytes > 0 && self.throttle.is_limited() {
            self.readers.aside(|| self.throttle.pay(cold_bytes));
        }
    }

    /// Whether reads should be given up.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Gives up every read and ends the reader threads; blocks until they are gone.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.throttle.open();
        self.readers.close();
    }

    /// Figures for the meter.
    pub(crate) fn numbers(&self) -> LoaderNumbers {
        let models = self.registry.all();
        let available = models
            .iter()
            .filter(|model| matches!(model.content, Content::Available(_)))
            .count();
        let (kept_bytes, pinned_bytes) = self.cache.kept_bytes();
        let Fetched {
            cold_bytes,
            warm_bytes,
            unknown_bytes,
            ..
        } = self.tally.read();
        LoaderNumbers {
            available_models: available as u64,
            invalid_models: (models.len() - available) as u64,
            leases: self.leases().table.len() as u64,
            kept_bytes,
            pinned_bytes,
            budget_bytes: self.budget_bytes.unwrap_or(0),
            cold_bytes,
            warm_bytes,
            unknown_bytes,
            dropped_bytes: self.cache.dropped_bytes(),
            failures: self.failures.load(Ordering::Relaxed),
        }
    }
}

/// The lease table, locked, at one moment.
#[derive(Debug)]
pub(crate) struct LeaseGuard<'a> {
    /// The table.
    pub table: MutexGuard<'a, LeaseTable<Leased>>,
    /// The moment.
    pub now: Instant,
    /// Dropped after the table is unlocked: a lease may be the last owner of a mapping.
    #[expect(dead_code, reason = "held for the order in which fields are dropped")]
    ended: Vec<Lease<Leased>>,
}
