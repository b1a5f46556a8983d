//! What a fetch cost.

use crate::reading::Storage;

/// How the bytes of an extent came to be in memory. The three sum to its length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Read from storage for this fetch.
    pub cold_bytes: u64,
    /// Were in the page cache.
    pub warm_bytes: u64,
    /// One of the two, where the file system does not account.
    pub unknown_bytes: u64,
    /// This process read them because no daemon did.
    pub self_read: bool,
}

impl Fetched {
    /// Sorts `len_bytes` by what the reading thread's count says. Whole pages are read, so the count can exceed the length.
    pub(crate) fn sorted(len_bytes: u64, storage: Storage) -> Fetched {
        let cold_bytes = storage.bytes.min(len_bytes);
        let rest = len_bytes - cold_bytes;
        let (warm_bytes, unknown_bytes) = if storage.complete {
            (rest, 0)
        } else {
            (0, rest)
        };
        Fetched {
            cold_bytes,
            warm_bytes,
            unknown_bytes,
            self_read: false,
        }
    }

    /// The sum.
    pub fn total_bytes(&self) -> u64 {
        self.cold_bytes
            .saturating_add(self.warm_bytes)
            .saturating_add(self.unknown_bytes)
    }

    /// Calls `storage_bytes` more of them cold: they had left the page cache again.
    pub fn add_cold(&mut self, storage_bytes: u64) {
        let from_warm = storage_bytes.min(self.warm_bytes);
        let from_unknown = (storage_bytes - from_warm).min(self.unknown_bytes);
        self.warm_bytes -= from_warm;
        self.unknown_bytes -= from_unknown;
        self.cold_bytes += from_warm + from_unknown;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fetched(cold_bytes: u64, warm_bytes: u64, unknown_bytes: u64) -> Fetched {
        Fetched {
            cold_bytes,
            warm_bytes,
            unknown_bytes,
            self_read: false,
        }
    }

    #[test]
    fn bytes_are_sorted_by_what_the_count_says() {
        let check = |len, bytes, complete, expected| {
            assert_eq!(Fetched::sorted(len, Storage { bytes, complete }), expected)
        };
        check(100, 0, true, fetched(0, 100, 0));
        check(100, 40, true, fetched(40, 60, 0));
        check(100, 4096, true, fetched(100, 0, 0));
        check(100, 0, false, fetched(0, 0, 100));
        check(100, 40, false, fetched(40, 0, 60));
    }

    #[test]
    fn reads_of_our_own_make_warm_bytes_cold_first() {
        let check = |mut before: Fetched, bytes, after| {
            before.add_cold(bytes);
            assert_eq!(before, after);
        };
        check(fetched(10, 20, 30), 0, fetched(10, 20, 30));
        check(fetched(10, 20, 30), 15, fetched(25, 5, 30));
        check(fetched(10, 20, 30), 25, fetched(35, 0, 25));
        check(fetched(10, 20, 30), u64::MAX, fetched(60, 0, 0));
    }
}
