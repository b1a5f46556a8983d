use super::BLOCK_LEN;

/// What a full block holds: the tokens of its own positions and of all before them, under one model and one salt. A cryptographic hash, so that nobody can make a prompt that finds another prompt's blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockName([u8; NAME_LEN]);

/// Bytes of a name.
const NAME_LEN: usize = 32;
/// Keeps the beginnings of chains apart from every other hash.
const CONTEXT: &str = "hearth engine 2026-11 names of KV blocks";

/// The tokens of a sequence as names of its full blocks. Each name is the hash of the one before and of the block's tokens.
#[derive(Clone, Debug)]
pub struct Chain {
    root: BlockName,
    names: Vec<BlockName>,
    /// Tokens behind the last full block.
    rest: Vec<u32>,
}

impl Chain {
    /// The chain of `tokens`. Only chains of the same model `generation` and the same `salt` have names in common.
    pub fn new(generation: u64, salt: &str, tokens: &[u32]) -> Chain {
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        hasher.update(&generation.to_le_bytes());
        hasher.update(salt.as_bytes());
        let mut chain = Chain {
            root: BlockName(*hasher.finalize().as_bytes()),
            names: Vec::with_capacity(tokens.len() / BLOCK_LEN),
            rest: Vec::with_capacity(BLOCK_LEN),
        };
        let (blocks, rest) = tokens.as_chunks::<BLOCK_LEN>();
        for block in blocks {
            chain.push_block(block);
        }
        chain.rest.extend_from_slice(rest);
        chain
    }

    /// The sequence has one token more.
    pub fn push(&mut self, token: u32) {
        self.rest.push(token);
        if let Ok(block) = <[u32; BLOCK_LEN]>::try_from(self.rest.as_slice()) {
            self.push_block(&block);
            self.rest.clear();
        }
    }

    /// The names of the full blocks, in the order of their positions.
    pub fn names(&self) -> &[BlockName] {
        &self.names
    }

    /// How many tokens the sequence has.
    pub fn n_tokens(&self) -> usize {
        self.names.len() * BLOCK_LEN + self.rest.len()
    }

    fn push_block(&mut self, tokens: &[u32; BLOCK_LEN]) {
        let BlockName(before) = self.names.last().unwrap_or(&self.root);
        let mut bytes = [0; NAME_LEN + 4 * BLOCK_LEN];
        let (front, back) = bytes.split_at_mut(NAME_LEN);
        front.copy_from_slice(before);
        for (place, token) in back.as_chunks_mut::<4>().0.iter_mut().zip(tokens) {
            *place = token.to_le_bytes();
        }
        let name = blake3::hash(&bytes);
        self.names.push(BlockName(*name.as_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(n: u32) -> Vec<u32> {
        (0..n).map(|i| i * i % 97).collect()
    }

    #[test]
    fn a_chain_grows_as_it_would_have_been_built() {
        let all = tokens(100);
        let built = Chain::new(1, "s", &all);
        assert_eq!((built.names().len(), built.n_tokens()), (3, 100));
        for n in [0, 1, 31, 32, 33, 64, 99] {
            let mut grown = Chain::new(1, "s", &all[..n]);
            assert_eq!((grown.names().len(), grown.n_tokens()), (n / 32, n));
            for &token in &all[n..] {
                grown.push(token);
            }
            assert_eq!(grown.names(), built.names(), "from {n}");
        }
    }

    #[test]
    fn whatever_differs_changes_every_name_behind_it() {
        let all = tokens(96);
        let names = |chain: Chain| chain.names().to_vec();
        let plain = names(Chain::new(1, "s", &all));
        let common = |other: Vec<BlockName>| {
            let same = plain.iter().zip(&other).map(|(a, b)| a == b);
            same.collect::<Vec<bool>>()
        };
        assert_eq!(common(names(Chain::new(1, "s", &all))), [true; 3]);
        assert_eq!(common(names(Chain::new(2, "s", &all))), [false; 3]);
        assert_eq!(common(names(Chain::new(1, "", &all))), [false; 3]);
        let mut changed = all.clone();
        changed[40] += 1;
        assert_eq!(
            common(names(Chain::new(1, "s", &changed))),
            [true, false, false]
        );
        // The same tokens behind others are another block.
        let repeated = [&all[..32], &all[..32]].concat();
        let repeated = names(Chain::new(1, "s", &repeated));
        assert_ne!(repeated[0], repeated[1]);
        // No salt can be taken for another generation's: the generation has a fixed length.
        let odd = names(Chain::new(1, "\u{1}", &all));
        assert_ne!(odd, names(Chain::new(1, "\u{1}\0", &all)));
    }
}
