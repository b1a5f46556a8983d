use std::fmt;

use crate::TensorFault;

/// The most dimensions that a tensor may have.
pub const MAX_DIMS: usize = 4;

/// One to four dimensions, the fastest first, as the file has them: a matrix of `n_out` rows of `n_in` elements is `[n_in, n_out]`.
///
/// Every dimension is at least 1 and their product fits in 64 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    dims: [u64; MAX_DIMS],
    n_dims: u8,
}

impl Shape {
    /// Checks `dims`, the fastest first.
    /// # Errors
    /// [`TensorFault::DimCount`], [`TensorFault::ZeroDim`] or [`TensorFault::TooLarge`].
    pub fn new(dims: &[u64]) -> Result<Shape, TensorFault> {
        let n_dims = match u8::try_from(dims.len()) {
            Ok(n_dims) if (1..=MAX_DIMS).contains(&dims.len()) => n_dims,
            _ => {
                return Err(TensorFault::DimCount {
                    n_dims: u32::try_from(dims.len()).unwrap_or(u32::MAX),
                });
            }
        };
        let mut padded = [1; MAX_DIMS];
        let mut n_elements: u64 = 1;
        for (index, (&dim, slot)) in dims.iter().zip(&mut padded).enumerate() {
            if dim == 0 {
                return Err(TensorFault::ZeroDim { dim_index: index });
            }
            n_elements = n_elements.checked_mul(dim).ok_or(TensorFault::TooLarge)?;
            *slot = dim;
        }
        Ok(Shape {
            dims: padded,
            n_dims,
        })
    }

    /// The dimensions, the fastest first; one to four of them.
    pub fn dims(&self) -> &[u64] {
        &self.dims[..usize::from(self.n_dims)]
    }

    /// The product of the dimensions.
    pub fn n_elements(&self) -> u64 {
        self.dims.iter().product()
    }

    /// Elements of one row: the first dimension.
    pub fn row_len(&self) -> u64 {
        self.dims[0]
    }

    /// Rows: the product of all dimensions but the first.
    pub fn n_rows(&self) -> u64 {
        self.dims[1..].iter().product()
    }
}

/// As in `[4096, 32000]`.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.dims(), f)
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.dims(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_elements() {
        let check = |dims: &[u64], row_len: u64, n_rows: u64| {
            let shape = Shape::new(dims).expect("valid");
            assert_eq!(
                (shape.dims(), shape.row_len(), shape.n_rows()),
                (dims, row_len, n_rows)
            );
            assert_eq!(shape.n_elements(), row_len * n_rows);
        };
        check(&[7], 7, 1);
        check(&[32, 40], 32, 40);
        check(&[2, 3, 4, 5], 2, 60);
        assert_eq!(
            Shape::new(&[32, 40]).expect("valid").to_string(),
            "[32, 40]"
        );
    }

    #[test]
    fn refusals() {
        let check =
            |dims: &[u64], expected: TensorFault| assert_eq!(Shape::new(dims), Err(expected));
        check(&[], TensorFault::DimCount { n_dims: 0 });
        check(&[1; 5], TensorFault::DimCount { n_dims: 5 });
        check(&[4, 0], TensorFault::ZeroDim { dim_index: 1 });
        check(&[1 << 33, 1 << 33], TensorFault::TooLarge);
    }
}
