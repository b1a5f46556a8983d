//! Memory that operations borrow and give back, so that a step allocates nothing once it is warm.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

/// Values that are used again and again, by one borrower at a time.
#[derive(Debug)]
pub(super) struct Shelf<T> {
    spare: Mutex<Vec<T>>,
}

/// A value on loan; dropping it puts it back.
pub(super) struct Loan<'a, T: Default> {
    shelf: &'a Shelf<T>,
    value: T,
}

impl<T: Default> Shelf<T> {
    pub(super) fn new() -> Shelf<T> {
        Shelf {
            spare: Mutex::new(Vec::new()),
        }
    }

    /// The value that was put back last, as its last borrower left it; a new one where none is left.
    pub(super) fn take(&self) -> Loan<'_, T> {
        let value = self
            .spare
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
            .unwrap_or_default();
        Loan { shelf: self, value }
    }
}

impl<T: Default> Drop for Loan<'_, T> {
    fn drop(&mut self) {
        let value = std::mem::take(&mut self.value);
        self.shelf
            .spare
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(value);
    }
}

impl<T: Default> Deref for Loan<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Default> DerefMut for Loan<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loan_comes_back() {
        let shelf = Shelf::<Vec<u8>>::new();
        let (mut first, second) = (shelf.take(), shelf.take());
        first.push(1);
        drop(second);
        drop(first);
        assert_eq!(*shelf.take(), [1], "the one that was put back last");
    }
}
