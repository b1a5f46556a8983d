//! The models of this node, as they are now.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    os::fd::AsFd as _,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{broadcast, watch};
use weights::{OpenError, Weights};

use crate::{
    cache::Subject,
    error::Error,
    scan::{Found, SeenFile},
};

/// Changes that a watcher may lag behind before it is cut off.
const CHANGES_MAX: usize = 256;
/// Known models that an error names.
const NAMED_MAX: usize = 32;
/// Reasons are for people; a parser's message may quote a name out of the file.
const REASON_CHARS_MAX: usize = 500;

/// A model as published. One value per content: a changed file gets a new one.
#[derive(Debug)]
pub(crate) struct Model {
    /// Its id, or the text that would have been one.
    pub id: String,
    /// Number of this content, never used twice by a daemon.
    pub generation: u64,
    /// Its files.
    pub files: Vec<SeenFile>,
    /// What is in them.
    pub content: Content,
}

/// Whether a model can be used.
#[derive(Debug)]
pub(crate) enum Content {
    /// Open, its header parsed.
    Available(Arc<Weights>),
    /// It cannot.
    Invalid {
        /// Why not.
        reason: String,
        /// The file may be as good as ever: the failure was the system's. Every scan tries again.
        passing: bool,
    },
}

/// What has changed.
#[derive(Debug, Default)]
pub(crate) struct Change {
    /// Models that are new or different.
    pub updated: Vec<Arc<Model>>,
    /// Ids of models that are gone.
    pub removed: Vec<String>,
}

/// What a walk means for the list. Pure.
#[derive(Debug, Default)]
struct Diff {
    /// New or changed, and to be looked into.
    open: Vec<(String, Found)>,
    /// Gone.
    removed: Vec<String>,
}

/// The list of models.
#[derive(Debug)]
pub(crate) struct Registry {
    list: Mutex<List>,
    changes: broadcast::Sender<Arc<Change>>,
    scanned: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct List {
    models: BTreeMap<String, Arc<Model>>,
    pinned: BTreeSet<String>,
    generation: u64,
}

// === impl Registry ===

impl Registry {
    pub(crate) fn new() -> Registry {
        Registry {
            list: Mutex::default(),
            changes: broadcast::Sender::new(CHANGES_MAX),
            scanned: watch::Sender::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the result of a walk in; opens what is new; blocks. Says whether anything changed. Only one caller at a time.
    ///
    /// # Errors
    /// If the model directory cannot be opened; the list stays as it was.
    pub(crate) fn apply(&self, root: &Path, found: BTreeMap<String, Found>) -> io::Result<bool> {
        let dir = File::open(root)?;
        let diff = diff(&self.lock().models, found);
        // Outside the lock: a slow disk must not hold up who only reads the list.
        let opened: Vec<_> = diff
            .open
            .into_iter()
            .map(|(id, found)| (id, look_into(&dir, &found), found.files))
            .collect();

        let mut list = self.lock();
        let mut change = Change {
            updated: Vec::new(),
            removed: diff.removed,
        };
        for id in &change.removed {
            list.models.remove(id);
        }
        for (id, content, files) in opened {
            change.updated.extend(list.replace(id, content, files));
        }
        let changed = !change.updated.is_empty() || !change.removed.is_empty();
        if changed {
            // Sent under the lock, so that who subscribes sees each change either in the list or as a change. No receiver is no failure.
            let _watchers = self.changes.send(Arc::new(change));
        }
        drop(list);
        self.scanned.send_replace(true);
        Ok(changed)
    }

    /// Resolves when the directory has been walked once: before that nothing can be said about any model.
    pub(crate) async fn ready(&self) {
        let mut scanned = self.scanned.subscribe();
        // Cannot fail: the sender lives as long as this borrow.
        let _scanned = scanned.wait_for(|scanned| *scanned).await;
    }

    /// All models, in the order of their ids.
    pub(crate) fn all(&self) -> Vec<Arc<Model>> {
        self.lock().models.values().cloned().collect()
    }

    /// All models, and every change from now on.
    pub(crate) fn watch(&self) -> (Vec<Arc<Model>>, broadcast::Receiver<Arc<Change>>) {
        let list = self.lock();
        (
            list.models.values().cloned().collect(),
            self.changes.subscribe(),
        )
    }

    /// One model.
    pub(crate) fn get(&self, id: &str) -> Result<Arc<Model>, Error> {
        let list = self.lock();
        let known = || list.models.keys().take(NAMED_MAX).cloned().collect();
        list.models
            .get(id)
            .cloned()
            .ok_or_else(|| Error::UnknownModel {
                model: id.chars().take(128).collect(),
                known: known(),
            })
    }

    /// Keeps a model in the page cache, whatever its content.
    pub(crate) fn pin(&self, id: &str) {
        let mut list = self.lock();
        if list.pinned.insert(id.to_owned())
            && let Some(model) = list.models.get(id)
        {
            let change = Change {
                updated: vec![Arc::clone(model)],
                removed: Vec::new(),
            };
            let _watchers = self.changes.send(Arc::new(change));
        }
    }

    /// Whether a model is to be kept in the page cache.
    pub(crate) fn is_pinned(&self, id: &str) -> bool {
        self.lock().pinned.contains(id)
    }

    /// Ids of models to be kept in the page cache, there or not.
    pub(crate) fn pinned(&self) -> Vec<String> {
        self.lock().pinned.iter().cloned().collect()
    }
}

// === impl List ===

impl List {
    /// Puts a model's new content in. `None` if that tells nobody anything: it was invalid, and is for the same reason.
    fn replace(
        &mut self,
        id: String,
        content: Content,
        files: Vec<SeenFile>,
    ) -> Option<Arc<Model>> {
        let before = self.models.get(&id);
        let same = before.filter(|before| before.content.is_same_failure(&content));
        let generation = same.map(|before| before.generation);
        let model = Arc::new(Model {
            id: id.clone(),
            generation: generation.unwrap_or_else(|| {
                self.generation += 1;
                self.generation
            }),
            files,
            content,
        });
        self.models.insert(id, Arc::clone(&model));
        generation.is_none().then_some(model)
    }
}

// === impl Model ===

impl Model {
    /// The open files.
    pub(crate) fn weights(&self) -> Result<&Arc<Weights>, Error> {
        match &self.content {
            Content::Available(weights) => Ok(weights),
            Content::Invalid { reason, .. } => Err(Error::InvalidModel {
                model: self.id.clone(),
                reason: reason.clone(),
            }),
        }
    }

    /// This content, for reading.
    pub(crate) fn subject(&self) -> Result<Subject, Error> {
        self.weights().map(|weights| Subject {
            generation: self.generation,
            weights: Arc::clone(weights),
        })
    }

    /// Bytes of all files.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.files
            .iter()
            .filter_map(|file| file.stamp.map(|stamp| stamp.size()))
            .fold(0, u64::saturating_add)
    }
}

// === impl Content ===

impl Content {
    fn is_same_failure(&self, other: &Content) -> bool {
        match (self, other) {
            (Content::Invalid { reason, .. }, Content::Invalid { reason: other, .. }) => {
                reason == other
            }
            _ => false,
        }
    }
}

fn diff(known: &BTreeMap<String, Arc<Model>>, found: BTreeMap<String, Found>) -> Diff {
    let removed = known
        .keys()
        .filter(|id| !found.contains_key(*id))
        .cloned()
        .collect();
    let is_new = |(id, found): &(String, Found)| {
        known.get(id).is_none_or(|model| {
            model.files != found.files
                || matches!(model.content, Content::Invalid { passing: true, .. })
        })
    };
    Diff {
        open: found.into_iter().filter(is_new).collect(),
        removed,
    }
}

fn look_into(dir: &File, found: &Found) -> Content {
    if let Some(flaw) = &found.flaw {
        return Content::Invalid {
            reason: shortened(flaw),
            passing: false,
        };
    }
    let Some(first) = found.files.first() else {
        return Content::Invalid {
            reason: "no file".to_owned(),
            passing: false,
        };
    };
    match Weights::open_beneath(dir.as_fd(), &first.path) {
        Ok(weights) => Content::Available(Arc::new(weights)),
        Err(error) => {
            let passing = matches!(
                error,
                OpenError::Io { .. }
                    | OpenError::Changed { .. }
                    | OpenError::TooManyMappings { .. }
            );
            Content::Invalid {
                reason: shortened(&error.to_string()),
                passing,
            }
        }
    }
}

/// One line of bounded length.
fn shortened(reason: &str) -> String {
    let line = reason.chars().map(|c| if c.is_control() { ' ' } else { c });
    line.take(REASON_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests;
