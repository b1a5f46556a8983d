//! What comes back to the host.

use std::ops::Range;
use std::sync::Arc;

use super::{Hip, HipError, Pinned, View};

/// Chosen tokens and their logits in device memory, and a pinned buffer to bring them back in.
#[derive(Debug)]
pub(crate) struct PickMemory {
    hip: Arc<Hip>,
    /// `[max_rows]` u32, then `[max_rows]` f32.
    view: View,
    /// There but while it is under way.
    pinned: Option<Pinned>,
}

impl PickMemory {
    pub(crate) fn new(hip: &Arc<Hip>, max_rows: usize) -> Result<PickMemory, HipError> {
        let len = 2 * max_rows * size_of::<u32>();
        Ok(PickMemory {
            view: hip.zeros(len)?,
            pinned: Some(Pinned::allocate(hip.gpu(), len)?),
            hip: hip.clone(),
        })
    }

    /// `[max_rows]` u32: the tokens.
    pub(super) fn ids(&self) -> Result<View, HipError> {
        self.view.slice(0..self.view.len() / 2)
    }

    /// `[max_rows]` f32: their logits.
    pub(super) fn logits(&self) -> Result<View, HipError> {
        self.view.slice(self.view.len() / 2..self.view.len())
    }

    /// Brings the tokens of the first `rows` rows back, behind all that was enqueued. A token that is not possible is 0.
    pub(crate) fn read(&mut self, rows: usize, picked: &mut Vec<u32>) -> Result<(), HipError> {
        picked.clear();
        if rows == 0 {
            return Ok(());
        }
        let len = self.view.len();
        let pinned = match self.pinned.take() {
            Some(pinned) => pinned,
            // The last one was lost with a copy that failed.
            None => Pinned::allocate(self.hip.gpu(), len)?,
        };
        let flying = self.hip.stream().download(&self.view, pinned, 0..len)?;
        let pinned = flying.wait()?;
        let (ids, logits) = pinned.bytes().split_at(len / 2);
        let ids: &[u32] = bytemuck::cast_slice(ids);
        let logits: &[f32] = bytemuck::cast_slice(logits);
        let possible = |(&id, &logit): (&u32, &f32)| match logit > f32::NEG_INFINITY {
            true => id,
            false => 0,
        };
        picked.extend(ids.iter().zip(logits).take(rows).map(possible));
        self.pinned = Some(pinned);
        Ok(())
    }
}

/// Rows of f32 numbers on their way to the host, in a pinned buffer that grows to what is asked for.
#[derive(Debug)]
pub(crate) struct RowReader {
    hip: Arc<Hip>,
    pinned: Option<Pinned>,
}

impl RowReader {
    pub(crate) fn new(hip: &Arc<Hip>) -> RowReader {
        RowReader {
            hip: hip.clone(),
            pinned: None,
        }
    }

    /// Some f32 numbers of a view, behind all that was enqueued.
    pub(crate) fn read(&mut self, view: &View, numbers: Range<usize>) -> Result<&[f32], HipError> {
        if numbers.is_empty() {
            return Ok(&[]);
        }
        let bytes = numbers.len() * size_of::<f32>();
        let start = numbers.start * size_of::<f32>();
        let pinned = match self.pinned.take().filter(|pinned| pinned.len() >= bytes) {
            Some(pinned) => pinned,
            None => Pinned::allocate(self.hip.gpu(), bytes)?,
        };
        let from = view.slice(start..start + bytes)?;
        let pinned = self
            .hip
            .stream()
            .download(&from, pinned, 0..bytes)?
            .wait()?;
        let pinned = self.pinned.insert(pinned);
        Ok(bytemuck::cast_slice(&pinned.bytes()[..bytes]))
    }
}
