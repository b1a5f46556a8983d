//! Memory of this crate's own, aligned for vectors.

use bytemuck::Zeroable;
use bytemuck::allocation::try_zeroed_slice_box;

/// Bytes of a cache line: vectors that start on one never straddle two.
const ALIGN_BYTES: usize = 64;

/// A vector of numbers whose first element lies on a cache line.
#[derive(Debug)]
pub(crate) struct Buffer<T> {
    /// The elements, with room in front to begin on a cache line.
    storage: Box<[T]>,
    start: usize,
    len: usize,
}

/// An empty buffer owns no memory.
impl<T> Default for Buffer<T> {
    fn default() -> Buffer<T> {
        Buffer {
            storage: Box::default(),
            start: 0,
            len: 0,
        }
    }
}

impl<T: Copy + Zeroable> Buffer<T> {
    /// `len` zeros; `None` where the machine has no such memory.
    pub(crate) fn zeros(len: usize) -> Option<Buffer<T>> {
        let padding = ALIGN_BYTES / size_of::<T>();
        let padded = len.checked_add(padding)?;
        let storage = try_zeroed_slice_box::<T>(padded).ok()?;
        let start = storage.as_ptr().align_offset(ALIGN_BYTES).min(padding);
        Some(Buffer {
            storage,
            start,
            len,
        })
    }

    /// Makes the buffer at least `len` long; what it held is lost when it has to grow. Elements are whatever was last written.
    ///
    /// # Panics
    /// Where the machine has no such memory: scratch is small beside the tensors that were allocated before.
    pub(crate) fn at_least(&mut self, len: usize) -> &mut [T] {
        if self.len < len {
            *self =
                Buffer::zeros(len).expect("scratch memory is small beside the tensors it serves");
        }
        &mut self.as_mut_slice()[..len]
    }

    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline(always)]
    pub(crate) fn as_slice(&self) -> &[T] {
        &self.storage[self.start..self.start + self.len]
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [T] {
        &mut self.storage[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_aligned_and_zero() {
        for len in [0, 1, 15, 16, 17, 1000] {
            let buffer = Buffer::<f32>::zeros(len).expect("small");
            assert_eq!(buffer.as_slice(), vec![0.0; len], "length {len}");
            assert_eq!(
                buffer.as_slice().as_ptr().align_offset(ALIGN_BYTES),
                0,
                "length {len}"
            );
        }
    }

    #[test]
    fn a_size_that_no_machine_has_is_none() {
        assert!(Buffer::<f32>::zeros(usize::MAX).is_none());
        assert!(Buffer::<f32>::zeros(usize::MAX / 8).is_none());
    }

    #[test]
    fn at_least_keeps_what_is_long_enough() {
        let mut buffer = Buffer::<i8>::default();
        buffer.at_least(10)[9] = 7;
        assert_eq!(buffer.at_least(4).len(), 4);
        assert_eq!(buffer.at_least(10)[9], 7);
    }
}
