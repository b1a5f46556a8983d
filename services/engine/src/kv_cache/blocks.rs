use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};

use super::{BlockName, KvBudget, NoBlocks, Reuse};

/// The blocks of one model by id: free, in tables, or kept for reuse.
#[derive(Debug)]
pub(super) struct Blocks {
    budget: KvBudget,
    block_bytes: u64,
    n_blocks: u32,
    /// Of each id that was ever given out.
    held: Vec<Held>,
    /// Ids that hold nothing.
    free: BinaryHeap<Reverse<u32>>,
    /// Where published blocks are.
    named: HashMap<BlockName, u32>,
    /// Published blocks in no table, by when they last were in one.
    kept: BTreeMap<u64, u32>,
    used: usize,
    reuse: Reuse,
}

/// What is known of one id.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    /// Tables that hold it.
    tables: u32,
    name: Option<BlockName>,
    /// Its place among the kept ones.
    kept_since: u64,
}

impl Blocks {
    pub(super) fn new(budget: KvBudget, block_bytes: u64, n_blocks: u32) -> Blocks {
        Blocks {
            budget,
            block_bytes,
            n_blocks,
            held: Vec::new(),
            free: BinaryHeap::new(),
            named: HashMap::new(),
            kept: BTreeMap::new(),
            used: 0,
            reuse: Reuse::default(),
        }
    }

    pub(super) fn used(&self) -> usize {
        self.used
    }

    pub(super) fn kept(&self) -> usize {
        self.kept.len()
    }

    pub(super) fn block_bytes(&self) -> u64 {
        self.block_bytes
    }

    pub(super) fn reuse(&self) -> Reuse {
        self.reuse
    }

    pub(super) fn count_found(&mut self, blocks: usize) {
        self.reuse.found += blocks as u64;
    }

    pub(super) fn total(&self) -> usize {
        let affordable = self.budget.total_bytes / self.block_bytes;
        usize::try_from(affordable)
            .map_or(self.n_blocks as usize, |n| n.min(self.n_blocks as usize))
    }

    pub(super) fn oldest_kept(&self) -> Option<u64> {
        self.kept.first_key_value().map(|(&since, _)| since)
    }

    /// Sees to it that so many blocks can be [taken](Blocks::take), by letting kept ones go if need be.
    pub(super) fn make_room(&mut self, wanted: usize) -> Result<(), NoBlocks> {
        let could_be_free = self.count_free(self.kept.len());
        if wanted > could_be_free {
            let missing = wanted - could_be_free;
            return Err(NoBlocks { missing });
        }
        while wanted > self.count_free(0) {
            self.evict();
        }
        Ok(())
    }

    /// Blocks that could be taken if so many kept ones went before.
    fn count_free(&self, evicted: usize) -> usize {
        let fresh = self.n_blocks as usize - self.held.len();
        let ids = self.free.len() + fresh + evicted;
        let bytes = self.budget.free_bytes() + evicted as u64 * self.block_bytes;
        usize::try_from(bytes / self.block_bytes).map_or(ids, |affordable| affordable.min(ids))
    }

    /// The lowest free id, for one table; the caller has made room.
    pub(super) fn take(&mut self) -> u32 {
        let id = match self.free.pop() {
            Some(Reverse(id)) => id,
            None => {
                let id = u32::try_from(self.held.len()).expect("fewer than n_blocks");
                self.held.push(Held::default());
                id
            }
        };
        self.held[id as usize].tables = 1;
        self.use_one();
        id
    }

    /// The block of this name, for one more table.
    pub(super) fn share(&mut self, name: &BlockName) -> Option<u32> {
        let id = *self.named.get(name)?;
        let held = &mut self.held[id as usize];
        held.tables += 1;
        if held.tables == 1 {
            self.kept.remove(&held.kept_since);
            self.lose_one();
            self.use_one();
        }
        Some(id)
    }

    /// Names a block. If another one has the name already, this one stays its table's own.
    pub(super) fn publish(&mut self, id: u32, name: BlockName) {
        let held = &mut self.held[id as usize];
        assert!(held.tables > 0, "only what is held can be published");
        if held.name.is_some() || self.named.contains_key(&name) {
            return;
        }
        held.name = Some(name);
        self.named.insert(name, id);
        self.reuse.published += 1;
    }

    /// One table less holds the block.
    pub(super) fn give_back(&mut self, id: u32) {
        let held = &mut self.held[id as usize];
        held.tables -= 1;
        if held.tables > 0 {
            return;
        }
        if held.name.is_some() {
            held.kept_since = self.budget.tick();
            self.kept.insert(held.kept_since, id);
            self.keep_one();
        } else {
            self.free.push(Reverse(id));
        }
        self.leave_one();
    }

    /// Lets the kept block go that was held longest ago.
    pub(super) fn evict(&mut self) {
        let Some((_, id)) = self.kept.pop_first() else {
            return;
        };
        self.lose_one();
        self.reuse.evicted += 1;
        self.unname(id);
        self.free.push(Reverse(id));
    }

    /// Forgets all names, and with them what is kept.
    pub(super) fn forget(&mut self) {
        while let Some((_, id)) = self.kept.pop_first() {
            self.lose_one();
            self.free.push(Reverse(id));
        }
        self.named.clear();
        for held in &mut self.held {
            held.name = None;
        }
    }

    fn unname(&mut self, id: u32) {
        if let Some(name) = self.held[id as usize].name.take() {
            self.named.remove(&name);
        }
    }

    fn use_one(&mut self) {
        self.used += 1;
        let bytes = &self.budget.shared.used_bytes;
        bytes.set(bytes.get() + self.block_bytes);
    }

    fn leave_one(&mut self) {
        self.used -= 1;
        let bytes = &self.budget.shared.used_bytes;
        bytes.set(bytes.get() - self.block_bytes);
    }

    fn keep_one(&self) {
        let bytes = &self.budget.shared.kept_bytes;
        bytes.set(bytes.get() + self.block_bytes);
    }

    fn lose_one(&self) {
        let bytes = &self.budget.shared.kept_bytes;
        bytes.set(bytes.get() - self.block_bytes);
    }
}

/// What is kept counts no more when the model goes. Tables hold the cache, so none is left by then.
impl Drop for Blocks {
    fn drop(&mut self) {
        self.forget();
    }
}
