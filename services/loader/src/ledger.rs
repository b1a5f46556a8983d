//! What the daemon believes is in the page cache because of it, who wants it, and what to drop first.
//!
//! Pure: nothing is read and nothing is dropped here.

use std::collections::{BTreeMap, HashMap, HashSet};

use gguf::ExtentId;

use crate::lease::LeaseId;

/// An extent of one content of one model: generations are never used twice.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Key {
    /// The content's number.
    pub generation: u64,
    /// The extent.
    pub extent: ExtentId,
}

#[derive(Debug)]
struct Entry {
    len_bytes: u64,
    holders: usize,
    used: u64,
}

/// Extents in order of use, and the budget for them.
#[derive(Debug)]
pub(crate) struct Ledger {
    budget_bytes: Option<u64>,
    entries: HashMap<Key, Entry>,
    /// Extents that may be dropped, by when they were last used.
    idle: BTreeMap<u64, Key>,
    holds: HashMap<LeaseId, HashSet<Key>>,
    /// Contents to keep, with the bytes of all their extents, there or not.
    pinned: HashMap<u64, u64>,
    total_bytes: u64,
    now: u64,
}

// === impl Ledger ===

impl Ledger {
    pub(crate) fn new(budget_bytes: Option<u64>) -> Ledger {
        Ledger {
            budget_bytes,
            entries: HashMap::new(),
            idle: BTreeMap::new(),
            holds: HashMap::new(),
            pinned: HashMap::new(),
            total_bytes: 0,
            now: 0,
        }
    }

    /// Notes that an extent is, or is about to be, in the page cache.
    pub(crate) fn use_extent(&mut self, key: Key, len_bytes: u64) {
        self.now += 1;
        let entry = self.entries.entry(key).or_insert_with(|| {
            self.total_bytes += len_bytes;
            Entry {
                len_bytes,
                holders: 0,
                used: 0,
            }
        });
        self.idle.remove(&entry.used);
        entry.used = self.now;
        self.settle(key);
    }

    /// Notes that the holder of a lease wants an extent, until it lets go.
    pub(crate) fn hold(&mut self, lease: LeaseId, key: Key, len_bytes: u64) {
        self.use_extent(key, len_bytes);
        if self.holds.entry(lease).or_default().insert(key)
            && let Some(entry) = self.entries.get_mut(&key)
        {
            entry.holders += 1;
        }
        self.settle(key);
    }

    /// The holder of a lease does not want an extent any more.
    pub(crate) fn let_go(&mut self, lease: LeaseId, key: Key) {
        if self
            .holds
            .get_mut(&lease)
            .is_some_and(|keys| keys.remove(&key))
        {
            self.unhold(key);
        }
    }

    /// A lease has ended; everything that it held is idle unless others hold it.
    pub(crate) fn end(&mut self, lease: LeaseId) {
        for key in self.holds.remove(&lease).unwrap_or_default() {
            self.unhold(key);
        }
    }

    /// Keeps every extent of a content, which has `total_bytes` in all.
    pub(crate) fn pin(&mut self, generation: u64, total_bytes: u64) {
        if self.pinned.insert(generation, total_bytes).is_none() {
            self.settle_all(generation);
        }
    }

    /// Keeps a content no longer than any other.
    pub(crate) fn unpin(&mut self, generation: u64) {
        if self.pinned.remove(&generation).is_some() {
            self.settle_all(generation);
        }
    }

    /// Forgets a content: its file is gone, or has other content now.
    pub(crate) fn forget(&mut self, generation: u64) {
        for key in self.keys_of(generation) {
            self.remove(key);
        }
        self.pinned.remove(&generation);
        for keys in self.holds.values_mut() {
            keys.retain(|key| key.generation != generation);
        }
    }

    /// Takes out what must be dropped to come within the budget: the least recently used extents that nobody holds.
    pub(crate) fn take_excess(&mut self) -> Vec<Key> {
        let Some(budget_bytes) = self.budget_bytes else {
            return Vec::new();
        };
        let mut excess = Vec::new();
        while self.total_bytes > budget_bytes {
            let Some((_, key)) = self.idle.pop_first() else {
                break;
            };
            self.remove(key);
            excess.push(key);
        }
        excess
    }

    /// Bytes of the budget that the content `generation` may use: all but what other pinned contents take.
    pub(crate) fn room_for(&self, generation: u64) -> Option<u64> {
        let others = self
            .pinned
            .iter()
            .filter(|(pinned, _)| **pinned != generation);
        let taken: u64 = others.map(|(_, total_bytes)| total_bytes).sum();
        self.budget_bytes.map(|budget| budget.saturating_sub(taken))
    }

    /// Bytes believed to be in the page cache because of us.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Of these, bytes of pinned contents.
    pub(crate) fn pinned_bytes(&self) -> u64 {
        let pinned = self
            .entries
            .iter()
            .filter(|(key, _)| self.pinned.contains_key(&key.generation));
        pinned.map(|(_, entry)| entry.len_bytes).sum()
    }

    fn keys_of(&self, generation: u64) -> Vec<Key> {
        self.entries
            .keys()
            .filter(|key| key.generation == generation)
            .copied()
            .collect()
    }

    fn settle_all(&mut self, generation: u64) {
        for key in self.keys_of(generation) {
            self.settle(key);
        }
    }

    fn unhold(&mut self, key: Key) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.holders = entry.holders.saturating_sub(1);
        }
        self.settle(key);
    }

    fn remove(&mut self, key: Key) {
        if let Some(entry) = self.entries.remove(&key) {
            self.idle.remove(&entry.used);
            self.total_bytes -= entry.len_bytes;
        }
    }

    /// Puts an extent where it belongs: among the idle ones if nobody holds it and it is not pinned.
    fn settle(&mut self, key: Key) {
        let Some(entry) = self.entries.get(&key) else {
            return;
        };
        if entry.holders == 0 && !self.pinned.contains_key(&key.generation) {
            self.idle.insert(entry.used, key);
        } else {
            self.idle.remove(&entry.used);
        }
    }
}

#[cfg(test)]
mod tests;
