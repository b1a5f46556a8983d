use std::hash::{BuildHasher, RandomState};

/// Hashes short byte strings under a key that is drawn for each table, so that no file can be made whose strings collide.
///
/// SipHash, which the standard library keys in the same way, takes several times as long on the few bytes of a token, and loading a vocabulary is hashing above all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hash([u64; 2]);

impl Hash {
    /// A hash function under a key of its own.
    pub(crate) fn new() -> Hash {
        let state = RandomState::new();
        Hash([0u8, 1].map(|half| state.hash_one(half)))
    }

    /// The hash of `bytes` and a number beside them.
    pub(crate) fn of(self, bytes: &[u8], beside: usize) -> u64 {
        let Hash([key, other]) = self;
        let mut state = key;
        let mut rest = bytes;
        while let Some((block, after)) = rest.split_first_chunk::<16>() {
            let (low, high) = block.split_at(8);
            state = fold(state ^ word(low), other ^ word(high));
            rest = after;
        }
        let (low, high) = match rest.len() {
            8.. => (word(&rest[..8]), word(&rest[rest.len() - 8..])),
            4.. => (half(&rest[..4]), half(&rest[rest.len() - 4..])),
            1.. => (
                u64::from(rest[0]) << 8 | u64::from(rest[rest.len() / 2]),
                u64::from(rest[rest.len() - 1]),
            ),
            0 => (0, 0),
        };
        let lens = bytes.len() as u64 ^ (beside as u64).rotate_left(32);
        fold(fold(state ^ low, other ^ high), key ^ lens)
    }
}

/// Eight bytes as a number.
fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
}

/// Four bytes as a number.
fn half(bytes: &[u8]) -> u64 {
    u64::from(u32::from_le_bytes(bytes.try_into().expect("four bytes")))
}

/// Both halves of the product, mixed: every bit of either factor moves half of the bits of the result.
fn fold(a: u64, b: u64) -> u64 {
    let (low, high) = a.carrying_mul(b, 0);
    low ^ high
}

/// The two halves of a hash, low one first.
#[expect(clippy::cast_possible_truncation, reason = "each half on its own")]
pub(crate) fn halves(hash: u64) -> [u32; 2] {
    [hash as u32, (hash >> 32) as u32]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn strings_that_look_alike_do_not_collide() {
        let hash = Hash::new();
        let mut seen = HashSet::new();
        for length in 0..40 {
            for fill in [0u8, b'a'] {
                let mut bytes = vec![fill; length];
                for at in 0..length {
                    bytes[at] ^= 1;
                    assert!(seen.insert(hash.of(&bytes, 0)), "{bytes:?}");
                    bytes[at] ^= 1;
                }
                assert!(seen.insert(hash.of(&bytes, 0)) || length == 0, "{bytes:?}");
                assert!(seen.insert(hash.of(&bytes, 1)) || length == 0, "{bytes:?}");
            }
        }
    }

    #[test]
    fn low_bits_are_spread() {
        let hash = Hash::new();
        let slots: HashSet<u64> = (0..1000u32)
            .map(|number| hash.of(number.to_string().as_bytes(), 0) & 1023)
            .collect();
        // 1000 balls into 1024 bins leave about 638 of them taken.
        assert!((560..720).contains(&slots.len()), "{}", slots.len());
    }

    #[test]
    fn tables_do_not_share_a_key() {
        assert_ne!(Hash::new().of(b"token", 0), Hash::new().of(b"token", 0));
    }
}
