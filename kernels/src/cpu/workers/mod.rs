//! The threads that share the work of one operation.
//!
//! A step of a model is some hundred operations with little between them, each over in as many microseconds as a sleeping thread takes to wake. So a thread that has nothing left to do looks out
//! for the next operation for [`LOOK_OUT`], and sleeps after that: between steps that wait for something, and while nobody asks, no thread runs.
//!
//! Threads are pinned only where somebody asks for it: several services may share a node, and each would pin the same processors.

mod pin;
mod pool;

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::DeviceError;
use pin::allowed_processors;
use pool::Pool;

/// Work below this many multiply-adds (or numbers moved) per thread is done sooner than another thread has heard of it.
const WORK_PER_THREAD: usize = 1 << 16;

/// How long a thread looks out for work before it sleeps: what lies between two operations of a step at most.
const LOOK_OUT: Duration = Duration::from_micros(60);

/// A pool of threads, to which the caller of an operation adds itself.
#[derive(Debug)]
pub(super) struct Workers {
    /// All threads but the caller's; `None` where there is no other.
    pool: Option<Pool>,
    threads: NonZeroUsize,
    pinned: bool,
}

impl Workers {
    pub(super) fn new(threads: NonZeroUsize) -> Result<Workers, DeviceError> {
        Workers::start(threads, &[]).map_err(|source| DeviceError::Threads {
            threads: threads.get(),
            source,
        })
    }

    /// Threads that stay on a processor each. The first processor is left to the caller, who may be any thread and runs wherever it may.
    pub(super) fn pinned(threads: NonZeroUsize) -> Result<Workers, DeviceError> {
        let threads_error = |source| DeviceError::Threads {
            threads: threads.get(),
            source,
        };
        let processors = allowed_processors().map_err(threads_error)?;
        if processors.len() < threads.get() {
            return Err(DeviceError::TooFewProcessors {
                threads: threads.get(),
                processors: processors.len(),
            });
        }
        Workers::start(threads, &processors[1..]).map_err(threads_error)
    }

    fn start(threads: NonZeroUsize, processors: &[usize]) -> std::io::Result<Workers> {
        let helpers = NonZeroUsize::new(threads.get() - 1);
        let pool = helpers.map(|helpers| Pool::start(helpers, processors, LOOK_OUT));
        Ok(Workers {
            pool: pool.transpose()?,
            threads,
            pinned: !processors.is_empty(),
        })
    }

    pub(super) fn threads(&self) -> NonZeroUsize {
        self.threads
    }

    pub(super) fn description(&self) -> String {
        let pinned = if self.pinned { "pinned " } else { "" };
        match self.threads.get() {
            1 => "1 thread".to_owned(),
            threads => format!("{threads} {pinned}threads"),
        }
    }

    /// Does `task` for each item, each on whichever thread is free. `work`: multiply-adds, or numbers moved, of all items together; it decides whether other threads are worth telling.
    ///
    /// Which thread does what must not matter to the results.
    pub(super) fn for_each<I>(&self, items: I, work: usize, task: impl Fn(I::Item) + Sync)
    where
        I: ExactSizeIterator<Item: Send> + Send,
    {
        let worth_telling = items.len() > 1 && work >= 2 * WORK_PER_THREAD;
        let Some(pool) = self.pool.as_ref().filter(|_| worth_telling) else {
            return items.for_each(task);
        };
        let items = Mutex::new(items);
        // A statement of its own: the lock must be free again while the task runs. The iterator is whole even if a task on another thread panicked.
        let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
        pool.run(&|| {
            while let Some(item) = next() {
                task(item);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn workers(threads: usize) -> Workers {
        Workers::new(NonZeroUsize::new(threads).expect("not zero")).expect("threads start")
    }

    #[test]
    fn every_item_is_done_once() {
        for threads in [1, 2, 5] {
            let workers = workers(threads);
            for len in [0, 1, 2, 3, 100] {
                let mut counts = vec![0; len];
                workers.for_each(counts.iter_mut(), usize::MAX, |count| *count += 1);
                assert_eq!(counts, vec![1; len], "{threads} threads");
            }
        }
    }

    #[test]
    fn a_thousand_operations_follow_each_other() {
        let workers = workers(3);
        let done = AtomicUsize::new(0);
        for _ in 0..1000 {
            workers.for_each(0..7_usize, usize::MAX, |item| {
                done.fetch_add(item, Ordering::Relaxed);
            });
        }
        assert_eq!(done.into_inner(), 21_000);
    }

    /// Two tasks that wait for each other are only over if two threads do them.
    #[test]
    fn items_are_shared() {
        let workers = workers(2);
        let barrier = std::sync::Barrier::new(2);
        for _ in 0..3 {
            workers.for_each(0..2, usize::MAX, |_| {
                barrier.wait();
            });
        }
    }

    /// Where each of `threads` threads may run, the caller's first.
    fn processors_of_each(workers: &Workers, threads: usize) -> Vec<Vec<usize>> {
        let barrier = std::sync::Barrier::new(threads);
        let caller = std::thread::current().id();
        let found = Mutex::new(Vec::new());
        workers.for_each(0..threads, usize::MAX, |_| {
            // No thread does two.
            barrier.wait();
            let processors = allowed_processors().expect("the system tells");
            let helps = std::thread::current().id() != caller;
            found.lock().expect("no panic").push((helps, processors));
        });
        let mut found = found.into_inner().expect("no panic");
        found.sort();
        found
            .into_iter()
            .map(|(_, processors)| processors)
            .collect()
    }

    #[test]
    fn pinned_threads_have_a_processor_each_and_the_caller_keeps_all_of_its_own() {
        let allowed = allowed_processors().expect("the system tells");
        let threads = allowed.len().min(4);
        let pinned = Workers::pinned(NonZeroUsize::new(threads).expect("not zero"))
            .expect("a processor for each");
        let mut expected = vec![allowed.clone()];
        expected.extend(allowed[1..threads].iter().map(|&processor| vec![processor]));
        assert_eq!(processors_of_each(&pinned, threads), expected);
        assert_eq!(
            processors_of_each(&workers(threads), threads),
            vec![allowed; threads]
        );
    }

    #[test]
    fn more_pinned_threads_than_processors_are_refused() {
        let n_allowed = allowed_processors().expect("the system tells").len();
        let refused = Workers::pinned(NonZeroUsize::new(n_allowed + 1).expect("not zero"))
            .expect_err("one is left over");
        assert_eq!(
            refused.to_string(),
            format!(
                "{} pinned threads for {n_allowed} processors that this process may use: each wants one of its own; take fewer threads, or do not pin them",
                n_allowed + 1
            )
        );
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let workers = workers(3);
        for _ in 0..20 {
            let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| {
                workers.for_each(0..100, usize::MAX, |item| assert_ne!(item, 50))
            }));
            assert!(outcome.is_err());
        }
        let sum = AtomicUsize::new(0);
        workers.for_each(0..10, usize::MAX, |item| {
            sum.fetch_add(item, Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), 45);
    }
}
