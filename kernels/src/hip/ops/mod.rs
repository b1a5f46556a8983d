//! The operations of a GPU: operands that were checked become launches on the device's stream.

mod attention;
mod experts;
mod matrix;
mod rows;

use super::{Activations, Hip, HipError, IndexMemory, View};
use crate::{RowIndex, Tensor};

impl Hip {
    /// The lists of a step that has rows.
    fn lists<'a>(&self, rows: &'a RowIndex) -> &'a IndexMemory {
        rows.memory()
            .expect("the index's device was compared: it is this GPU")
    }
}

/// Where a tensor lies whose device was compared.
fn view_of(tensor: &Tensor) -> &View {
    tensor
        .device_view()
        .expect("the tensor's device was compared: it is this GPU")
}
