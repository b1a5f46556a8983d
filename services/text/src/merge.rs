use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// No symbol.
const NONE: u32 = u32::MAX;

/// Longer texts must be merged in parts. It bounds the memory that one text can take; text that long fits no model's context.
pub(crate) const LONGEST: usize = 1 << 24;

/// Merges adjacent pieces of a text, best pair first, until no pair is left that can be merged.
///
/// The pieces are a linked list and the pairs a priority queue, so the time is that of a sort. The memory is kept from one text to the next.
#[derive(Debug, Default)]
pub(crate) struct Merger {
    symbols: Vec<Symbol>,
    /// Pairs that can be merged, or could when they were put in.
    queue: BinaryHeap<Reverse<Candidate>>,
}

/// A piece of the text.
#[derive(Debug, Clone, Copy)]
struct Symbol {
    start: u32,
    /// 0 once it has been merged into its predecessor.
    len: u32,
    previous: u32,
    next: u32,
}

/// A symbol and its successor. The order of the fields is the order of merging.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    rank: u32,
    left: u32,
    /// Of both together. Symbols only grow, so another length tells that one of the two has been merged since.
    len: u32,
}

impl Merger {
    /// Begins with pieces of the lengths `lens`, which add up to the length of `text`, at most [`LONGEST`]. `rank_of` says of the bytes of two adjacent pieces and the length of the first whether they
    /// can be merged: the lowest rank goes first, the leftmost pair of those with equal rank. What remains goes to `each`, in order.
    pub(crate) fn merge(
        &mut self,
        text: &[u8],
        lens: impl Iterator<Item = usize>,
        rank_of: impl Fn(&[u8], usize) -> Option<u32>,
        mut each: impl FnMut(&[u8]),
    ) {
        self.begin(lens);
        let Merger { symbols, queue } = self;
        let candidate = |symbols: &[Symbol], left: u32| {
            let first = symbols.get(left as usize)?;
            let second = symbols.get(first.next as usize)?;
            let len = first.len + second.len;
            let rank = rank_of(
                &text[first.start as usize..][..len as usize],
                first.len as usize,
            )?;
            Some(Reverse(Candidate { rank, left, len }))
        };
        queue.extend(
            (0u32..)
                .zip(&*symbols)
                .filter_map(|(left, _)| candidate(symbols, left)),
        );
        while let Some(Reverse(Candidate { left, len, .. })) = queue.pop() {
            if let Some(previous) = join(symbols, left, len) {
                queue.extend(
                    [previous, left]
                        .into_iter()
                        .filter_map(|left| candidate(symbols, left)),
                );
            }
        }
        let mut at = 0;
        while let Some(symbol) = symbols.get(at as usize) {
            each(&text[symbol.start as usize..][..symbol.len as usize]);
            at = symbol.next;
        }
    }

    fn begin(&mut self, lens: impl Iterator<Item = usize>) {
        self.symbols.clear();
        let mut start = 0;
        for (len, index) in lens.zip(0u32..) {
            let len = u32::try_from(len).expect("a text has at most LONGEST bytes");
            self.symbols.push(Symbol {
                start,
                len,
                previous: index.wrapping_sub(1),
                next: index + 1,
            });
            start += len;
        }
        if let Some(last) = self.symbols.last_mut() {
            last.next = NONE;
        }
    }
}

/// Merges `left` and its successor if they still are `len` bytes long; the answer is the symbol before them, or [`NONE`].
fn join(symbols: &mut [Symbol], left: u32, len: u32) -> Option<u32> {
    let Symbol {
        len: left_len,
        next: right,
        previous,
        ..
    } = symbols[left as usize];
    let &Symbol {
        len: right_len,
        next: after,
        ..
    } = symbols.get(right as usize)?;
    if left_len == 0 || left_len + right_len != len {
        return None;
    }
    symbols[right as usize].len = 0;
    symbols[left as usize].len = len;
    symbols[left as usize].next = after;
    if let Some(after) = symbols.get_mut(after as usize) {
        after.previous = left;
    }
    Some(previous)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Pairs by their text and the place where they join, in order of rank.
    const RANKS: [(&str, usize); 7] = [
        ("bb", 1),
        ("ab", 1),
        ("abb", 1),
        ("bba", 2),
        ("bbbb", 2),
        ("aa", 1),
        ("aaa", 2),
    ];

    fn rank_of(bytes: &[u8], left_len: usize) -> Option<u32> {
        (0..)
            .zip(RANKS)
            .find(|(_, (text, at))| text.as_bytes() == bytes && *at == left_len)
            .map(|(rank, _)| rank)
    }

    fn merged(merger: &mut Merger, text: &str) -> Vec<String> {
        let mut parts = Vec::new();
        merger.merge(text.as_bytes(), text.bytes().map(|_| 1), rank_of, |part| {
            parts.push(String::from_utf8_lossy(part).into_owned())
        });
        parts
    }

    #[test]
    fn the_best_pair_goes_first() {
        let mut merger = Merger::default();
        assert_eq!(merged(&mut merger, "abba"), ["abb", "a"]);
        assert_eq!(merged(&mut merger, "bbbbb"), ["bbbb", "b"]);
        assert_eq!(merged(&mut merger, ""), [""; 0]);
        assert_eq!(merged(&mut merger, "a"), ["a"]);
    }

    proptest! {
        #[test]
        fn equals_the_textbook(text in "[abc]{0,30}") {
            let mut parts: Vec<String> = text.chars().map(String::from).collect();
            // The textbook: merge the leftmost of the best pairs, begin again.
            let rank = |pair: &[String]| rank_of(pair.concat().as_bytes(), pair[0].len());
            while let Some((_, at)) = parts.windows(2).enumerate().filter_map(|(at, pair)| Some((rank(pair)?, at))).min() {
                let right = parts.remove(at + 1);
                parts[at].push_str(&right);
            }
            prop_assert_eq!(merged(&mut Merger::default(), &text), parts);
        }
    }
}
