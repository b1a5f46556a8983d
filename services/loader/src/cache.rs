//! The page cache, as far as it is ours: keeps the [`Ledger`] and does what it decides.
//!
//! An extent that is chosen to be dropped may be wanted again before it is gone. That costs its next reader a second read and nothing else, so nobody waits for a drop.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use gguf::ExtentId;
use weights::Weights;

use crate::{
    lease::LeaseId,
    ledger::{Key, Ledger},
};

/// One content of one model, as the cache sees it.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    /// The content's number.
    pub generation: u64,
    /// The open files.
    pub weights: Arc<Weights>,
}

/// The page cache's budget at work.
#[derive(Debug)]
pub(crate) struct Cache {
    books: Mutex<Books>,
    dropped_bytes: AtomicU64,
}

#[derive(Debug)]
struct Books {
    ledger: Ledger,
    /// To reach the files of what is dropped. Weak: a content that neither the registry nor a lease knows has no business here.
    contents: HashMap<u64, Weak<Weights>>,
}

// === impl Subject ===

impl Subject {
    fn key(&self, extent: ExtentId) -> Key {
        Key {
            generation: self.generation,
            extent,
        }
    }

    fn len_bytes(&self, extent: ExtentId) -> u64 {
        self.weights
            .directory()
            .get_extent(extent)
            .map_or(0, |extent| extent.len_bytes)
    }
}

// === impl Cache ===

impl Cache {
    pub(crate) fn new(budget_bytes: Option<u64>) -> Cache {
        let books = Books {
            ledger: Ledger::new(budget_bytes),
            contents: HashMap::new(),
        };
        Cache {
            books: Mutex::new(books),
            dropped_bytes: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the use of an extent, and drops others if that takes us over the budget. Blocks while it does.
    pub(crate) fn use_extent(&self, subject: &Subject, extent: ExtentId) {
        let mut books = self.lock();
        books.know(subject);
        books
            .ledger
            .use_extent(subject.key(extent), subject.len_bytes(extent));
        self.trim(books);
    }

    /// Notes that the holder of a lease wants an extent, and drops others if that takes us over the budget. Blocks while it does.
    pub(crate) fn hold(&self, lease: LeaseId, subject: &Subject, extent: ExtentId) {
        let mut books = self.lock();
        books.know(subject);
        books
            .ledger
            .hold(lease, subject.key(extent), subject.len_bytes(extent));
        self.trim(books);
    }

    /// The holder of a lease does not want an extent any more.
    pub(crate) fn let_go(&self, lease: LeaseId, subject: &Subject, extent: ExtentId) {
        let mut books = self.lock();
        books.ledger.let_go(lease, subject.key(extent));
        self.trim(books);
    }

    /// A lease has ended.
    pub(crate) fn end(&self, lease: LeaseId) {
        let mut books = self.lock();
        books.ledger.end(lease);
        self.trim(books);
    }

    /// Keeps all extents of a content.
    pub(crate) fn pin(&self, subject: &Subject) {
        let mut books = self.lock();
        books.know(subject);
        books.ledger.pin(
            subject.generation,
            subject.weights.directory().tensor_bytes(),
        );
    }

    /// Keeps them no longer than others.
    pub(crate) fn unpin(&self, generation: u64) {
        let mut books = self.lock();
        books.ledger.unpin(generation);
        self.trim(books);
    }

    /// Forgets contents whose files nobody has open any more.
    pub(crate) fn sweep(&self) {
        let mut books = self.lock();
        let Books { ledger, contents } = &mut *books;
        contents.retain(|generation, weights| {
            let open = weights.strong_count() > 0;
            if !open {
                ledger.forget(*generation);
            }
            open
        });
    }

    /// Bytes of the budget that a content may use; `None` if there is no budget.
    pub(crate) fn room_for(&self, subject: &Subject) -> Option<u64> {
        self.lock().ledger.room_for(subject.generation)
    }

    /// Bytes believed to be in the page cache because of us, and of these the pinned ones.
    pub(crate) fn kept_bytes(&self) -> (u64, u64) {
        let books = self.lock();
        (books.ledger.total_bytes(), books.ledger.pinned_bytes())
    }

    /// Bytes dropped since the daemon began.
    pub(crate) fn dropped_bytes(&self) -> u64 {
        self.dropped_bytes.load(Ordering::Relaxed)
    }

    /// Drops what is too much, outside the lock.
    fn trim(&self, mut books: MutexGuard<'_, Books>) {
        let mut excess: BTreeMap<u64, Vec<ExtentId>> = BTreeMap::new();
        for key in books.ledger.take_excess() {
            excess.entry(key.generation).or_default().push(key.extent);
        }
        let open =
            |(generation, extents)| Some((books.contents.get(&generation)?.upgrade()?, extents));
        let excess: Vec<(Arc<Weights>, Vec<ExtentId>)> =
            excess.into_iter().filter_map(open).collect();
        drop(books);
        for (weights, extents) in excess {
            let lens = extents
                .iter()
                .filter_map(|extent| weights.directory().get_extent(*extent));
            let bytes: u64 = lens.map(|extent| extent.len_bytes).sum();
            if let Err(error) = weights.drop_page_cache(&extents) {
                tracing::warn!(%error, "the page cache keeps what it was told to drop");
                continue;
            }
            self.dropped_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

// === impl Books ===

impl Books {
    fn know(&mut self, subject: &Subject) {
        self.contents
            .entry(subject.generation)
            .or_insert_with(|| Arc::downgrade(&subject.weights));
    }
}
