//! Rows of numbers in the form that a product wants them: activations before it begins, weights while it runs.

use crate::buffer::Buffer;

/// Rows begin at multiples of this many bytes.
const ALIGN_BYTES: usize = 64;

/// Numbers that one row takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct RowSize {
    pub(super) floats: usize,
    pub(super) bytes: usize,
    pub(super) sums: usize,
}

/// One row: f32 numbers, signed bytes and small integers, in the meaning that the arithmetic of a tensor type gives them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Row<'a> {
    pub(super) floats: &'a [f32],
    pub(super) bytes: &'a [i8],
    pub(super) sums: &'a [i16],
}

/// One row to write.
#[derive(Debug)]
pub(super) struct RowMut<'a> {
    pub(super) floats: &'a mut [f32],
    pub(super) bytes: &'a mut [i8],
    pub(super) sums: &'a mut [i16],
}

/// Rows of one size.
#[derive(Debug, Default)]
pub(super) struct Rows {
    floats: Buffer<f32>,
    bytes: Buffer<i8>,
    sums: Buffer<i16>,
    size: RowSize,
    stride: RowSize,
    n_rows: usize,
}

impl Rows {
    /// Makes room for `n_rows` rows of a size and gives them for writing; they hold anything.
    pub(super) fn prepare(
        &mut self,
        size: RowSize,
        n_rows: usize,
    ) -> impl ExactSizeIterator<Item = RowMut<'_>> {
        self.size = size;
        self.stride = RowSize {
            floats: stride(size.floats, size_of::<f32>()),
            bytes: stride(size.bytes, 1),
            sums: stride(size.sums, size_of::<i16>()),
        };
        self.n_rows = n_rows;
        let (stride, mut floats, mut bytes, mut sums) = (
            self.stride,
            self.floats.at_least(self.stride.floats * n_rows),
            self.bytes.at_least(self.stride.bytes * n_rows),
            self.sums.at_least(self.stride.sums * n_rows),
        );
        (0..n_rows).map(move |_| RowMut {
            floats: &mut split_first(&mut floats, stride.floats)[..size.floats],
            bytes: &mut split_first(&mut bytes, stride.bytes)[..size.bytes],
            sums: &mut split_first(&mut sums, stride.sums)[..size.sums],
        })
    }

    #[inline(always)]
    pub(super) fn n_rows(&self) -> usize {
        self.n_rows
    }

    #[inline(always)]
    pub(super) fn row(&self, index: usize) -> Row<'_> {
        Row {
            floats: &self.floats.as_slice()[index * self.stride.floats..][..self.size.floats],
            bytes: &self.bytes.as_slice()[index * self.stride.bytes..][..self.size.bytes],
            sums: &self.sums.as_slice()[index * self.stride.sums..][..self.size.sums],
        }
    }
}

/// Takes the first `len` elements off a slice.
fn split_first<'a, T>(rest: &mut &'a mut [T], len: usize) -> &'a mut [T] {
    let (first, others) = std::mem::take(rest).split_at_mut(len);
    *rest = others;
    first
}

/// Distance between rows: aligned, and no multiple of 4 KiB, as then the same columns of all rows would compete for the same few lines of the first-level cache.
fn stride(len: usize, element_bytes: usize) -> usize {
    let bytes = (len * element_bytes).next_multiple_of(ALIGN_BYTES);
    let bytes = if bytes > 0 && bytes.is_multiple_of(4096) {
        bytes + ALIGN_BYTES
    } else {
        bytes
    };
    bytes / element_bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_apart_and_keep_what_was_written() {
        let mut rows = Rows::default();
        for size in [
            RowSize {
                floats: 5,
                bytes: 0,
                sums: 40,
            },
            RowSize {
                floats: 1024,
                bytes: 4096,
                sums: 2048,
            },
            RowSize {
                floats: 0,
                bytes: 3,
                sums: 0,
            },
        ] {
            for (value, row) in (1_i8..).zip(rows.prepare(size, 3)) {
                row.floats.fill(f32::from(value));
                row.bytes.fill(value);
                row.sums.fill(value.into());
            }
            assert_eq!(rows.n_rows(), 3);
            for (value, index) in (1_i8..).zip(0..3) {
                let row = rows.row(index);
                assert_eq!(row.floats, vec![f32::from(value); size.floats]);
                assert_eq!(row.bytes, vec![value; size.bytes]);
                assert_eq!(row.sums, vec![i16::from(value); size.sums]);
            }
        }
    }
}
