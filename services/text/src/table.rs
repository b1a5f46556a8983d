use crate::hash::{Hash, halves};

/// Finds places in a list by the bytes that stand there.
///
/// An open-addressed hash table of places alone: the bytes stay where they are, in one arena, and are compared there.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    slots: Vec<Slot>,
    hash: Hash,
    /// Length of the longest bytes that were put in.
    longest: usize,
}

/// A tag in the high half and a place, counted from 1, in the low half; 0 is free. One number, so that the allocator can give zeroed pages.
type Slot = u64;

/// So many places are hashed before they are entered: reading on in the arena and jumping about in the slots, the processor can do more of each at a time.
const BATCH: usize = 1024;

/// What is looked for: bytes and a number that must be the same too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key<'b> {
    pub(crate) bytes: &'b [u8],
    pub(crate) beside: usize,
}

impl Table {
    /// Enters `places`, at most `n_places`, all below `u32::MAX`; of several with the same key the first. `key_of` tells the key of a place.
    pub(crate) fn of<'b>(
        n_places: usize,
        places: impl Iterator<Item = u32>,
        key_of: impl Fn(u32) -> Key<'b>,
    ) -> Table {
        let mut table = Table {
            slots: vec![0; (n_places * 3 / 2 + 1).next_power_of_two()],
            hash: Hash::new(),
            longest: 0,
        };
        let mut places = places;
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let hashed = places.by_ref().take(BATCH).map(|place| {
                let Key { bytes, beside } = key_of(place);
                table.longest = table.longest.max(bytes.len());
                (place, table.hash.of(bytes, beside))
            });
            batch.extend(hashed);
            if batch.is_empty() {
                return table;
            }
            for (place, hash) in batch.drain(..) {
                let (slot, tag) = table.slot_of(hash, |other| key_of(other) == key_of(place));
                if table.slots[slot] == 0 {
                    table.slots[slot] = (u64::from(tag) << 32) | (u64::from(place) + 1);
                }
            }
        }
    }

    /// The place that was entered under `key`. `key_of` is that of [`Table::of`].
    pub(crate) fn find<'b>(&self, key: Key<'_>, key_of: impl Fn(u32) -> Key<'b>) -> Option<u32> {
        if key.bytes.len() > self.longest {
            return None;
        }
        let (slot, _) = self.slot_of(self.hash.of(key.bytes, key.beside), |place| {
            key_of(place) == key
        });
        let [entered, _] = halves(self.slots[slot]);
        entered.checked_sub(1)
    }

    /// The slot that holds the key with this hash or would hold it, and its tag: the high half of the hash, which tells most strangers apart without a look at their bytes. `is` says of an entered place
    /// whether its key is the one. A third of the slots is free, so the search ends.
    fn slot_of(&self, hash: u64, is: impl Fn(u32) -> bool) -> (usize, u32) {
        let [low, tag] = halves(hash);
        let mask = self.slots.len() - 1;
        let mut slot = low as usize & mask;
        loop {
            let [entered, here] = halves(self.slots[slot]);
            if entered == 0 || here == tag && is(entered - 1) {
                return (slot, tag);
            }
            slot = (slot + 1) & mask;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_put_in_and_nothing_else() {
        let numbers: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
        let key_of = |place: u32| Key {
            bytes: numbers[place as usize].as_bytes(),
            beside: place as usize % 2,
        };
        let table = Table::of(1000, (0..1000).filter(|number| number % 3 != 0), key_of);
        for number in 0..1000u32 {
            assert_eq!(
                table.find(key_of(number), key_of),
                Some(number).filter(|number| number % 3 != 0)
            );
            let stranger = Key {
                beside: 2,
                ..key_of(number)
            };
            assert_eq!(table.find(stranger, key_of), None);
        }
    }

    #[test]
    fn the_first_of_equals_stays() {
        let key_of = |place: u32| Key {
            bytes: &b"aba"[place as usize..][..1],
            beside: 0,
        };
        let table = Table::of(3, 0..3, key_of);
        assert_eq!(
            (table.find(key_of(0), key_of), table.find(key_of(1), key_of)),
            (Some(0), Some(1))
        );
    }

    #[test]
    fn an_empty_table_finds_nothing() {
        let key = Key {
            bytes: b"",
            beside: 0,
        };
        assert_eq!(Table::of(0, 0..0, |_| key).find(key, |_| key), None);
    }
}
