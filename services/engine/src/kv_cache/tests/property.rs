use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    /// A sequence of so many tokens begins, in this cache and with this salt; two beginnings of tokens exist.
    Open {
        cache: usize,
        salt: usize,
        stem: u32,
        n_tokens: usize,
    },
    /// It gets so many tokens more, and room for them.
    Grow(usize, usize),
    /// All of its tokens are computed, and its full blocks published.
    Compute(usize),
    Clear(usize),
    Close(usize),
    Evict(usize),
    Forget(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let open = (0..2usize, 0..2usize, 0..2u32, 1..200usize);
    let open = open.prop_map(|(cache, salt, stem, n_tokens)| Op::Open {
        cache,
        salt,
        stem,
        n_tokens,
    });
    prop_oneof![
        4 => open,
        3 => (0..8usize, 1..100usize).prop_map(|(table, n)| Op::Grow(table, n)),
        6 => (0..8usize).prop_map(Op::Compute),
        1 => (0..8usize).prop_map(Op::Clear),
        4 => (0..8usize).prop_map(Op::Close),
        1 => (0..2usize).prop_map(Op::Evict),
        1 => (0..2usize).prop_map(Op::Forget),
    ]
}

/// What a block was filled with: the salt and all tokens up to its end.
type Content = (usize, Vec<u32>);

struct Sequence {
    cache: usize,
    salt: usize,
    tokens: Vec<u32>,
    /// Blocks that nobody may write to any more.
    n_sealed: usize,
    table: BlockTable,
}

impl Sequence {
    /// Finds what is there, as far as its last token, and makes room for the rest.
    fn begin(&mut self, contents: &HashMap<(usize, u32), Content>) -> Result<(), TestCaseError> {
        let chain = Chain::new(1, SALTS[self.salt], &self.tokens);
        let n_useful = (self.tokens.len() - 1) / BLOCK_LEN;
        self.n_sealed = self.table.find(&chain.names()[..n_useful]);
        for (index, &id) in self.table.ids().iter().enumerate() {
            let expected = (self.salt, self.tokens[..(index + 1) * BLOCK_LEN].to_vec());
            prop_assert_eq!(
                contents.get(&(self.cache, id)),
                Some(&expected),
                "it holds something else"
            );
        }
        if self.table.grow_to(self.tokens.len()).is_err() {
            self.table.clear();
            self.n_sealed = 0;
        }
        Ok(())
    }

    /// Fills its blocks.
    fn compute(&mut self, contents: &mut HashMap<(usize, u32), Content>) {
        let chain = Chain::new(1, SALTS[self.salt], &self.tokens);
        let n_full = (self.tokens.len() / BLOCK_LEN).min(self.table.ids().len());
        for index in self.n_sealed..n_full {
            let held = (self.salt, self.tokens[..(index + 1) * BLOCK_LEN].to_vec());
            contents.insert((self.cache, self.table.ids()[index]), held);
            self.table.publish(index, chain.names()[index]);
        }
        self.n_sealed = self.n_sealed.max(n_full);
    }
}

const SALTS: [&str; 2] = ["", "tenant"];

fn check(
    budget: &KvBudget,
    caches: &[KvCache; 2],
    sequences: &[Sequence],
) -> Result<(), TestCaseError> {
    let (mut used_bytes, mut kept_bytes) = (0, 0);
    for (index, cache) in caches.iter().enumerate() {
        let mut holders: HashMap<u32, usize> = HashMap::new();
        let mut writers: HashMap<u32, usize> = HashMap::new();
        for sequence in sequences.iter().filter(|sequence| sequence.cache == index) {
            for (place, &id) in sequence.table.ids().iter().enumerate() {
                *holders.entry(id).or_default() += 1;
                *writers.entry(id).or_default() += usize::from(place >= sequence.n_sealed);
            }
        }
        for (id, n_writers) in writers {
            prop_assert!(
                n_writers == 0 || holders[&id] == 1,
                "block {} is written to and not its writer's alone",
                id
            );
        }
        prop_assert_eq!(cache.used_blocks(), holders.len());
        prop_assert!(cache.used_blocks() + cache.kept_blocks() <= cache.total_blocks());
        used_bytes += cache.used_bytes();
        kept_bytes += cache.kept_bytes();
    }
    prop_assert_eq!(
        (budget.used_bytes(), budget.kept_bytes()),
        (used_bytes, kept_bytes)
    );
    prop_assert!(used_bytes + kept_bytes <= budget.total_bytes());
    Ok(())
}

proptest! {
    #[test]
    fn blocks_have_one_writer_and_hold_what_they_are_found_for(ops in prop::collection::vec(op(), 0..120)) {
        let budget = KvBudget::new(1500);
        let caches = [KvCache::new(&budget, 100, 9), KvCache::new(&budget, 70, 12)];
        let mut sequences: Vec<Sequence> = Vec::new();
        let mut contents = HashMap::new();
        for op in ops {
            let n = sequences.len().max(1);
            match op {
                Op::Open { cache, salt, stem, n_tokens } => {
                    let tokens = (0..n_tokens).map(|i| if i < 70 { stem } else { 2 }).collect();
                    let table = caches[cache].table();
                    let mut sequence = Sequence { cache, salt, tokens, n_sealed: 0, table };
                    sequence.begin(&contents)?;
                    sequences.push(sequence);
                }
                Op::Grow(at, more) => if let Some(sequence) = sequences.get_mut(at % n) {
                    let len = sequence.tokens.len() + more;
                    let before = sequence.table.ids().to_vec();
                    match sequence.table.grow_to(len) {
                        Ok(()) => sequence.tokens.resize(len, 3),
                        Err(NoBlocks { missing }) => {
                            prop_assert!(missing > 0);
                            prop_assert_eq!(sequence.table.ids(), &before[..]);
                        }
                    }
                },
                Op::Compute(at) => if let Some(sequence) = sequences.get_mut(at % n) { sequence.compute(&mut contents) },
                Op::Clear(at) => if let Some(sequence) = sequences.get_mut(at % n) {
                    sequence.table.clear();
                    sequence.begin(&contents)?;
                },
                Op::Close(at) => if at % n < sequences.len() { sequences.swap_remove(at % n); },
                Op::Evict(cache) => caches[cache].evict(),
                Op::Forget(cache) => caches[cache].forget(),
            }
            check(&budget, &caches, &sequences)?;
        }
        drop(sequences);
        prop_assert_eq!(budget.used_bytes(), 0);
        for cache in &caches {
            cache.forget();
        }
        prop_assert_eq!(budget.free_bytes(), budget.total_bytes());
    }
}
