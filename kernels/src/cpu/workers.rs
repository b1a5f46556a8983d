//! The threads that share the work of one operation.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use crate::DeviceError;

/// Work below this many multiply-adds (or numbers moved) per thread is done sooner than a sleeping thread wakes.
const WORK_PER_THREAD: usize = 1 << 18;

/// A pool of threads, to which the caller of an operation adds itself.
#[derive(Debug)]
pub(super) struct Workers {
    /// All threads but the caller's; `None` where there is no other.
    pool: Option<rayon::ThreadPool>,
    threads: NonZeroUsize,
}

impl Workers {
    pub(super) fn new(threads: NonZeroUsize) -> Result<Workers, DeviceError> {
        let helpers = threads.get() - 1;
        let pool = match helpers {
            0 => None,
            _ => {
                let builder = rayon::ThreadPoolBuilder::new()
                    .num_threads(helpers)
                    .thread_name(|index| format!("kernels-{index}"));
                Some(builder.build().map_err(|source| DeviceError::Threads {
                    threads: threads.get(),
                    source,
                })?)
            }
        };
        Ok(Workers { pool, threads })
    }

    pub(super) fn threads(&self) -> NonZeroUsize {
        self.threads
    }

    /// Does `task` for each item, each on whichever thread is free. `work`: multiply-adds, or numbers moved, of all items together; it decides how many threads are worth waking.
    ///
    /// Which thread does what must not matter to the results.
    pub(super) fn for_each<I>(&self, items: I, work: usize, task: impl Fn(I::Item) + Sync)
    where
        I: ExactSizeIterator<Item: Send> + Send,
    {
        let helpers = (work / WORK_PER_THREAD)
            .min(items.len())
            .min(self.threads.get())
            .saturating_sub(1);
        let Some(pool) = self.pool.as_ref().filter(|_| helpers > 0) else {
            return items.for_each(task);
        };
        let items = Mutex::new(items);
        // A statement of its own: the lock must be free again while the task runs. The iterator is whole even if a task on another thread panicked.
        let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work_off = || {
            while let Some(item) = next() {
                task(item);
            }
        };
        pool.in_place_scope(|scope| {
            for _ in 0..helpers {
                scope.spawn(|_| work_off());
            }
            work_off();
        });
    }
}

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;

    use super::*;

    #[test]
    fn every_item_is_done_once() {
        for threads in [1, 2, 5] {
            let workers =
                Workers::new(NonZeroUsize::new(threads).expect("not zero")).expect("threads start");
            for len in [0, 1, 2, 3, 100] {
                let mut counts = vec![0; len];
                workers.for_each(counts.iter_mut(), usize::MAX, |count| *count += 1);
                assert_eq!(counts, vec![1; len], "{threads} threads");
            }
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let workers = Workers::new(NonZeroUsize::new(3).expect("not zero")).expect("threads start");
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| {
            workers.for_each(0..100, usize::MAX, |item| assert_ne!(item, 50))
        }));
        assert!(outcome.is_err());
        let sum = std::sync::atomic::AtomicUsize::new(0);
        workers.for_each(0..10, usize::MAX, |item| {
            sum.fetch_add(item, std::sync::atomic::Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), 45);
    }
}
