//! Which bytes of an arena's chunks are lent: a pure state machine.

use std::collections::BTreeMap;

/// Ranges begin and end on multiples of this: what a memory transaction and every kernel's widest load ask for.
const ALIGN_BYTES: usize = 256;

/// Free and lent ranges of a list of chunks.
#[derive(Debug, Default)]
pub struct Ranges {
    chunks: Vec<Chunk>,
    lent_bytes: usize,
}

#[derive(Debug)]
struct Chunk {
    /// Usable length, a multiple of [`ALIGN_BYTES`].
    len: usize,
    /// Free ranges by their start; no two of them touch.
    free: BTreeMap<usize, usize>,
}

/// A lent range. Giving it back takes it, so that it is given back once.
#[derive(Debug, PartialEq, Eq)]
pub struct Place {
    chunk: usize,
    offset: usize,
    /// As it was taken, a multiple of [`ALIGN_BYTES`].
    len: usize,
}

impl Place {
    /// Index of the chunk, in the order of [`Ranges::add_chunk`].
    #[must_use]
    pub fn chunk(&self) -> usize {
        self.chunk
    }

    /// First byte in the chunk.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.offset
    }
}

impl Ranges {
    /// No chunk at all.
    #[must_use]
    pub fn new() -> Ranges {
        Ranges::default()
    }

    /// What lending `len` bytes takes from a chunk. `None` if that does not fit into an address.
    #[must_use]
    pub fn taken_bytes(len: usize) -> Option<usize> {
        len.max(1).checked_next_multiple_of(ALIGN_BYTES)
    }

    /// Adds a chunk of `len` bytes, all free, and gives its index.
    pub fn add_chunk(&mut self, len: usize) -> usize {
        let len = len - len % ALIGN_BYTES;
        let free = (len > 0).then_some((0, len)).into_iter().collect();
        self.chunks.push(Chunk { len, free });
        self.chunks.len() - 1
    }

    /// Takes `len` bytes from the smallest free range that has them, so that large ranges stay whole; the first of several.
    ///
    /// `None` where no range has them, whatever the sum of all free ranges.
    pub fn take(&mut self, len: usize) -> Option<Place> {
        let len = Ranges::taken_bytes(len)?;
        let ranges = self.chunks.iter().enumerate().flat_map(|(chunk, held)| {
            held.free
                .iter()
                .map(move |(&offset, &free)| (free, chunk, offset))
        });
        let (free, chunk, offset) = ranges.filter(|&(free, ..)| free >= len).min()?;
        let held = &mut self.chunks[chunk].free;
        held.remove(&offset);
        if free > len {
            held.insert(offset + len, free - len);
        }
        self.lent_bytes += len;
        Some(Place { chunk, offset, len })
    }

    /// Gives a range back. It grows together with the free ranges that it touches.
    ///
    /// # Panics
    /// If the range is not one that [`Ranges::take`] of this value gave.
    pub fn give_back(&mut self, place: Place) {
        let chunk = &mut self.chunks[place.chunk];
        let (mut start, mut end) = (place.offset, place.offset + place.len);
        let before = chunk.free.range(..start).next_back();
        let before = before.map(|(&offset, &len)| (offset, offset + len));
        let after = chunk.free.range(start..).next();
        let after = after.map(|(&offset, &len)| (offset, offset + len));
        assert!(
            end <= chunk.len
                && before.is_none_or(|(_, before_end)| before_end <= start)
                && after.is_none_or(|(after_start, _)| end <= after_start),
            "a range is given back to where it was taken, once"
        );
        if let Some((before_start, before_end)) = before
            && before_end == start
        {
            start = before_start;
        }
        if let Some((after_start, after_end)) = after
            && after_start == end
        {
            chunk.free.remove(&after_start);
            end = after_end;
        }
        chunk.free.insert(start, end - start);
        self.lent_bytes -= place.len;
    }

    /// Bytes that are lent now, with what alignment adds.
    #[must_use]
    pub fn lent_bytes(&self) -> usize {
        self.lent_bytes
    }

    /// Bytes of all chunks.
    #[must_use]
    pub fn total_bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.len).sum()
    }

    /// The longest free range: what [`Ranges::take`] can give at most.
    #[must_use]
    pub fn largest_free_bytes(&self) -> usize {
        let free = self.chunks.iter().flat_map(|chunk| chunk.free.values());
        free.copied().max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_smallest_hole_that_fits_is_taken() {
        let mut ranges = Ranges::new();
        ranges.add_chunk(4096);
        let first = ranges.take(1024).expect("room");
        let wall = ranges.take(256).expect("room");
        let second = ranges.take(512).expect("room");
        let end = ranges.take(256).expect("room");
        ranges.give_back(first);
        ranges.give_back(second);
        let fitted = ranges.take(300).expect("room");
        assert_eq!((fitted.offset(), ranges.lent_bytes()), (1280, 1024));
        for place in [wall, end, fitted] {
            ranges.give_back(place);
        }
        assert_eq!(ranges.largest_free_bytes(), 4096);
    }

    #[test]
    fn a_range_does_not_span_chunks() {
        let mut ranges = Ranges::new();
        ranges.add_chunk(512);
        ranges.add_chunk(700);
        assert_eq!(ranges.total_bytes(), 1024);
        assert_eq!(ranges.take(513), None);
        assert_eq!(ranges.take(usize::MAX), None);
        assert!(ranges.take(0).is_some(), "even nothing has a place");
    }

    #[test]
    #[should_panic(expected = "given back to where it was taken, once")]
    fn giving_back_what_is_free_is_a_bug() {
        let mut ranges = Ranges::new();
        ranges.add_chunk(1024);
        let place = ranges.take(256).expect("room");
        let again = Place { ..place };
        ranges.give_back(place);
        ranges.give_back(again);
    }

    /// One thing that may happen to an arena.
    #[derive(Debug, Clone)]
    enum Happening {
        Chunk(usize),
        Take(usize),
        GiveBack(usize),
    }

    fn happening() -> impl Strategy<Value = Happening> {
        prop_oneof![
            1 => (0usize..20_000).prop_map(Happening::Chunk),
            8 => (0usize..5_000).prop_map(Happening::Take),
            6 => any::<usize>().prop_map(Happening::GiveBack),
        ]
    }

    fn check_lent(lent: &[(Place, usize)], chunk_lens: &[usize]) {
        let mut all: Vec<_> = lent
            .iter()
            .map(|(place, len)| (place.chunk(), place.offset(), place.offset() + len))
            .collect();
        all.sort_unstable();
        for &(chunk, start, end) in &all {
            assert_eq!(start % ALIGN_BYTES, 0, "aligned");
            assert!(end <= chunk_lens[chunk], "inside its chunk");
        }
        for pair in all.windows(2) {
            assert!(
                pair[0].0 != pair[1].0 || pair[0].2 <= pair[1].1,
                "no overlap: {pair:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn lent_ranges_never_overlap_and_all_come_back(happenings in prop::collection::vec(happening(), 1..120)) {
            let mut ranges = Ranges::new();
            let mut chunk_lens = Vec::new();
            let mut lent: Vec<(Place, usize)> = Vec::new();
            for happening in happenings {
                match happening {
                    Happening::Chunk(len) => {
                        prop_assert_eq!(ranges.add_chunk(len), chunk_lens.len());
                        chunk_lens.push(len);
                    }
                    Happening::Take(len) => {
                        let largest = ranges.largest_free_bytes();
                        let place = ranges.take(len);
                        // What fits is given, what does not fit is not.
                        prop_assert_eq!(place.is_some(), len.max(1) <= largest);
                        lent.extend(place.map(|place| (place, len)));
                    }
                    Happening::GiveBack(which) if !lent.is_empty() => {
                        let (place, _) = lent.swap_remove(which % lent.len());
                        ranges.give_back(place);
                    }
                    Happening::GiveBack(_) => {}
                }
                check_lent(&lent, &chunk_lens);
            }
            for (place, _) in lent {
                ranges.give_back(place);
            }
            prop_assert_eq!(ranges.lent_bytes(), 0);
            let largest = chunk_lens.iter().map(|len| len - len % ALIGN_BYTES).max().unwrap_or(0);
            prop_assert_eq!(ranges.largest_free_bytes(), largest, "free ranges grow together again");
        }
    }
}
