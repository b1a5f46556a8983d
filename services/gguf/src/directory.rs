use std::collections::HashMap;

use crate::{
    Extent, ExtentId, Metadata, MissingTensor, ParseError, Split, TensorInfo, parse, split,
};

/// What a GGUF model says of itself: metadata, tensors and the extents that hold them.
///
/// It describes one file or the joined splits of one model. Every extent is inside its file and overlaps no other.
#[derive(Clone, Debug, PartialEq)]
pub struct Directory {
    pub(crate) files: Vec<FileHeader>,
    pub(crate) metadata: Metadata,
    pub(crate) tensors: Vec<TensorInfo>,
    pub(crate) extents: Vec<Extent>,
    pub(crate) by_name: HashMap<Box<str>, usize>,
    /// What a single file says; `None` once joined.
    pub(crate) split: Option<Split>,
}

/// What differs from file to file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileHeader {
    pub(crate) version: u32,
    pub(crate) alignment: u32,
    pub(crate) header_len: u64,
}

impl Directory {
    /// Reads the header of one file of `file_len` bytes out of `bytes`, any prefix of it.
    /// # Errors
    /// [`ParseError::Incomplete`] if the prefix does not hold the whole header; any other error is final.
    pub fn parse(bytes: &[u8], file_len: u64) -> Result<Directory, ParseError> {
        parse::parse(bytes, file_len)
    }

    /// Makes one directory of the splits of a model, given in order. Metadata is that of the first. A whole model by itself comes back as it is.
    /// # Errors
    /// [`ParseError::Split`] if the files do not belong together in this order, [`ParseError::Tensor`] if two of them have a tensor of one name, [`ParseError::OverLimit`].
    pub fn join(parts: Vec<Directory>) -> Result<Directory, ParseError> {
        split::join(parts)
    }

    /// Version of the format: 2 or 3. Of the first file, where there are several.
    pub fn version(&self) -> u32 {
        self.files[0].version
    }

    /// Alignment of tensor data, in bytes: a power of two. Of the first file, where there are several.
    pub fn alignment(&self) -> u32 {
        self.files[0].alignment
    }

    /// Everything but the tensors.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The tensors, in the order of their records in the file.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor called `name`, found without a search.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.by_name.get(name).map(|&index| &self.tensors[index])
    }

    /// Like [`Directory::tensor`], for a tensor that must be there.
    /// # Errors
    /// [`MissingTensor`], with the names that are spelled almost alike.
    pub fn require(&self, name: &str) -> Result<&TensorInfo, MissingTensor> {
        self.tensor(name).ok_or_else(|| {
            MissingTensor::new(name, self.tensors.iter().map(|tensor| tensor.name.as_str()))
        })
    }

    /// The extents of all tensors, in the order of the tensors.
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// The extent `id`.
    /// # Panics
    /// If there is no such extent: an id of another directory.
    pub fn extent(&self, id: ExtentId) -> &Extent {
        self.get_extent(id)
            .expect("extent ids come from the same directory")
    }

    /// The extent `id`, if there is one: for ids that came from a peer.
    pub fn get_extent(&self, id: ExtentId) -> Option<&Extent> {
        self.extents.get(usize::try_from(id.0).ok()?)
    }

    /// How many files the directory describes.
    pub fn split_count(&self) -> u16 {
        u16::try_from(self.files.len()).expect("split.count has 16 bits")
    }

    /// Which part of a model this file says it is; `None` for a whole model, and once joined.
    pub fn split(&self) -> Option<Split> {
        self.split
    }

    /// Bytes before the data section of file `split_index`: its header and the padding behind it. A file without tensors may end before the padding does; then its length.
    /// # Panics
    /// If there is no such file.
    pub fn header_len(&self, split_index: u16) -> u64 {
        self.files[usize::from(split_index)].header_len
    }

    /// Bytes of all tensors together; `u64::MAX` if that is not enough to say it.
    pub fn tensor_bytes(&self) -> u64 {
        self.extents
            .iter()
            .fold(0, |sum, extent| sum.saturating_add(extent.len_bytes))
    }
}
