//! A rate limit that is paid afterwards.
//!
//! Whether a byte comes from storage is known once it has been read, so a reader reads a piece first, pays for the bytes that were cold, and then waits until its debt is gone.

use std::{
    sync::{Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Decides how long a payer waits. Pure: the time is an argument.
#[derive(Debug)]
pub(crate) struct Bucket {
    bytes_per_second: u64,
    /// When everything that was read is paid for.
    paid_at: Option<Instant>,
}

/// A [`Bucket`] that many threads wait at.
#[derive(Debug)]
pub(crate) struct Throttle {
    bucket: Option<Mutex<Bucket>>,
    open: Mutex<bool>,
    opened: Condvar,
}

// === impl Bucket ===

impl Bucket {
    pub(crate) fn new(bytes_per_second: u64) -> Bucket {
        Bucket {
            bytes_per_second,
            paid_at: None,
        }
    }

    /// Takes `bytes` into account and says how long the payer must wait before it reads on. Time in which nobody read is not saved up.
    pub(crate) fn pay(&mut self, bytes: u64, now: Instant) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second.max(1));
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let paid_at = self.paid_at.map_or(now, |at| at.max(now)) + cost;
        self.paid_at = Some(paid_at);
        paid_at - now
    }
}

// === impl Throttle ===

impl Throttle {
    pub(crate) fn new(bytes_per_second: Option<u64>) -> Throttle {
        Throttle {
            bucket: bytes_per_second.map(|rate| Mutex::new(Bucket::new(rate))),
            open: Mutex::new(false),
            opened: Condvar::new(),
        }
    }

    /// Whether there is a rate to keep.
    pub(crate) fn is_limited(&self) -> bool {
        self.bucket.is_some()
    }

    /// Pays for bytes that came from storage; blocks until that is worked off.
    pub(crate) fn pay(&self, cold_bytes: u64) {
        let Some(bucket) = &self.bucket else { return };
        let wait = bucket
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pay(cold_bytes, Instant::now());
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // Whether it timed out or was opened: either way the wait is over.
        drop(self.opened.wait_timeout_while(open, wait, |open| !*open));
    }

    /// Lets everybody through from now on: the daemon is ending.
    pub(crate) fn open(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.opened.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debts_add_up_and_idle_time_is_lost() {
        let mut bucket = Bucket::new(1000);
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(bucket.pay(100, at(0)), Duration::from_millis(100));
        assert_eq!(bucket.pay(100, at(0)), Duration::from_millis(200));
        assert_eq!(bucket.pay(50, at(150)), Duration::from_millis(100));
        assert_eq!(bucket.pay(0, at(1000)), Duration::ZERO);
        assert_eq!(bucket.pay(100, at(10_000)), Duration::from_millis(100));
    }

    #[test]
    fn a_long_run_keeps_the_rate() {
        let mut bucket = Bucket::new(20_000_000);
        let mut now = Instant::now();
        let start = now;
        for _ in 0..100 {
            now += bucket.pay(1_000_000, now);
        }
        assert_eq!(now - start, Duration::from_secs(5));
    }

    #[test]
    fn nothing_overflows() {
        let mut bucket = Bucket::new(1);
        assert!(bucket.pay(u64::from(u32::MAX), Instant::now()) > Duration::from_secs(1 << 31));
    }

    #[test]
    fn an_opened_throttle_lets_debtors_go() {
        let throttle = Throttle::new(Some(1));
        throttle.open();
        throttle.pay(1 << 30);
    }
}
