//! Threads that run one function together with the thread that asks for it.
#![allow(
    unsafe_code,
    reason = "threads that outlive a call run a function that borrows from it; the call waits for them"
)]

use std::any::Any;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::pin::pin_this_thread;

/// A function that every thread may run at once.
type Job = &'static (dyn Fn() + Sync);

/// The threads; they end when their pool goes.
#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    board: Mutex<Board>,
    /// A job was put up, or the end.
    posted: Condvar,
    /// Nobody runs the job any more.
    idle: Condvar,
    /// [`Board::number`], to be looked at without the lock.
    number: AtomicU64,
    /// [`Board::running`], to be looked at without the lock.
    running: AtomicUsize,
    /// How long threads look before they sleep.
    look_out: Duration,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("look_out", &self.look_out)
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Board {
    /// How many jobs there were.
    number: u64,
    /// What threads may still begin. Taken down before [`Pool::run`] returns.
    job: Option<Job>,
    /// Threads that run it.
    running: usize,
    /// Threads that sleep.
    sleeping: usize,
    /// What a thread panicked with.
    panic: Option<Box<dyn Any + Send>>,
    ended: bool,
}

impl Pool {
    /// Starts `threads` threads, each of which stays on one of `processors` if there are any.
    pub(super) fn start(
        threads: NonZeroUsize,
        processors: &[usize],
        look_out: Duration,
    ) -> std::io::Result<Pool> {
        let mut pool = Pool {
            shared: Arc::new(Shared {
                board: Mutex::default(),
                posted: Condvar::new(),
                idle: Condvar::new(),
                number: AtomicU64::new(0),
                running: AtomicUsize::new(0),
                look_out,
            }),
            threads: Vec::new(),
        };
        let (pinned, outcomes) = mpsc::channel();
        for index in 0..threads.get() {
            let shared = Arc::clone(&pool.shared);
            let (processor, pinned) = (processors.get(index).copied(), pinned.clone());
            let thread = std::thread::Builder::new().name(format!("kernels-{index}"));
            pool.threads.push(thread.spawn(move || {
                // Nobody listens any more where another thread could not start; then this one is told to end.
                let _ = pinned.send(processor.map_or(Ok(()), pin_this_thread));
                drop(pinned);
                shared.work();
            })?);
        }
        drop(pinned);
        outcomes.iter().collect::<std::io::Result<()>>()?;
        Ok(pool)
    }

    /// Runs `job` here and on every thread that comes in time; on this one alone if the threads are at somebody else's. A panic on any of them is a panic here.
    pub(super) fn run(&self, job: &(dyn Fn() + Sync)) {
        // SAFETY: threads begin the job only while it is on the board, and `Running` takes it down and waits for all that began before this function is left, by return or by panic; so no
        // thread holds the reference longer than the caller lends it.
        let job = unsafe { std::mem::transmute::<&(dyn Fn() + Sync), Job>(job) };
        let running = self.shared.post(job);
        job();
        if running.is_none() {
            return;
        }
        drop(running);
        let panic = self.shared.board().panic.take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.board().ended = true;
        self.shared.posted.notify_all();
        for thread in self.threads.drain(..) {
            // A thread catches every panic of a job, so there is nothing to hear.
            let _ = thread.join();
        }
    }
}

/// A job on the board; dropping it takes it down and waits until nobody runs it.
struct Running<'a>(&'a Shared);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.board().job = None;
        self.0
            .look_out(|| self.0.running.load(Ordering::Acquire) == 0);
        let mut board = self.0.board();
        while board.running > 0 {
            board = wait(&self.0.idle, board);
        }
    }
}

impl Shared {
    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn post(&self, job: Job) -> Option<Running<'_>> {
        let mut board = self.board();
        if board.job.is_some() || board.running > 0 {
            return None;
        }
        board.job = Some(job);
        board.number += 1;
        self.number.store(board.number, Ordering::Release);
        let anybody_sleeps = board.sleeping > 0;
        drop(board);
        if anybody_sleeps {
            self.posted.notify_all();
        }
        Some(Running(self))
    }

    /// What each thread does until the end.
    fn work(&self) {
        let mut seen = 0;
        while let Some(job) = self.next_job(&mut seen) {
            let outcome = catch_unwind(AssertUnwindSafe(job));
            let mut board = self.board();
            board.running -= 1;
            self.running.store(board.running, Ordering::Release);
            if let Err(panic) = outcome {
                board.panic = Some(panic);
            }
            if board.running == 0 {
                self.idle.notify_all();
            }
        }
    }

    /// Waits for a job that this thread has not seen; `None` at the end.
    fn next_job(&self, seen: &mut u64) -> Option<Job> {
        self.look_out(|| self.number.load(Ordering::Acquire) != *seen);
        let mut board = self.board();
        loop {
            if board.ended {
                return None;
            }
            if board.number != *seen {
                *seen = board.number;
                if let Some(job) = board.job {
                    board.running += 1;
                    self.running.store(board.running, Ordering::Release);
                    return Some(job);
                }
            }
            board.sleeping += 1;
            board = wait(&self.posted, board);
            board.sleeping -= 1;
        }
    }

    /// Looks whether something has happened, for a while.
    fn look_out(&self, happened: impl Fn() -> bool) {
        const LOOKS: usize = 64;
        let begun = Instant::now();
        loop {
            for _ in 0..LOOKS {
                if happened() {
                    return;
                }
                std::hint::spin_loop();
            }
            if begun.elapsed() >= self.look_out {
                return;
            }
        }
    }
}

fn wait<'a>(condition: &Condvar, board: MutexGuard<'a, Board>) -> MutexGuard<'a, Board> {
    condition
        .wait(board)
        .unwrap_or_else(PoisonError::into_inner)
}
