//! Operations on the logits of a step.

use super::check::Check;
use crate::{Device, OpError, Picks, Tensor, reference};

/// Finds the most likely token of each row: the index of its largest logit, the lowest among equals; NaN is not possible, and where nothing is above -∞ it is 0.
///
/// `logits`: `[rows, n_vocab]`; `picks` has room for as many rows.
///
/// # Errors
/// [`OpError::Count`] for more rows than `picks` has room for, and the checks on shape and device.
pub fn argmax(logits: &Tensor, picks: &mut Picks) -> Result<(), OpError> {
    let check = Check("argmax");
    check.same_device(logits.device(), &[("picks", picks.device())])?;
    let [rows, n_vocab] = check.two_dims("logits", logits)?;
    if rows > picks.max_rows() {
        return Err(OpError::Count {
            op: check.0,
            operand: "rows",
            expected: picks.max_rows(),
            found: rows,
        });
    }
    match logits.device() {
        Device::Reference | Device::Cpu(_) => {
            let values = check.activations("logits", logits)?;
            picks.set(values.data.chunks_exact(n_vocab).map(reference::argmax));
        }
        Device::Hip(hip) => {
            hip.argmax([rows, n_vocab], check.resident("logits", logits)?, picks)?;
        }
    }
    Ok(())
}
