//! A step's indices in device memory.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    /// What operations of the step made out of the lists, for those that follow.
    made: Mutex<Made>,
}

/// The lists, in the form that kernels read.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    /// The token of each row.
    pub(crate) ids: Vec<u32>,
    /// Table and position of each row.
    pub(crate) places: Vec<[u32; 2]>,
    /// Block and offset in it of each row's key and value.
    pub(crate) slots: Vec<[u32; 2]>,
    /// The rows of which logits are wanted.
    pub(crate) logit_rows: Vec<u32>,
    /// Tables, each of the same length.
    pub(crate) tables: Vec<u32>,
}

#[derive(Debug, Default)]
struct Made {
    /// Cosines and sines, by the address of the frequencies that they are of, and whether they are this step's.
    angles: Vec<(usize, View, bool)>,
    /// Runs of rows, and how many there are.
    tiles: Option<(View, usize)>,
    tiles_flying: Option<InFlight>,
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
            made: Mutex::default(),
        }
    }

    /// Block numbers that there is room for. Where it has grown, the lists lie elsewhere.
    pub(crate) fn max_blocks(&self) -> usize {
        self.max_blocks
    }

    /// Enqueues the lists of the next step in one copy, behind what still reads those of the last.
    pub(crate) fn set(&mut self, lists: &Lists) -> Result<(), HipError> {
        let made = self.made.get_mut().unwrap_or_else(PoisonError::into_inner);
        made.angles
            .iter_mut()
            .for_each(|(_, _, fresh)| *fresh = false);
        made.tiles = None;
        if lists.tables.len() > self.max_blocks {
            self.max_blocks = lists.tables.len().next_power_of_two();
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
        let parts: [(Range<usize>, &[u32]); 5] = [
            (self.ids(), &lists.ids),
            (self.places(), lists.places.as_flattened()),
            (self.slots(), lists.slots.as_flattened()),
            (self.logit_rows(), &lists.logit_rows),
            (self.tables(), &lists.tables),
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
        self.tables().end * size_of::<u32>()
    }

    // Places of the lists, in words.

    fn ids(&self) -> Range<usize> {
        0..self.max_rows
    }

    fn places(&self) -> Range<usize> {
        after(&self.ids(), 2 * self.max_rows)
    }

    fn slots(&self) -> Range<usize> {
        after(&self.places(), 2 * self.max_rows)
    }

    fn logit_rows(&self) -> Range<usize> {
        after(&self.slots(), self.max_logit_rows)
    }

    fn tables(&self) -> Range<usize> {
        after(&self.logit_rows(), self.max_blocks)
    }

    /// The token of each row.
    pub(super) fn ids_view(&self) -> Result<View, HipError> {
        self.list(self.ids())
    }

    /// Table and position of each row.
    pub(super) fn places_view(&self) -> Result<View, HipError> {
        self.list(self.places())
    }

    /// The position of each row, every other number from the first on.
    pub(super) fn positions_view(&self) -> Result<View, HipError> {
        let places = self.places();
        self.list(places.start + 1..places.end)
    }

    /// Where each row's key and value go.
    pub(super) fn slots_view(&self) -> Result<View, HipError> {
        self.list(self.slots())
    }

    /// The rows of which logits are wanted.
    pub(super) fn logit_rows_view(&self) -> Result<View, HipError> {
        self.list(self.logit_rows())
    }

    /// The block numbers of all tables.
    pub(super) fn tables_view(&self) -> Result<View, HipError> {
        self.list(self.tables())
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

    /// Cosines and sines of the step's rows for some frequencies, `[max_rows, pairs, 2]` f32: made by the first operation of the step that wants them.
    pub(super) fn angles(
        &self,
        frequencies: &View,
        pairs: usize,
        make: impl FnOnce(&View) -> Result<(), HipError>,
    ) -> Result<View, HipError> {
        let mut made = self.made();
        let known = made
            .angles
            .iter_mut()
            .find(|(address, ..)| *address == frequencies.address());
        if let Some((_, view, fresh)) = known {
            if !std::mem::replace(fresh, true) {
                make(view)?;
            }
            return Ok(view.clone());
        }
        let bytes = self.max_rows * pairs * 2 * size_of::<f32>();
        let view = View::whole(&Memory::allocate(self.hip.gpu(), bytes)?);
        make(&view)?;
        made.angles
            .push((frequencies.address(), view.clone(), true));
        Ok(view)
    }

    /// Runs of rows, pairs of first row and number of rows: brought there by the first operation of the step that wants them.
    pub(super) fn tiles(
        &self,
        make: impl FnOnce() -> Vec<[u32; 2]>,
    ) -> Result<(View, usize), HipError> {
        let mut made = self.made();
        if let Some(tiles) = &made.tiles {
            return Ok(tiles.clone());
        }
        let tiles = make();
        let bytes: &[u8] = bytemuck::cast_slice(tiles.as_flattened());
        let view = View::whole(&Memory::allocate(self.hip.gpu(), bytes.len())?);
        let mut pinned = Pinned::allocate(self.hip.gpu(), bytes.len())?;
        pinned.bytes_mut().copy_from_slice(bytes);
        let flying = self.hip.stream().upload(pinned, 0..bytes.len(), &view)?;
        made.tiles_flying = Some(flying);
        Ok(made.tiles.insert((view, tiles.len())).clone())
    }

    /// What is made is whole before anything may panic.
    fn made(&self) -> MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of a list that follows another, on a boundary of 256 bytes.
fn after(before: &Range<usize>, len: usize) -> Range<usize> {
    let start = before.end.next_multiple_of(64);
    start..start + len
}
