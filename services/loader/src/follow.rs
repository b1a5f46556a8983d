//! Following the model directory.
//!
//! A report from the system only says that it is time to walk the directory again: what a walk finds is the truth, so a report that was lost in an overflow costs nothing, because the
//! overflow is reported too. Watches are set by the walk itself, on each directory before it is read.

use std::{collections::BTreeSet, io, path::PathBuf, sync::Arc, time::Duration};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    node::Node,
    scan::{ScanError, scan},
};

/// A directory is walked once its reports have been quiet for so long, since they come in bursts,
const QUIET: Duration = Duration::from_millis(20);
/// and after this time even if they go on: a file that is being copied in reports all the time.
const PATIENCE: Duration = Duration::from_millis(250);
/// Walks that only tidy up watches; more than one is needed only while somebody moves directories about.
const TIDY_MAX: usize = 3;

/// Why the directory could not be taken in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FollowError {
    /// It could not be walked.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// It could not be opened.
    #[error("opening the model directory: {0}")]
    Open(#[from] io::Error),
    /// The thread that did it died: a bug.
    #[error("the walk died")]
    Died,
}

/// What is kept between two walks.
#[derive(Debug)]
pub(crate) struct Follower {
    node: Arc<Node>,
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
    /// A watch could not be set; said once.
    blind: bool,
}

// === impl Follower ===

impl Follower {
    /// Sets up a follower; nothing is read yet. Where the system offers no reports, walks happen at intervals only.
    pub(crate) fn new(node: Arc<Node>) -> Follower {
        let ring = Arc::clone(&node);
        let on_report = move |report: notify::Result<Event>| {
            if is_news(&report) {
                ring.look.notify_one();
            }
        };
        let config = notify::Config::default().with_follow_symlinks(false);
        let watcher = RecommendedWatcher::new(on_report, config);
        let watcher = watcher.inspect_err(
            |error| tracing::warn!(%error, "changes of the model directory are not reported"),
        );
        Follower {
            node,
            watcher: watcher.ok(),
            watched: BTreeSet::new(),
            blind: false,
        }
    }

    /// Follows the directory until told to stop.
    ///
    /// # Errors
    /// If the very first walk fails. Later ones leave the list as it is, and are tried again.
    pub(crate) async fn run(
        mut self,
        every: Option<Duration>,
        stop: CancellationToken,
    ) -> Result<(), FollowError> {
        let node = Arc::clone(&self.node);
        let mut first = true;
        loop {
            let (back, outcome) = tokio::task::spawn_blocking(move || {
                let outcome = self.walk();
                (self, outcome)
            })
            .await
            .map_err(|_| FollowError::Died)?;
            self = back;
            match outcome {
                Ok(true) => node.look_after_pins.notify_one(),
                Ok(false) => {}
                Err(error) if first => return Err(error),
                Err(error) => tracing::error!(%error, "the list of models is not up to date"),
            }
            first = false;
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = node.look.notified() => settle(&node).await,
                () = wait(every) => {}
            }
        }
    }

    /// Walks the directory and brings the list up to date; blocks. Says whether anything changed.
    fn walk(&mut self) -> Result<bool, FollowError> {
        let root = self.node.models.clone();
        let mut walked = scan(&root, &mut |path| self.watch(path))?;
        for _ in 0..TIDY_MAX {
            let gone: Vec<PathBuf> = self
                .watched
                .difference(&walked.directories)
                .cloned()
                .collect();
            self.watched.clone_from(&walked.directories);
            if gone.is_empty() {
                break;
            }
            for path in gone {
                if let Some(watcher) = &mut self.watcher {
                    // It is mostly gone by itself, with its directory.
                    let _gone = watcher.unwatch(&path);
                }
            }
            // Two paths may have led to one directory, whose only watch has just been taken away.
            walked = scan(&root, &mut |path| self.watch(path))?;
        }
        let changed = self.node.registry.apply(&root, walked.found)?;
        if changed {
            self.node.cache.sweep();
        }
        Ok(changed)
    }

    fn watch(&mut self, path: &std::path::Path) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        if let Err(error) = watcher.watch(path, RecursiveMode::NonRecursive)
            && !std::mem::replace(&mut self.blind, true)
        {
            tracing::warn!(%error, path = %path.display(), "some changes of the model directory will be seen late");
        }
    }
}

/// Waits until a burst of reports is over.
async fn settle(node: &Node) {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end && timeout(QUIET, node.look.notified()).await.is_ok() {}
}

async fn wait(every: Option<Duration>) {
    match every {
        Some(every) => tokio::time::sleep(every).await,
        None => std::future::pending().await,
    }
}

/// Whether a report can mean a change. Reading is none: our own walks would never end.
fn is_news(report: &notify::Result<Event>) -> bool {
    match report {
        Ok(event) if event.need_rescan() => true,
        Ok(event) => {
            !matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write))
        }
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, DataChange, Flag, ModifyKind};

    use super::*;

    #[test]
    fn reads_are_no_news_and_overflows_are() {
        let check = |event: Event, expected: bool| {
            assert_eq!(is_news(&Ok(event.clone())), expected, "{event:?}")
        };
        check(
            Event::new(EventKind::Access(AccessKind::Open(AccessMode::Any))),
            false,
        );
        check(Event::new(EventKind::Access(AccessKind::Read)), false);
        check(
            Event::new(EventKind::Access(AccessKind::Close(AccessMode::Read))),
            false,
        );
        check(
            Event::new(EventKind::Access(AccessKind::Close(AccessMode::Write))),
            true,
        );
        check(Event::new(EventKind::Create(CreateKind::File)), true);
        check(
            Event::new(EventKind::Modify(ModifyKind::Data(DataChange::Any))),
            true,
        );
        check(Event::new(EventKind::Other).set_flag(Flag::Rescan), true);
        check(
            Event::new(EventKind::Access(AccessKind::Any)).set_flag(Flag::Rescan),
            true,
        );
        assert!(is_news(&Err(notify::Error::generic("lost"))));
    }
}
