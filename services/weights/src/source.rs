//! Where the bytes of a model's files come from.

use std::io;

/// Positioned reads from the files of one model.
///
/// [`crate::Weights`] is one, through its descriptors; a slower or failing one can be stood before them ([`crate::Weights::with_source`]).
pub trait Source: Send + Sync {
    /// Reads from file `split` at `offset_bytes` into `buf` and says how many bytes that gave; 0 at the end of the file.
    ///
    /// # Errors
    /// Whatever the read gives.
    fn read_at(&self, split: u16, offset_bytes: u64, buf: &mut [u8]) -> io::Result<usize>;
}
