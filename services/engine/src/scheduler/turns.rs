use std::collections::BTreeMap;
use std::time::Duration;

use crate::residency::ModelKey;

/// Shares the device between models whose steps can go on: the one that has had the least time goes next, a layer at a time.
///
/// A model that comes back from doing nothing starts level with the others: it has no claim to the time that it did not need.
#[derive(Debug, Default)]
pub struct Turns {
    used: BTreeMap<ModelKey, Duration>,
    /// The used time of the model that last had a turn: nobody who starts now may claim to have had less.
    level: Duration,
}

impl Turns {
    /// The model to go next among those that can.
    pub fn next(&mut self, ready: impl Iterator<Item = ModelKey>) -> Option<ModelKey> {
        let ready: Vec<ModelKey> = ready.collect();
        self.used.retain(|model, _| ready.contains(model));
        for &model in &ready {
            self.used.entry(model).or_insert(self.level);
        }
        let (used, model) = self
            .used
            .iter()
            .map(|(&model, &used)| (used, model))
            .min()?;
        self.level = used;
        Some(model)
    }

    /// The model had the device for so long.
    pub fn used(&mut self, model: ModelKey, time: Duration) {
        if let Some(used) = self.used.get_mut(&model) {
            *used += time;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ModelKey = ModelKey(1);
    const B: ModelKey = ModelKey(2);

    /// Runs `n` turns in which a layer of `A` takes `a_ms` and one of `B` takes `b_ms`; counts the time of each.
    fn run(turns: &mut Turns, n: usize, models: &[ModelKey], a_ms: u64, b_ms: u64) -> (u64, u64) {
        let mut spent = (0, 0);
        for _ in 0..n {
            let model = turns
                .next(models.iter().copied())
                .expect("somebody is ready");
            let ms = if model == A { a_ms } else { b_ms };
            *(if model == A {
                &mut spent.0
            } else {
                &mut spent.1
            }) += ms;
            turns.used(model, Duration::from_millis(ms));
        }
        spent
    }

    #[test]
    fn time_is_shared_and_not_turns() {
        let (a, b) = run(&mut Turns::default(), 1100, &[A, B], 10, 1);
        assert!(a.abs_diff(b) <= 10, "{a} ms and {b} ms");
    }

    #[test]
    fn absence_earns_nothing() {
        let mut turns = Turns::default();
        run(&mut turns, 100, &[A], 10, 10);
        let (a, b) = run(&mut turns, 100, &[A, B], 10, 10);
        assert!(a.abs_diff(b) <= 20, "{a} ms and {b} ms");
    }

    #[test]
    fn nobody_ready_is_nobody_next() {
        assert_eq!(Turns::default().next(std::iter::empty()), None);
    }
}
