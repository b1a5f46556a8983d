//! Text work, which takes milliseconds for long prompts, away from the threads that serve connections.

use std::{num::NonZeroUsize, sync::Arc};

use tokio::{sync::Semaphore, task::spawn_blocking};
use tracing::Span;

use crate::error::Error;

/// A bounded number of threads. Who waits here is already counted as a request at the gate.
#[derive(Clone, Debug)]
pub(crate) struct TextPool {
    threads: Arc<Semaphore>,
}

// === impl TextPool ===

impl TextPool {
    pub(crate) fn new(threads: NonZeroUsize) -> TextPool {
        TextPool {
            threads: Arc::new(Semaphore::new(threads.get())),
        }
    }

    /// Runs `work` when a thread is free.
    ///
    /// # Errors
    /// [`Error::Lost`] if it panics.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let lost = Error::Lost { what: "text work" };
        let permit = Arc::clone(&self.threads).acquire_owned().await;
        let permit = permit.map_err(|_| lost.clone())?;
        let span = Span::current();
        let task = spawn_blocking(move || {
            // Work that nobody waits for any more cannot be stopped, but it keeps its place.
            let _permit = permit;
            span.in_scope(work)
        });
        task.await.map_err(|_| lost)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[tokio::test]
    async fn there_are_only_so_many_threads() {
        let pool = TextPool::new(NonZeroUsize::MIN);
        let (release, released) = channel::<()>();
        let first = tokio::spawn({
            let pool = pool.clone();
            async move { pool.run(move || released.recv().is_ok()).await }
        });
        while pool.threads.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let mut second = Box::pin(pool.run(|| 7));
        assert!(
            tokio::time::timeout(std::time::Duration::from_millis(20), &mut second)
                .await
                .is_err()
        );
        release.send(()).unwrap();
        assert!(first.await.unwrap().unwrap());
        assert_eq!(second.await.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_panic_is_an_error() {
        let pool = TextPool::new(NonZeroUsize::MIN);
        let outcome = pool.run(|| panic!("a bug")).await;
        assert!(matches!(outcome, Err::<(), _>(Error::Lost { .. })));
        assert_eq!(pool.run(|| 7).await.unwrap(), 7, "its thread is free again");
    }
}
