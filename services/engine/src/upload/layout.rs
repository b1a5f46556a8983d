use std::collections::HashMap;
use std::ops::Range;

use gguf::{Directory, ExtentId, TensorType};

use crate::plan::Plan;

/// Tensors begin at multiples of so many bytes, as kernels want them.
const ALIGNMENT: usize = 256;

/// How the extents of a plan lie in a GPU's memory.
///
/// An extent may hold several projections, whose rows follow one another in the file. On a GPU each is a tensor of its own: it begins where kernels can read from, and is brought into their layout
/// by itself.
#[derive(Debug, Default)]
pub(crate) struct Layouts {
    types: HashMap<ExtentId, TensorType>,
    /// Of the extents that hold several.
    shared: HashMap<ExtentId, Vec<Piece>>,
}

/// One tensor of an extent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Where it lies in the extent.
    pub(super) bytes: Range<usize>,
    /// Where it begins in the extent's place on the device.
    pub(super) offset: usize,
}

impl Layouts {
    /// The layouts that a plan's tensors ask for. Reads nothing.
    pub(crate) fn new(plan: &Plan, directory: &Directory) -> Layouts {
        let mut types = HashMap::new();
        let mut ranges: HashMap<ExtentId, Vec<Range<usize>>> = HashMap::new();
        for layer in &plan.layers {
            layer.for_each(|tensor| {
                types.insert(tensor.extent, tensor.tensor_type);
                if tensor.bytes.len() as u64 != directory.extent(tensor.extent).len_bytes {
                    let ranges = ranges.entry(tensor.extent).or_default();
                    ranges.push(tensor.bytes.clone());
                }
            });
        }
        let shared = ranges.into_iter().map(|(extent, ranges)| {
            let pieces = pieces(ranges);
            let end = pieces.last().map_or(0, |piece| piece.bytes.end);
            assert_eq!(
                end as u64,
                directory.extent(extent).len_bytes,
                "projections that share a tensor leave nothing of it out"
            );
            (extent, pieces)
        });
        Layouts {
            shared: shared.collect(),
            types,
        }
    }

    /// The type of an extent that some layer uses.
    pub(crate) fn tensor_type(&self, extent: ExtentId) -> TensorType {
        self.types[&extent]
    }

    /// The tensors of an extent of `len_bytes` bytes, in its order.
    pub(crate) fn pieces(&self, extent: ExtentId, len_bytes: usize) -> Vec<Piece> {
        match self.shared.get(&extent) {
            Some(pieces) => pieces.clone(),
            None => pieces(std::iter::once(0..len_bytes).collect()),
        }
    }

    /// Where the tensor lies whose bytes those are, in the extent's place on the device.
    pub(crate) fn place(&self, extent: ExtentId, bytes: &Range<usize>) -> Range<usize> {
        let offset = match self.shared.get(&extent) {
            None => bytes.start,
            Some(pieces) => pieces
                .iter()
                .find(|piece| piece.bytes == *bytes)
                .map(|piece| piece.offset)
                .expect("the layout was made of the plan that this tensor is from"),
        };
        offset..offset + bytes.len()
    }
}

impl Piece {
    /// Where it lies in the extent's place on the device.
    pub(super) fn place(&self) -> Range<usize> {
        self.offset..self.offset + self.bytes.len()
    }
}

/// Bytes that an extent takes on the device.
pub(crate) fn placed_bytes(pieces: &[Piece]) -> usize {
    pieces.last().map_or(0, |piece| piece.place().end)
}

/// Tensors that follow one another.
fn pieces(mut ranges: Vec<Range<usize>>) -> Vec<Piece> {
    ranges.sort_by_key(|range| range.start);
    ranges.dedup();
    let (mut end, mut offset) = (0, 0_usize);
    let place = |bytes: Range<usize>| {
        assert_eq!(
            bytes.start, end,
            "projections that share a tensor follow one another"
        );
        end = bytes.end;
        let piece = Piece {
            offset: offset.next_multiple_of(ALIGNMENT),
            bytes,
        };
        offset = piece.place().end;
        piece
    };
    ranges.into_iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_of_an_extent_begin_where_kernels_read() {
        let check = |ranges: &[Range<usize>], expected: &[(Range<usize>, usize)]| {
            let found = pieces(ranges.to_vec());
            let expected: Vec<Piece> = expected
                .iter()
                .map(|(bytes, offset)| Piece {
                    bytes: bytes.clone(),
                    offset: *offset,
                })
                .collect();
            assert_eq!(found, expected);
        };
        let whole: Vec<_> = std::iter::once(0..210).collect();
        check(&whole, &[(0..210, 0)]);
        check(
            &[210..420, 0..210, 420..676, 210..420],
            &[(0..210, 0), (210..420, 256), (420..676, 512)],
        );
        assert_eq!(placed_bytes(&pieces(vec![0..210, 210..420])), 256 + 210);
        assert_eq!(placed_bytes(&[]), 0);
    }

    #[test]
    #[should_panic(expected = "follow one another")]
    fn a_hole_between_them_is_a_mistake() {
        pieces(vec![0..210, 256..466]);
    }
}
