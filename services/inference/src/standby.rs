//! Taking turns: of several services with one lock file, the one that holds the lock serves.
//!
//! # Why a lock on a file
//! The kernel lets go of it when its holder ends, by whatever signal, and hands it to one of those who wait in the same moment: nobody polls, and nothing has to be told apart from being slow.
//! The address is bound by whoever holds the lock; so nobody ever connects to a service that only stands by.

use std::fs::File;
use std::path::PathBuf;

use anyhow::Context as _;

/// Waits until this process holds the lock on `path`, which is made if it is not there. The lock is let go with the file, or when the process ends.
///
/// # Errors
/// Those of the file system.
pub(crate) async fn turn(path: PathBuf) -> anyhow::Result<File> {
    let wait = move || {
        let file = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("opening the lock {}", path.display()))?;
        file.lock()
            .with_context(|| format!("locking {}", path.display()))?;
        Ok(file)
    };
    // A thread of its own kind: it may wait for days. A process that is told to end meanwhile leaves it behind.
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("standby".to_owned())
        .spawn(move || sender.send(wait()))
        .context("starting the thread that waits for the lock")?;
    receiver
        .await
        .context("the thread that waits for the lock died")?
}
