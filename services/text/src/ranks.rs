use gguf::StringArray;

use crate::TokenizerError;
use crate::byte_level;
use crate::table::{Key, Table};

/// The merges of a byte-level vocabulary: which two byte strings become one, and in what order.
///
/// Kept as bytes, not as tokens: to look up both parts and what they make takes longer than all else in loading a large vocabulary, and most merges are never met.
#[derive(Debug, Clone)]
pub(crate) struct Ranks {
    table: Table,
    merges: Merges,
}

/// Merges by rank.
#[derive(Debug, Clone)]
struct Merges {
    /// Of every merge the bytes of both parts, end to end.
    bytes: Vec<u8>,
    places: Vec<Place>,
}

/// Where a merge begins in the bytes; it ends where the next one begins.
#[derive(Debug, Clone, Copy)]
struct Place {
    start: u32,
    /// 0 for a line that is no merge.
    left_len: u32,
}

impl Ranks {
    /// Reads lines of two spellings with a space between them; the place of a line is its rank. The first of equal ones counts. Lines that are no merge have a rank and no effect.
    /// # Errors
    /// [`TokenizerError::TooLarge`] if their bytes cannot be indexed in 32 bits.
    pub(crate) fn new(lines: &StringArray) -> Result<Ranks, TokenizerError> {
        let too_large = || TokenizerError::TooLarge {
            n_strings: lines.len(),
            n_bytes: lines.total_bytes(),
        };
        // What is read is no longer than the lines.
        let n_merges = u32::try_from(lines.len())
            .ok()
            .filter(|&n| n < u32::MAX && u32::try_from(lines.total_bytes()).is_ok())
            .ok_or_else(too_large)?;
        let mut merges = Merges {
            bytes: Vec::with_capacity(lines.total_bytes()),
            places: Vec::with_capacity(lines.len() + 1),
        };
        lines.iter().for_each(|line| merges.read(line));
        merges.begin(merges.bytes.len(), 0);
        let real = (0..n_merges).filter(|&rank| merges.places[rank as usize].left_len > 0);
        let table = Table::of(lines.len(), real, |rank| merges.key_of(rank));
        Ok(Ranks { table, merges })
    }

    /// The rank of the merge of the first `left_len` of `bytes` with the rest.
    pub(crate) fn find(&self, bytes: &[u8], left_len: usize) -> Option<u32> {
        self.table.find(
            Key {
                bytes,
                beside: left_len,
            },
            |rank| self.merges.key_of(rank),
        )
    }
}

impl Merges {
    /// Appends a line. It is no merge if it is not in two parts or not of the byte-level alphabet.
    fn read(&mut self, line: &[u8]) {
        let start = self.bytes.len();
        // The alphabet spells a space otherwise. A part has at least one character, so the one between them is not the first.
        let Some(left_spelled) = line
            .iter()
            .skip(1)
            .position(|&byte| byte == b' ')
            .map(|behind_first| behind_first + 1)
        else {
            return self.begin(start, 0);
        };
        let left_pure = byte_level::append_bytes(&line[..left_spelled], &mut self.bytes);
        let left_len = self.bytes.len() - start;
        let right_pure = byte_level::append_bytes(&line[left_spelled + 1..], &mut self.bytes);
        self.begin(start, if left_pure && right_pure { left_len } else { 0 });
    }

    fn begin(&mut self, start: usize, left_len: usize) {
        let in_32_bits = |n: usize| u32::try_from(n).expect("new has checked the sum");
        self.places.push(Place {
            start: in_32_bits(start),
            left_len: in_32_bits(left_len),
        });
    }

    fn key_of(&self, rank: u32) -> Key<'_> {
        let [Place { start, left_len }, Place { start: end, .. }] =
            [rank as usize, rank as usize + 1].map(|index| self.places[index]);
        Key {
            bytes: &self.bytes[start as usize..end as usize],
            beside: left_len as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_ranked_by_their_place() {
        let lines = [
            "a b", "nospace", "Ġ Ġ", "a b", "ab c", "a bc", "", " ", "é ", " x", "日 a",
        ];
        let ranks = Ranks::new(&lines.iter().collect()).unwrap();
        let check = |bytes: &str, left_len: usize, expected: Option<u32>| {
            assert_eq!(ranks.find(bytes.as_bytes(), left_len), expected, "{bytes}")
        };
        check("ab", 1, Some(0));
        check("  ", 1, Some(2));
        check("abc", 2, Some(4));
        check("abc", 1, Some(5));
        check("ab", 2, None);
        check("x", 1, None);
        check("日a", 3, None);
        check("a longer text than any", 3, None);
        assert_eq!(
            Ranks::new(&StringArray::default()).unwrap().find(b"ab", 1),
            None
        );
    }
}
