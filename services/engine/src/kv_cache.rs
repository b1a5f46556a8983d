//! Who owns which block of the KV cache, and what lies in it. Pure accounting: the numbers themselves lie in [`kernels::KvStore`], under the ids given out here.
//!
//! # Reuse
//! A block whose positions are all computed is *published* under the name of its contents: the hash of its tokens and of all tokens before them (see [`Chain`]). Whoever begins with the same tokens finds it and shares it.
//! Nobody writes to a published block: a sequence writes behind its last full block, in blocks of its own. A block that no table holds any more stays as it is for as long as its room is not needed; then the one that was
//! held longest ago goes first, and of one sequence's blocks the last, without which the others are still worth something.
//!
//! # What the budget bounds
//! Blocks that hold something, in bytes, over the caches of all models: those in tables and those kept for reuse. A store's memory is touched when a block is first written; the lowest free id is given out first, so that
//! a store touches no more than its model ever held at once, and the worker drops the store when its model holds no block.

mod blocks;
mod chain;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use blocks::Blocks;

pub use chain::{BlockName, Chain};

/// Positions in one block.
pub const BLOCK_LEN: usize = 32;

/// Bytes that the caches of all models share. Clones are the same budget.
#[derive(Clone, Debug)]
pub struct KvBudget {
    total_bytes: u64,
    shared: Rc<Shares>,
}

/// What is taken of a budget.
#[derive(Debug, Default)]
struct Shares {
    used_bytes: Cell<u64>,
    kept_bytes: Cell<u64>,
    /// Counts events of all caches, for the order in which blocks were last held.
    clock: Cell<u64>,
}

impl KvBudget {
    /// A budget of which nothing is used.
    pub fn new(total_bytes: u64) -> KvBudget {
        KvBudget {
            total_bytes,
            shared: Rc::default(),
        }
    }

    /// The whole budget.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// What blocks in tables take of it.
    pub fn used_bytes(&self) -> u64 {
        self.shared.used_bytes.get()
    }

    /// What blocks that are only kept for reuse take of it; they go when the room is needed.
    pub fn kept_bytes(&self) -> u64 {
        self.shared.kept_bytes.get()
    }

    /// What nothing takes.
    pub fn free_bytes(&self) -> u64 {
        self.total_bytes - self.used_bytes() - self.kept_bytes()
    }

    fn tick(&self) -> u64 {
        let clock = &self.shared.clock;
        clock.set(clock.get() + 1);
        clock.get()
    }
}

/// The blocks of one model. Clones are the same cache.
#[derive(Clone, Debug)]
pub struct KvCache {
    blocks: Rc<RefCell<Blocks>>,
}

/// What became of a cache's blocks so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reuse {
    /// Blocks that sequences found instead of computing them.
    pub found: u64,
    /// Blocks that were published.
    pub published: u64,
    /// Kept blocks whose room was needed.
    pub evicted: u64,
}

/// There are not enough free blocks; nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoBlocks {
    /// How many more must be freed.
    pub missing: usize,
}

impl KvCache {
    /// A cache of at most `n_blocks` blocks, each `block_bytes` long.
    pub fn new(budget: &KvBudget, block_bytes: u64, n_blocks: u32) -> KvCache {
        let blocks = Blocks::new(budget.clone(), block_bytes, n_blocks);
        KvCache {
            blocks: Rc::new(RefCell::new(blocks)),
        }
    }

    /// A table without blocks.
    pub fn table(&self) -> BlockTable {
        BlockTable {
            cache: self.clone(),
            blocks: Vec::new(),
        }
    }

    /// Blocks that are in some table.
    pub fn used_blocks(&self) -> usize {
        self.blocks.borrow().used()
    }

    /// Bytes of the blocks in use.
    pub fn used_bytes(&self) -> u64 {
        self.used_blocks() as u64 * self.block_bytes()
    }

    /// Blocks that are in no table and kept for reuse.
    pub fn kept_blocks(&self) -> usize {
        self.blocks.borrow().kept()
    }

    /// Bytes of the blocks that are kept for reuse.
    pub fn kept_bytes(&self) -> u64 {
        self.kept_blocks() as u64 * self.block_bytes()
    }

    /// Bytes of one block.
    pub fn block_bytes(&self) -> u64 {
        self.blocks.borrow().block_bytes()
    }

    /// Blocks that could be had if nobody else used any.
    pub fn total_blocks(&self) -> usize {
        self.blocks.borrow().total()
    }

    /// What became of its blocks so far.
    pub fn reuse(&self) -> Reuse {
        self.blocks.borrow().reuse()
    }

    /// When the kept block that would go next was last held, on the budget's clock; `None` if nothing is kept.
    pub fn oldest_kept(&self) -> Option<u64> {
        self.blocks.borrow().oldest_kept()
    }

    /// Counts blocks that a sequence found and goes on with.
    pub fn count_found(&self, blocks: usize) {
        self.blocks.borrow_mut().count_found(blocks);
    }

    /// Lets one kept block go, the one that was held longest ago.
    pub fn evict(&self) {
        self.blocks.borrow_mut().evict();
    }

    /// Forgets what every block holds: nothing published so far is found again.
    pub fn forget(&self) {
        self.blocks.borrow_mut().forget();
    }
}

/// The blocks of one sequence, in the order of its positions. They go back when the table is cleared or dropped.
#[derive(Debug)]
pub struct BlockTable {
    cache: KvCache,
    blocks: Vec<u32>,
}

impl BlockTable {
    /// Makes room for the first `n_positions` positions. Blocks of this model that are only kept go if there is no other room.
    /// # Errors
    /// [`NoBlocks`], and nothing was taken.
    pub fn grow_to(&mut self, n_positions: usize) -> Result<(), NoBlocks> {
        let wanted = blocks_for(n_positions).saturating_sub(self.blocks.len());
        let mut cache = self.cache.blocks.borrow_mut();
        cache.make_room(wanted)?;
        self.blocks.extend((0..wanted).map(|_| cache.take()));
        Ok(())
    }

    /// Shares the blocks that are published under the first of `names`, up to the first that is not; answers how many. The table is empty before.
    pub fn find(&mut self, names: &[BlockName]) -> usize {
        assert!(self.blocks.is_empty(), "what is found comes first");
        let mut cache = self.cache.blocks.borrow_mut();
        let found = names.iter().map_while(|name| cache.share(name));
        self.blocks.extend(found);
        self.blocks.len()
    }

    /// Names block `index`, all of whose positions are computed.
    pub fn publish(&mut self, index: usize, name: BlockName) {
        let id = self.blocks[index];
        self.cache.blocks.borrow_mut().publish(id, name);
    }

    /// The ids: entry `i` holds the positions from `i * BLOCK_LEN` on.
    pub fn ids(&self) -> &[u32] {
        &self.blocks
    }

    /// Gives every block back, the last first.
    pub fn clear(&mut self) {
        let mut cache = self.cache.blocks.borrow_mut();
        for id in self.blocks.drain(..).rev() {
            cache.give_back(id);
        }
    }
}

impl Drop for BlockTable {
    fn drop(&mut self) {
        self.clear();
    }
}

/// How many blocks hold so many positions.
pub fn blocks_for(n_positions: usize) -> usize {
    n_positions.div_ceil(BLOCK_LEN)
}

#[cfg(test)]
mod tests;
