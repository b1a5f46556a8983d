//! One attach at a time for each model, however many ask for it.
//!
//! A slot is empty, then something is on its way there, then it has landed; a thing that leaves keeps its slot until it is gone, so that the next one cannot meet the remains of the last.
//! Flights and departures run on tasks of their own: a caller who gives up waiting changes nothing for the others.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;
use tracing::Instrument as _;

use crate::error::Error;

/// What has landed, or is on its way, by name. Cheap to clone; clones share their slots.
#[derive(Debug)]
pub(super) struct Flights<T> {
    slots: Arc<Mutex<HashMap<String, Slot<T>>>>,
}

#[derive(Debug)]
enum Slot<T> {
    /// On its way; the outcome is told to all who wait.
    Flying(watch::Receiver<Option<Result<T, Error>>>),
    /// There.
    Landed(T),
    /// On its way out; the channel closes when it is gone.
    Leaving(watch::Receiver<()>),
}

/// What to do about a slot, found under the lock and done outside it.
enum Found<T> {
    Landed(T),
    Flying(watch::Receiver<Option<Result<T, Error>>>),
    Leaving(watch::Receiver<()>),
    Empty,
}

/// Empties a slot when its task ends early, by a panic or with the runtime.
struct Vacate<T> {
    slots: Arc<Mutex<HashMap<String, Slot<T>>>>,
    name: String,
    armed: bool,
}

// === impl Flights ===

impl<T> Default for Flights<T> {
    fn default() -> Flights<T> {
        Flights {
            slots: Arc::default(),
        }
    }
}

impl<T: Clone + Send + Sync + 'static> Flights<T> {
    /// What has landed under `name`.
    pub(super) fn landed(&self, name: &str) -> Option<T> {
        match lock(&self.slots).get(name) {
            Some(Slot::Landed(value)) => Some(value.clone()),
            Some(Slot::Flying(_) | Slot::Leaving(_)) | None => None,
        }
    }

    /// Whether something is on its way to `name`.
    pub(super) fn is_flying(&self, name: &str) -> bool {
        matches!(lock(&self.slots).get(name), Some(Slot::Flying(_)))
    }

    /// Everything that has landed, sorted by name.
    pub(super) fn all_landed(&self) -> Vec<(String, T)> {
        let slots = lock(&self.slots);
        let landed = slots.iter().filter_map(|(name, slot)| match slot {
            Slot::Landed(value) => Some((name.clone(), value.clone())),
            Slot::Flying(_) | Slot::Leaving(_) => None,
        });
        let mut landed: Vec<_> = landed.collect();
        landed.sort_by(|a, b| a.0.cmp(&b.0));
        landed
    }

    /// What has landed under `name`; what is on its way there; or what `start` brings, which then flies for all.
    ///
    /// # Errors
    /// The flight's own, told to each who waited; the next call then starts anew.
    pub(super) async fn get<F>(&self, name: &str, start: impl FnOnce() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let mut start = Some(start);
        loop {
            match self.find_or_launch(name, &mut start) {
                Found::Landed(value) => return Ok(value),
                Found::Flying(outcome) => return wait(outcome).await,
                Found::Leaving(gone) => wait_until_gone(gone).await,
                Found::Empty => {}
            }
        }
    }

    /// Takes what has landed under `name`, or is about to, out by way of `work`; `None` if there is nothing.
    ///
    /// # Errors
    /// Those of `work`; the slot is empty all the same.
    pub(super) async fn leave<R, F>(
        &self,
        name: &str,
        work: impl FnOnce(T) -> F,
    ) -> Option<Result<R, Error>>
    where
        R: Send + 'static,
        F: Future<Output = Result<R, Error>> + Send + 'static,
    {
        let (value, keep_open) = loop {
            match self.find_or_depart(name) {
                Departure::Ready(value, keep_open) => break (value, keep_open),
                Departure::Nothing => return None,
                Departure::Flying(outcome) => {
                    // A flight that fails leaves nothing to take out.
                    let _outcome = wait(outcome).await;
                }
                Departure::Leaving(gone) => wait_until_gone(gone).await,
            }
        };
        let vacate = self.vacate(name);
        let work = work(value);
        let task = tokio::spawn(
            async move {
                let outcome = work.await;
                drop(vacate);
                drop(keep_open);
                outcome
            }
            .in_current_span(),
        );
        Some(task.await.unwrap_or(Err(Error::Lost {
            what: "unloading a model",
        })))
    }

    fn find_or_launch<F>(&self, name: &str, start: &mut Option<impl FnOnce() -> F>) -> Found<T>
    where
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let mut slots = lock(&self.slots);
        match slots.get(name) {
            Some(Slot::Landed(value)) => return Found::Landed(value.clone()),
            Some(Slot::Flying(outcome)) => return Found::Flying(outcome.clone()),
            Some(Slot::Leaving(gone)) => return Found::Leaving(gone.clone()),
            None => {}
        }
        let Some(start) = start.take() else {
            return Found::Empty;
        };
        let (tell, outcome) = watch::channel(None);
        slots.insert(name.to_owned(), Slot::Flying(outcome.clone()));
        drop(slots);
        let vacate = self.vacate(name);
        tokio::spawn(fly(start(), vacate, tell).in_current_span());
        Found::Flying(outcome)
    }

    fn find_or_depart(&self, name: &str) -> Departure<T> {
        let mut slots = lock(&self.slots);
        let value = match slots.get(name) {
            Some(Slot::Landed(value)) => value.clone(),
            Some(Slot::Flying(outcome)) => return Departure::Flying(outcome.clone()),
            Some(Slot::Leaving(gone)) => return Departure::Leaving(gone.clone()),
            None => return Departure::Nothing,
        };
        let (keep_open, gone) = watch::channel(());
        slots.insert(name.to_owned(), Slot::Leaving(gone));
        Departure::Ready(value, keep_open)
    }

    fn vacate(&self, name: &str) -> Vacate<T> {
        Vacate {
            slots: Arc::clone(&self.slots),
            name: name.to_owned(),
            armed: true,
        }
    }
}

enum Departure<T> {
    Ready(T, watch::Sender<()>),
    Flying(watch::Receiver<Option<Result<T, Error>>>),
    Leaving(watch::Receiver<()>),
    Nothing,
}

async fn fly<T: Clone>(
    flight: impl Future<Output = Result<T, Error>>,
    mut vacate: Vacate<T>,
    tell: watch::Sender<Option<Result<T, Error>>>,
) {
    let outcome = flight.await;
    // The slot changes before anybody is told, so that whoever is told finds it changed.
    match &outcome {
        Ok(value) => {
            lock(&vacate.slots).insert(vacate.name.clone(), Slot::Landed(value.clone()));
            vacate.armed = false;
        }
        Err(_) => drop(vacate),
    }
    tell.send_replace(Some(outcome));
}

async fn wait<T: Clone>(
    mut outcome: watch::Receiver<Option<Result<T, Error>>>,
) -> Result<T, Error> {
    let lost = Err(Error::Lost {
        what: "attaching a model",
    });
    match outcome.wait_for(Option::is_some).await {
        Ok(outcome) => outcome.clone().unwrap_or(lost),
        Err(_) => lost,
    }
}

async fn wait_until_gone(mut gone: watch::Receiver<()>) {
    // Nothing is ever sent; the channel closes.
    while gone.changed().await.is_ok() {}
}

impl<T> Drop for Vacate<T> {
    fn drop(&mut self) {
        if self.armed {
            lock(&self.slots).remove(&self.name);
        }
    }
}

fn lock<T>(slots: &Mutex<HashMap<String, Slot<T>>>) -> MutexGuard<'_, HashMap<String, Slot<T>>> {
    // Nothing that can panic runs under this lock but clones of `T`, which leave the map whole.
    slots.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
