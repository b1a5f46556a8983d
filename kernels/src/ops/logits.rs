//! Operations on the logits of a step.

use super::check::Check;
use crate::{Device, OpError, Tensor, reference};

/// The most likely token of each row: the index of its largest logit, the lowest among equals; NaN is not possible, and where nothing is above -∞ it is 0.
///
/// `logits`: `[rows, n_vocab]`; `out`: `[rows]`, in the processor's memory.
///
/// # Errors
/// [`OpError::Count`] if there is not one place in `out` for each row, and the checks on shape.
pub fn argmax(logits: &Tensor, out: &mut [u32]) -> Result<(), OpError> {
    let check = Check("argmax");
    let [rows, n_vocab] = check.two_dims("logits", logits)?;
    check.count("places", rows, out.len())?;
    let values = check.activations("logits", logits)?;
    match logits.device() {
        Device::Reference | Device::Cpu(_) => {
            for (row, best) in values.data.chunks_exact(n_vocab).zip(out) {
                *best = reference::argmax(row);
            }
        }
    }
    Ok(())
}
