//! Time, as a value that is passed in.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Where the daemon takes the time from.
///
/// Leases are looked at from runtime threads and from plain ones, so a runtime's paused clock would not do for tests.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Instant + Send + Sync>);

/// The hand of a clock that only moves when it is told to.
#[derive(Clone, Debug)]
pub struct Hand(Arc<AtomicU64>);

// === impl Clock ===

impl Clock {
    /// The system's monotonic clock.
    #[must_use]
    pub fn system() -> Clock {
        Clock(Arc::new(Instant::now))
    }

    /// A clock that stands still until its hand is moved.
    #[must_use]
    pub fn manual() -> (Clock, Hand) {
        let start = Instant::now();
        let passed_ms = Arc::new(AtomicU64::new(0));
        let hand = Hand(Arc::clone(&passed_ms));
        (
            Clock(Arc::new(move || {
                start + Duration::from_millis(passed_ms.load(Ordering::SeqCst))
            })),
            hand,
        )
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Instant {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.now()).finish()
    }
}

// === impl Hand ===

impl Hand {
    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        let by_ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.0.fetch_add(by_ms, Ordering::SeqCst);
    }
}
