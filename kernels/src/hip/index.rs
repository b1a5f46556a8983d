//! A step's indices in device memory.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use super::{Hip, HipError, InFlight, Memory, Pinned, View};

/// Uploads that may be on their way before the next one waits for the oldest: the host is never further ahead of the device.
const SLOTS: usize = 3;

/// The lists of a step, each `u32`, in one piece of device memory that stays where it is from step to step.
#[derive(Debug)]
pub(crate) struct IndexMemory {
    hip: Arc<Hip>,
    max_rows: usize,
    max_logit_rows: usize,
    /// Block numbers that there is room for.
    max_blocks: usize,
    /// Made when there is something to upload.
    view: Option<View>,
    flying: VecDeque<InFlight>,
}

/// What the lists hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lists<'a> {
    pub(crate) ids: &'a [u32],
    pub(crate) positions: &'a [u32],
    /// Where each row's table begins in `blocks`.
    pub(crate) tables: &'a [u32],
    pub(crate) logit_rows: &'a [u32],
    pub(crate) blocks: &'a [u32],
}

impl IndexMemory {
    /// Room for rows and logit rows, and at first for `max_blocks` block numbers.
    pub(crate) fn new(
        hip: &Arc<Hip>,
        max_rows: usize,
        max_logit_rows: usize,
        max_blocks: usize,
    ) -> IndexMemory {
        IndexMemory {
            hip: hip.clone(),
            max_rows,
            max_logit_rows,
            max_blocks,
            view: None,
            flying: VecDeque::new(),
        }
    }

    /// Block numbers that there is room for. Where it has grown, the lists lie elsewhere.
    pub(crate) fn max_blocks(&self) -> usize {
        self.max_blocks
    }

    /// Enqueues the lists of the next step in one copy, behind what still reads those of the last.
    pub(crate) fn set(&mut self, lists: Lists<'_>) -> Result<(), HipError> {
        if lists.blocks.len() > self.max_blocks {
            self.max_blocks = lists.blocks.len().next_power_of_two();
            self.view = None;
            self.flying.clear();
        }
        let view = match &self.view {
            Some(view) => view.clone(),
            None => {
                let memory = Memory::allocate(self.hip.gpu(), self.len_bytes())?;
                self.view.insert(View::whole(&memory)).clone()
            }
        };
        let mut slot = self.slot()?;
        let words: &mut [u32] = bytemuck::cast_slice_mut(slot.bytes_mut());
        let parts = [
            (self.ids(), lists.ids),
            (self.positions(), lists.positions),
            (self.tables(), lists.tables),
            (self.logit_rows(), lists.logit_rows),
            (self.blocks(), lists.blocks),
        ];
        let mut end = 0;
        for (place, list) in parts {
            words[place.start..][..list.len()].copy_from_slice(list);
            end = place.start + list.len();
        }
        let used = 0..end * size_of::<u32>();
        let to = view.slice(used.clone())?;
        let flying = self.hip.stream().upload(slot, used, &to)?;
        self.flying.push_back(flying);
        Ok(())
    }

    fn slot(&mut self) -> Result<Pinned, HipError> {
        if self.flying.len() >= SLOTS
            && let Some(oldest) = self.flying.pop_front()
        {
            return oldest.wait();
        }
        Pinned::allocate(self.hip.gpu(), self.len_bytes())
    }

    fn len_bytes(&self) -> usize {
        self.blocks().end * size_of::<u32>()
    }

    // Places of the lists, in words. Each begins at a multiple of 64, so that kernels may read it in vectors.

    fn ids(&self) -> Range<usize> {
        0..self.max_rows
    }

    fn positions(&self) -> Range<usize> {
        after(&self.ids(), self.max_rows)
    }

    fn tables(&self) -> Range<usize> {
        after(&self.positions(), self.max_rows)
    }

    fn logit_rows(&self) -> Range<usize> {
        after(&self.tables(), self.max_rows)
    }

    fn blocks(&self) -> Range<usize> {
        after(&self.logit_rows(), self.max_logit_rows)
    }

    /// The token of each row.
    pub(super) fn ids_view(&self) -> Result<View, HipError> {
        self.list(self.ids())
    }

    /// The position of each row.
    pub(super) fn positions_view(&self) -> Result<View, HipError> {
        self.list(self.positions())
    }

    /// Where each row's table begins in the block numbers.
    pub(super) fn tables_view(&self) -> Result<View, HipError> {
        self.list(self.tables())
    }

    /// The rows of which logits are wanted.
    pub(super) fn logit_rows_view(&self) -> Result<View, HipError> {
        self.list(self.logit_rows())
    }

    /// The block numbers of all tables.
    pub(super) fn blocks_view(&self) -> Result<View, HipError> {
        self.list(self.blocks())
    }

    fn list(&self, words: Range<usize>) -> Result<View, HipError> {
        let bytes = words.start * size_of::<u32>()..words.end * size_of::<u32>();
        match &self.view {
            Some(view) => view.slice(bytes),
            // Without rows there are no lists.
            None => Err(HipError::Range {
                what: "lists of a step that has no rows",
                start: bytes.start,
                end: bytes.end,
                len: 0,
            }),
        }
    }
}

/// The place of a list that follows another.
fn after(before: &Range<usize>, len: usize) -> Range<usize> {
    let start = before.end.next_multiple_of(64);
    start..start + len
}
