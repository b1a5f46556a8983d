//! Who owns which block of the KV cache. Pure accounting: the numbers themselves lie in [`kernels::KvStore`], under the ids given out here.
//!
//! # What the budget bounds
//! Blocks in use, in bytes, over the caches of all models. A store's memory is touched when a block is first written; the lowest free id is given out first, so that a store touches no more than its
//! model ever used at once, and the worker drops the store when its model uses no block.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;

/// Positions in one block.
pub const BLOCK_LEN: usize = 32;

/// Bytes that the caches of all models share. Clones are the same budget.
#[derive(Clone, Debug)]
pub struct KvBudget {
    total_bytes: u64,
    used_bytes: Rc<Cell<u64>>,
}

impl KvBudget {
    /// A budget of which nothing is used.
    pub fn new(total_bytes: u64) -> KvBudget {
        KvBudget {
            total_bytes,
            used_bytes: Rc::default(),
        }
    }

    /// The whole budget.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// What blocks in use take of it.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.get()
    }

    /// What is left.
    pub fn free_bytes(&self) -> u64 {
        self.total_bytes - self.used_bytes()
    }
}

/// The blocks of one model.
#[derive(Clone, Debug)]
pub struct KvCache {
    blocks: Rc<RefCell<Blocks>>,
}

#[derive(Debug)]
struct Blocks {
    budget: KvBudget,
    block_bytes: u64,
    n_blocks: u32,
    /// Ids from here on were never given out.
    fresh: u32,
    /// Ids below `fresh` that came back.
    returned: BinaryHeap<Reverse<u32>>,
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
        let blocks = Blocks {
            budget: budget.clone(),
            block_bytes,
            n_blocks,
            fresh: 0,
            returned: BinaryHeap::new(),
        };
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
        let blocks = self.blocks.borrow();
        blocks.fresh as usize - blocks.returned.len()
    }

    /// Bytes of the blocks in use.
    pub fn used_bytes(&self) -> u64 {
        self.used_blocks() as u64 * self.block_bytes()
    }

    /// Bytes of one block.
    pub fn block_bytes(&self) -> u64 {
        self.blocks.borrow().block_bytes
    }

    /// Blocks that could be had if nobody else used any.
    pub fn total_blocks(&self) -> usize {
        let blocks = self.blocks.borrow();
        let affordable = blocks.budget.total_bytes / blocks.block_bytes;
        usize::try_from(affordable).map_or(blocks.n_blocks as usize, |n| {
            n.min(blocks.n_blocks as usize)
        })
    }
}

impl Blocks {
    fn free(&self) -> usize {
        let ids = self.returned.len() + (self.n_blocks - self.fresh) as usize;
        let affordable = self.budget.free_bytes() / self.block_bytes;
        usize::try_from(affordable).map_or(ids, |affordable| affordable.min(ids))
    }

    /// The lowest free id; the caller has seen that there is one.
    fn take(&mut self) -> u32 {
        let used_bytes = &self.budget.used_bytes;
        used_bytes.set(used_bytes.get() + self.block_bytes);
        if let Some(Reverse(id)) = self.returned.pop() {
            return id;
        }
        self.fresh += 1;
        self.fresh - 1
    }

    fn give_back(&mut self, id: u32) {
        let used_bytes = &self.budget.used_bytes;
        used_bytes.set(used_bytes.get() - self.block_bytes);
        self.returned.push(Reverse(id));
    }
}

/// The blocks of one sequence, in the order of its positions. They go back when the table is cleared or dropped.
#[derive(Debug)]
pub struct BlockTable {
    cache: KvCache,
    blocks: Vec<u32>,
}

impl BlockTable {
    /// Makes room for the first `n_positions` positions.
    /// # Errors
    /// [`NoBlocks`], and the table stays as it is.
    pub fn grow_to(&mut self, n_positions: usize) -> Result<(), NoBlocks> {
        let wanted = blocks_for(n_positions).saturating_sub(self.blocks.len());
        let mut cache = self.cache.blocks.borrow_mut();
        if let Some(missing) = wanted
            .checked_sub(cache.free())
            .filter(|&missing| missing > 0)
        {
            return Err(NoBlocks { missing });
        }
        self.blocks.extend((0..wanted).map(|_| cache.take()));
        Ok(())
    }

    /// The ids: entry `i` holds the positions from `i * BLOCK_LEN` on.
    pub fn ids(&self) -> &[u32] {
        &self.blocks
    }

    /// Gives every block back.
    pub fn clear(&mut self) {
        let mut cache = self.cache.blocks.borrow_mut();
        for id in self.blocks.drain(..) {
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BLOCK_BYTES: u64 = 100;

    #[test]
    fn tables_grow_by_whole_blocks_and_give_them_back() {
        let budget = KvBudget::new(1000);
        let cache = KvCache::new(&budget, BLOCK_BYTES, 4);
        let mut table = cache.table();
        table.grow_to(BLOCK_LEN).expect("room");
        assert_eq!(table.ids(), [0]);
        table.grow_to(BLOCK_LEN + 1).expect("room");
        table.grow_to(1).expect("a table never shrinks by growing");
        assert_eq!((table.ids(), budget.used_bytes()), (&[0, 1][..], 200));
        assert_eq!(table.grow_to(BLOCK_LEN * 5), Err(NoBlocks { missing: 1 }));
        assert_eq!(table.ids(), [0, 1], "a refusal takes nothing");
        table.clear();
        drop(table);
        assert_eq!((cache.used_blocks(), budget.used_bytes()), (0, 0));
    }

    #[test]
    fn the_lowest_free_block_goes_first() {
        let cache = KvCache::new(&KvBudget::new(1000), BLOCK_BYTES, 10);
        let mut tables: Vec<BlockTable> = (0..3).map(|_| cache.table()).collect();
        for table in &mut tables {
            table.grow_to(1).expect("room");
        }
        tables.remove(1);
        tables.remove(0);
        let mut table = cache.table();
        table.grow_to(BLOCK_LEN * 3).expect("room");
        assert_eq!(table.ids(), [0, 1, 3]);
    }

    #[test]
    fn caches_share_the_budget() {
        let budget = KvBudget::new(350);
        let (a, b) = (
            KvCache::new(&budget, 100, 10),
            KvCache::new(&budget, 50, 10),
        );
        assert_eq!((a.total_blocks(), b.total_blocks()), (3, 7));
        let (mut of_a, mut of_b) = (a.table(), b.table());
        of_a.grow_to(BLOCK_LEN * 3).expect("room");
        of_b.grow_to(BLOCK_LEN).expect("room");
        assert_eq!(of_b.grow_to(BLOCK_LEN * 2), Err(NoBlocks { missing: 1 }));
        drop(of_a);
        of_b.grow_to(BLOCK_LEN * 2).expect("room now");
    }

    #[derive(Clone, Debug)]
    enum Op {
        Open(usize),
        Grow(usize, usize),
        Clear(usize),
        Drop(usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            (0..2usize).prop_map(Op::Open),
            (0..8usize, 0..200usize).prop_map(|(table, n)| Op::Grow(table, n)),
            (0..8usize).prop_map(Op::Clear),
            (0..8usize).prop_map(Op::Drop),
        ]
    }

    proptest! {
        #[test]
        fn no_block_is_owned_twice_and_all_come_back(ops in prop::collection::vec(op(), 0..80)) {
            let budget = KvBudget::new(1500);
            let caches = [KvCache::new(&budget, 100, 9), KvCache::new(&budget, 70, 12)];
            let mut tables: Vec<(usize, BlockTable)> = Vec::new();
            for op in ops {
                let n = tables.len().max(1);
                match op {
                    Op::Open(cache) => tables.push((cache, caches[cache].table())),
                    Op::Grow(table, positions) => {
                        if let Some((_, table)) = tables.get_mut(table % n) {
                            let before = table.ids().to_vec();
                            match table.grow_to(positions) {
                                Ok(()) => prop_assert!(table.ids().len() >= blocks_for(positions)),
                                Err(NoBlocks { missing }) => {
                                    prop_assert!(missing > 0);
                                    prop_assert_eq!(table.ids(), &before[..]);
                                }
                            }
                        }
                    }
                    Op::Clear(table) => if let Some((_, table)) = tables.get_mut(table % n) { table.clear() },
                    Op::Drop(table) => if table % n < tables.len() { tables.remove(table % n); },
                }
                let mut used_bytes = 0;
                for (index, cache) in caches.iter().enumerate() {
                    let mut ids: Vec<u32> = tables.iter().filter(|(c, _)| *c == index).flat_map(|(_, t)| t.ids().to_vec()).collect();
                    let owned = ids.len();
                    ids.sort_unstable();
                    ids.dedup();
                    prop_assert_eq!(ids.len(), owned, "a block is owned twice");
                    prop_assert_eq!(cache.used_blocks(), owned);
                    used_bytes += cache.used_bytes();
                }
                prop_assert_eq!(budget.used_bytes(), used_bytes);
                prop_assert!(used_bytes <= budget.total_bytes());
            }
            drop(tables);
            prop_assert_eq!(budget.used_bytes(), 0);
        }
    }
}
