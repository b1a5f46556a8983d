//! Page arithmetic.

use std::ops::Range;

use gguf::{Directory, ExtentId};

const _: () = assert!(usize::BITS == 64, "a model is mapped as a whole");

/// Size of a page of this system.
pub(crate) fn page_bytes() -> u64 {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
    size.ok()
        .flatten()
        .and_then(|size| u64::try_from(size).ok())
        .expect("every system has a page size")
}

/// A file length or offset as an index into the mapping.
pub(crate) fn to_index(bytes: u64) -> usize {
    usize::try_from(bytes).expect("addresses have 64 bits")
}

/// A length in memory as a number of bytes.
pub(crate) fn to_bytes(len: usize) -> u64 {
    u64::try_from(len).expect("addresses have 64 bits")
}

/// The pages that hold any byte of `bytes`.
pub(crate) fn pages_around(bytes: &Range<u64>) -> Range<u64> {
    let page = page_bytes();
    bytes.start / page * page..bytes.end.next_multiple_of(page)
}

/// The pages that hold nothing but bytes of `bytes`; empty if there are none.
pub(crate) fn pages_inside(bytes: &Range<u64>) -> Range<u64> {
    let page = page_bytes();
    let start = bytes.start.next_multiple_of(page);
    start..(bytes.end / page * page).max(start)
}

/// The bytes of `extents` that lie in file `split`, in file order; what only the padding between tensors keeps apart is one range.
pub(crate) fn ranges_of(
    directory: &Directory,
    extents: &[ExtentId],
    split: u16,
) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = extents
        .iter()
        .map(|&id| directory.extent(id))
        .filter(|extent| extent.split_index == split)
        .map(|extent| extent.range())
        .collect();
    ranges.sort_unstable_by_key(|range| range.start);
    let padding_max = u64::from(directory.alignment());
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start < last.end.saturating_add(padding_max) => {
                last.end = last.end.max(range.end)
            }
            _ => merged.push(range),
        }
    }
    merged
}

/// Every extent of a directory.
pub(crate) fn all_extents(directory: &Directory) -> Vec<ExtentId> {
    (0..)
        .map(ExtentId)
        .take(directory.extents().len())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_goes_outwards_and_inwards() {
        let page = page_bytes();
        let check = |bytes: Range<u64>, around: Range<u64>, inside: Range<u64>| {
            assert_eq!(pages_around(&bytes), around, "{bytes:?}");
            assert_eq!(pages_inside(&bytes), inside, "{bytes:?}");
        };
        check(0..page, 0..page, 0..page);
        check(1..page, 0..page, page..page);
        check(1..3 * page - 1, 0..3 * page, page..2 * page);
        check(page..2 * page + 1, page..3 * page, page..2 * page);
        check(page + 1..page + 2, page..2 * page, 2 * page..2 * page);
    }

    #[test]
    fn padding_does_not_part_ranges_and_other_extents_do() {
        use gguf::TensorType::F32;
        let writer = gguf::write::Writer::new()
            .tensor("a", &[9], F32)
            .tensor("b", &[9], F32)
            .tensor("c", &[64], F32);
        let directory = writer.finish().unwrap().directory;
        let of = |ids: &[u32]| {
            ranges_of(
                &directory,
                &ids.iter().copied().map(ExtentId).collect::<Vec<_>>(),
                0,
            )
        };
        let [a, b, c] = [0, 1, 2].map(|id| directory.extent(ExtentId(id)).range());
        assert_eq!(of(&[1, 0]), vec![a.start..b.end]);
        assert_eq!(of(&[2, 0]), vec![a.clone(), c.clone()]);
        assert_eq!(of(&[2, 1, 0]), vec![a.start..c.end]);
        assert_eq!(ranges_of(&directory, &all_extents(&directory), 1), vec![]);
    }
}
