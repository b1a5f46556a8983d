//! Who uses a model, and since when nobody does.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// Counts the users of one model.
#[derive(Debug)]
pub(super) struct Usage {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    users: usize,
    last_used: Instant,
    keep_alive: Option<Duration>,
}

/// One user; leaves when dropped.
#[derive(Debug)]
pub(crate) struct User(Arc<Usage>);

// === impl Usage ===

impl Usage {
    pub(super) fn new() -> Arc<Usage> {
        let state = State {
            users: 0,
            last_used: Instant::now(),
            keep_alive: None,
        };
        Arc::new(Usage {
            state: Mutex::new(state),
            changed: Notify::new(),
        })
    }

    /// Notes a user.
    pub(super) fn enter(self: &Arc<Usage>) -> User {
        self.lock().users += 1;
        User(Arc::clone(self))
    }

    /// Whether anybody uses the model.
    pub(super) fn is_used(&self) -> bool {
        self.lock().users > 0
    }

    /// Sets how long the model may lie idle; `None` is for ever.
    pub(super) fn set_keep_alive(&self, keep_alive: Option<Duration>) {
        self.lock().keep_alive = keep_alive;
        self.changed.notify_one();
    }

    /// Resolves when nobody has used the model for as long as it may lie idle.
    pub(super) async fn idle(&self) {
        loop {
            match self.due() {
                Some(due) if due <= Instant::now() => return,
                Some(due) => {
                    tokio::select! {
                        () = sleep_until(due) => {}
                        () = self.changed.notified() => {}
                    }
                }
                None => self.changed.notified().await,
            }
        }
    }

    /// When the idle time is over; `None` while there are users, or no end.
    fn due(&self) -> Option<Instant> {
        let state = self.lock();
        let keep_alive = state.keep_alive.filter(|_| state.users == 0)?;
        state.last_used.checked_add(keep_alive)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change under this lock is one assignment; a panic cannot leave it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.users -= 1;
        state.last_used = Instant::now();
        drop(state);
        self.0.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: Duration = Duration::from_secs(60);

    /// When, in seconds from now, `usage` is idle; looked at for an hour.
    async fn idle_after(usage: &Usage) -> Option<u64> {
        let began = Instant::now();
        let hour = Duration::from_secs(3600);
        let idle = tokio::time::timeout(hour, usage.idle()).await;
        idle.ok().map(|()| began.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn without_an_end_a_model_is_never_idle() {
        assert_eq!(idle_after(&Usage::new()).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_unused_model_is_idle_when_its_time_is_over() {
        let usage = Usage::new();
        usage.set_keep_alive(Some(KEEP));
        assert_eq!(idle_after(&usage).await, Some(60));
    }

    #[tokio::test(start_paused = true)]
    async fn time_begins_when_the_last_user_leaves() {
        let usage = Usage::new();
        usage.set_keep_alive(Some(KEEP));
        let user = usage.enter();
        let stays = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(100)).await;
            drop(user);
        });
        assert_eq!(idle_after(&usage).await, Some(160));
        stays.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_can_be_changed_while_it_runs() {
        let usage = Usage::new();
        usage.set_keep_alive(Some(KEEP));
        let changes = tokio::spawn({
            let usage = Arc::clone(&usage);
            async move {
                tokio::time::sleep(Duration::from_secs(30)).await;
                usage.set_keep_alive(Some(3 * KEEP));
            }
        });
        assert_eq!(idle_after(&usage).await, Some(180));
        changes.await.unwrap();
    }
}
