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

fn names(salt: &str, tokens: &[u32]) -> Vec<BlockName> {
    Chain::new(1, salt, tokens).names().to_vec()
}

/// A table whose blocks hold the tokens, published.
fn filled(cache: &KvCache, salt: &str, tokens: &[u32]) -> BlockTable {
    let mut table = cache.table();
    table.grow_to(tokens.len()).expect("room");
    for (index, name) in names(salt, tokens).into_iter().enumerate() {
        table.publish(index, name);
    }
    table
}

#[test]
fn full_blocks_are_found_again() {
    let budget = KvBudget::new(1000);
    let cache = KvCache::new(&budget, BLOCK_BYTES, 10);
    let tokens: Vec<u32> = (0..100).collect();
    let first = filled(&cache, "", &tokens);
    let mut second = cache.table();
    assert_eq!(
        second.find(&names("", &tokens)),
        3,
        "the fourth is not full"
    );
    assert_eq!(second.ids(), &first.ids()[..3]);
    assert_eq!(budget.used_bytes(), 400, "shared blocks count once");
    drop(first);
    assert_eq!((cache.used_blocks(), cache.kept_blocks()), (3, 0));
    drop(second);
    assert_eq!((cache.used_blocks(), cache.kept_blocks()), (0, 3));
    assert_eq!((budget.kept_bytes(), budget.free_bytes()), (300, 700));
    let mut third = cache.table();
    assert_eq!(third.find(&names("", &tokens[..70])), 2);
    assert_eq!((cache.used_blocks(), cache.kept_blocks()), (2, 1));
    assert_eq!(cache.table().find(&names("other", &tokens)), 0);
    cache.forget();
    assert_eq!((cache.used_blocks(), cache.kept_blocks()), (2, 0));
    assert_eq!(cache.table().find(&names("", &tokens)), 0);
    drop(third);
    assert_eq!((cache.kept_blocks(), budget.free_bytes()), (0, 1000));
}

#[test]
fn what_was_held_longest_ago_goes_first_and_of_a_sequence_its_end() {
    let cache = KvCache::new(&KvBudget::new(400), BLOCK_BYTES, 10);
    let (old, new): (Vec<u32>, Vec<u32>) = ((0..64).collect(), (100..164).collect());
    drop(filled(&cache, "", &old));
    drop(filled(&cache, "", &new));
    let found = |tokens: &[u32]| cache.table().find(&names("", tokens));
    let mut table = cache.table();
    table.grow_to(1).expect("a kept block goes");
    assert_eq!(cache.reuse().evicted, 1);
    assert_eq!((found(&old), found(&new)), (1, 2));
    // Being found counts as being held.
    found(&old);
    table.grow_to(2 * BLOCK_LEN).expect("a kept block goes");
    assert_eq!((found(&old), found(&new)), (1, 1));
    assert_eq!(table.grow_to(5 * BLOCK_LEN), Err(NoBlocks { missing: 1 }));
    assert_eq!(
        (found(&old), found(&new)),
        (1, 1),
        "a refusal evicts nothing"
    );
}

#[test]
fn a_block_that_two_computed_is_published_once() {
    let cache = KvCache::new(&KvBudget::new(1000), BLOCK_BYTES, 10);
    let tokens: Vec<u32> = (0..32).collect();
    let (first, second) = (filled(&cache, "", &tokens), filled(&cache, "", &tokens));
    assert_ne!(first.ids(), second.ids());
    assert_eq!(cache.reuse().published, 1);
    drop((first, second));
    assert_eq!((cache.kept_blocks(), cache.used_blocks()), (1, 0));
}

#[test]
fn what_a_model_kept_goes_with_it() {
    let budget = KvBudget::new(1000);
    let cache = KvCache::new(&budget, BLOCK_BYTES, 10);
    drop(filled(&cache, "", &[1; 64]));
    assert_eq!(budget.kept_bytes(), 200);
    drop(cache);
    assert_eq!(budget.free_bytes(), 1000);
}

mod property;
