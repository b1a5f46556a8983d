use std::ops::Range;

use crate::{Shape, TensorType};

/// A run of bytes of one file: the unit in which weights are fetched, counted and evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Extent {
    /// Which file of the directory, from 0.
    pub split_index: u16,
    /// Where it begins, from the start of that file.
    pub offset_bytes: u64,
    /// How long it is; never 0.
    pub len_bytes: u64,
}

impl Extent {
    /// The bytes of the extent in its file. The end cannot wrap: it was proven to lie inside the file.
    pub fn range(&self) -> Range<u64> {
        self.offset_bytes..self.offset_bytes + self.len_bytes
    }
}

/// Index into [`Directory::extents`](crate::Directory::extents). Two processes that parse the same headers number extents alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtentId(pub u32);

/// One tensor of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Unique in the directory.
    pub name: String,
    /// Dimensions, the fastest first.
    pub shape: Shape,
    /// Layout of the elements.
    pub tensor_type: TensorType,
    /// Which file of the directory holds it, from 0.
    pub split_index: u16,
    /// Where its data begins, from the start of that file.
    pub offset_bytes: u64,
    /// Length of its data; never 0.
    pub len_bytes: u64,
    /// Its extents, as indices into [`Directory::extents`](crate::Directory::extents): one, or one per expert. They follow each other without gaps and have equal lengths.
    pub extents: Range<u32>,
}

impl TensorInfo {
    /// The ids of its extents, in the order of their bytes (for an expert tensor: by expert).
    pub fn extent_ids(
        &self,
    ) -> impl ExactSizeIterator<Item = ExtentId> + DoubleEndedIterator + use<> {
        self.extents.clone().map(ExtentId)
    }
}
