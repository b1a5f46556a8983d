use std::time::{Duration, Instant};

use crate::Timings;

/// When a sequence got where. The worker says what time it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    arrived: Instant,
    /// Spent on the attach before the request got here.
    attach_wait: Duration,
    started: Option<Instant>,
    prefilled: Option<Instant>,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
    /// Time in steps that stood still: before the prompt was done, and since.
    stalled_prefill: Duration,
    stalled_decode: Duration,
    stalls: u64,
}

impl Clock {
    pub(super) fn new(arrived: Instant, attach_wait: Duration) -> Clock {
        Clock {
            arrived,
            attach_wait,
            started: None,
            prefilled: None,
            first_token: None,
            last_token: None,
            stalled_prefill: Duration::ZERO,
            stalled_decode: Duration::ZERO,
            stalls: 0,
        }
    }

    pub(super) fn started(&mut self, now: Instant) {
        self.started = Some(now);
    }

    pub(super) fn prefilled(&mut self, now: Instant) {
        self.prefilled = Some(now);
    }

    pub(super) fn token(&mut self, now: Instant) {
        self.first_token.get_or_insert(now);
        self.last_token = Some(now);
    }

    /// A step that held the sequence stood still for so long.
    pub(crate) fn stalled(&mut self, time: Duration) {
        self.stalls += 1;
        if self.prefilled.is_none() {
            self.stalled_prefill += time;
        } else {
            self.stalled_decode += time;
        }
    }

    /// How often a step that held the sequence stood still.
    pub(super) fn stalls(&self) -> u64 {
        self.stalls
    }

    /// Time in steps that stood still.
    pub(super) fn stalled_time(&self) -> Duration {
        self.stalled_prefill + self.stalled_decode
    }

    /// The parts, for a sequence that ends at `now`. What it never reached is zero.
    pub(super) fn timings(&self, now: Instant) -> Timings {
        let between = |from: Option<Instant>, to: Option<Instant>| match (from, to) {
            (Some(from), Some(to)) => to.saturating_duration_since(from),
            _ => Duration::ZERO,
        };
        let arrived = Some(self.arrived);
        let queued_until = self.started.or(Some(now));
        Timings {
            queue: between(arrived, queued_until).saturating_sub(self.attach_wait),
            load_wait: self.attach_wait + self.stalled_time(),
            prefill: between(self.started, self.prefilled).saturating_sub(self.stalled_prefill),
            time_to_first_token: between(arrived, self.first_token),
            decode: between(self.first_token, self.last_token),
            total: between(arrived, Some(now)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_completion() {
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        let ms = Duration::from_millis;
        let mut clock = Clock::new(zero, ms(5));
        clock.started(at(20));
        clock.stalled(ms(30));
        clock.prefilled(at(100));
        clock.token(at(100));
        clock.stalled(ms(7));
        clock.token(at(150));
        let expected = Timings {
            queue: ms(15),
            load_wait: ms(42),
            prefill: ms(50),
            time_to_first_token: ms(100),
            decode: ms(50),
            total: ms(160),
        };
        assert_eq!(clock.timings(at(160)), expected);
    }

    #[test]
    fn what_never_happened_took_no_time() {
        let zero = Instant::now();
        let timings = Clock::new(zero, Duration::ZERO).timings(zero + Duration::from_millis(9));
        let expected = Timings {
            queue: Duration::from_millis(9),
            total: Duration::from_millis(9),
            ..Timings::default()
        };
        assert_eq!(timings, expected);
    }
}
