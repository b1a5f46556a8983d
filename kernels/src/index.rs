//! Which token, position, blocks and logits each row of a step has.

use crate::hip::{IndexMemory, Lists};
use crate::kv::KvShape;
use crate::{Device, OpError};

/// Place of a row in its sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowPlace {
    /// Index into [`StepRows::tables`].
    pub table: u32,
    /// Position in the sequence: the row's key and value go there, and it attends to what the model lets it see of `0..=position`.
    pub position: u32,
}

/// The rows of one step, as the caller has them.
#[derive(Debug, Clone, Copy)]
pub struct StepRows<'a> {
    /// Token id of each row.
    pub ids: &'a [u32],
    /// Place of each row.
    pub places: &'a [RowPlace],
    /// Block tables: entry `i` of a table is the block with positions `i * block_len ..`.
    pub tables: &'a [&'a [u32]],
    /// The rows of which logits are wanted.
    pub logit_rows: &'a [u32],
}

/// What indices may point to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexLimits {
    /// Rows of a step.
    pub max_rows: usize,
    /// Rows of a step of which logits are wanted.
    pub max_logit_rows: usize,
    /// Token ids are below it.
    pub n_vocab: usize,
    /// The store whose blocks the tables name.
    pub kv: KvShape,
}

/// The indices of the step that is under way, checked once for all operations of the step.
///
/// # Why a type of its own
/// Every layer of a step uses the same tokens, positions and block tables. They are held against the sizes of vocabulary and store when they are [set](RowIndex::set); an operation then only
/// compares those sizes with its operands, and a device whose memory is not the processor's gets all of them in one copy.
#[derive(Debug)]
pub struct RowIndex {
    device: Device,
    limits: IndexLimits,
    ids: Vec<u32>,
    places: Vec<RowPlace>,
    /// The tables, one after the other.
    blocks: Vec<u32>,
    /// Where each table begins in `blocks`, and where the last one ends.
    table_starts: Vec<usize>,
    logit_rows: Vec<u32>,
    /// The longest context of a row, or what it was rounded up to.
    longest: usize,
    /// The lists once more, where a GPU reads them.
    memory: Option<IndexMemory>,
    /// What was last brought there.
    lists: Lists,
}

/// What two steps have in common that run the same kernels on the same places: see [`RowIndex::set_recordable`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StepShape {
    rows: usize,
    logit_rows: usize,
    longest: usize,
    /// Block numbers that there is room for.
    max_blocks: usize,
}

/// What refusals of [`RowIndex::set`] call it.
const OP: &str = "row index";

/// A position or a block that there is not.
const NONE: u32 = u32::MAX;

/// Contexts are rounded up to this times a power of two.
const CONTEXT_STEP: usize = 256;

impl RowIndex {
    /// An index without rows.
    #[must_use]
    pub fn new(device: &Device, limits: IndexLimits) -> RowIndex {
        RowIndex {
            device: device.clone(),
            limits,
            ids: Vec::new(),
            places: Vec::new(),
            blocks: Vec::new(),
            table_starts: vec![0],
            logit_rows: Vec::new(),
            longest: 0,
            lists: Lists::default(),
            memory: match device {
                Device::Reference | Device::Cpu(_) => None,
                Device::Hip(hip) => {
                    let IndexLimits {
                        max_rows,
                        max_logit_rows,
                        kv,
                        ..
                    } = limits;
                    Some(IndexMemory::new(hip, max_rows, max_logit_rows, kv.n_blocks))
                }
            },
        }
    }

    /// An index with the given rows and room for no more.
    ///
    /// # Errors
    /// As [`RowIndex::set`].
    pub fn of(
        device: &Device,
        n_vocab: usize,
        kv: KvShape,
        rows: StepRows<'_>,
    ) -> Result<RowIndex, OpError> {
        let limits = IndexLimits {
            max_rows: rows.ids.len(),
            max_logit_rows: rows.logit_rows.len(),
            n_vocab,
            kv,
        };
        let mut index = RowIndex::new(device, limits);
        index.set(rows)?;
        Ok(index)
    }

    /// Takes the rows of the next step in place of those of the last.
    ///
    /// # Errors
    /// [`OpError::Count`] for more rows than there is room for, or if there is not one place for each id; [`OpError::OutOfRange`] for an id, table, position, block (any entry of any table) or
    /// logit row that does not exist: the rows are as they were then. [`OpError::Hip`] if the device failed.
    pub fn set(&mut self, rows: StepRows<'_>) -> Result<(), OpError> {
        self.take(rows)?;
        self.upload()
    }

    /// As [`RowIndex::set`], with the sizes rounded up so that many steps have one shape: operations recorded for a step of that shape then compute this one. On a device that records nothing,
    /// nothing is rounded.
    ///
    /// Rows that were added write nothing to the store, and what they compute is nobody's. Where there is no room for them, nothing is rounded either.
    ///
    /// # Errors
    /// As [`RowIndex::set`].
    pub fn set_recordable(&mut self, rows: StepRows<'_>) -> Result<StepShape, OpError> {
        self.take(rows)?;
        if self.memory.is_some() {
            self.round_up();
        }
        self.upload()?;
        Ok(StepShape {
            rows: self.ids.len(),
            logit_rows: self.logit_rows.len(),
            longest: self.longest,
            max_blocks: self.memory.as_ref().map_or(0, IndexMemory::max_blocks),
        })
    }

    /// Adds rows and logit rows up to a size that many steps have.
    fn round_up(&mut self) {
        let IndexLimits {
            max_rows,
            max_logit_rows,
            ..
        } = self.limits;
        self.longest = self
            .longest
            .next_multiple_of(CONTEXT_STEP)
            .next_power_of_two();
        let rows = round_rows(self.ids.len());
        if rows <= max_rows {
            self.ids.resize(rows, 0);
        }
        let logit_rows = round_rows(self.logit_rows.len());
        if logit_rows <= max_logit_rows {
            self.logit_rows.resize(logit_rows, 0);
        }
    }

    /// Brings the lists to where the device reads them.
    fn upload(&mut self) -> Result<(), OpError> {
        let Some(mut memory) = self.memory.take() else {
            return Ok(());
        };
        let uploaded = match self.ids.is_empty() {
            true => Ok(()),
            false => {
                self.fill_lists();
                memory.set(&self.lists)
            }
        };
        self.memory = Some(memory);
        Ok(uploaded?)
    }

    /// The lists in the form that a GPU's kernels read. Rows that were added have neither position nor place.
    fn fill_lists(&mut self) {
        let mut lists = std::mem::take(&mut self.lists);
        replace(&mut lists.ids, &self.ids);
        replace(&mut lists.logit_rows, &self.logit_rows);
        lists.places.clear();
        lists.slots.clear();
        for (row, place) in self.places.iter().enumerate() {
            let (block, offset) = self.slot(row);
            lists.places.push([place.table, place.position]);
            lists.slots.push([to_u32(block), to_u32(offset)]);
        }
        lists.places.resize(self.ids.len(), [0, NONE]);
        lists.slots.resize(self.ids.len(), [NONE, 0]);
        let stride = self.table_stride();
        lists.tables.clear();
        for table in self.table_starts.windows(2) {
            let blocks = &self.blocks[table[0]..table[1]];
            let end = lists.tables.len() + stride;
            lists.tables.extend(blocks.iter().take(stride));
            lists.tables.resize(end, 0);
        }
        self.lists = lists;
    }

    fn take(&mut self, rows: StepRows<'_>) -> Result<(), OpError> {
        self.check(rows)?;
        replace(&mut self.ids, rows.ids);
        replace(&mut self.places, rows.places);
        replace(&mut self.logit_rows, rows.logit_rows);
        self.blocks.clear();
        self.table_starts.clear();
        self.table_starts.push(0);
        for table in rows.tables {
            self.blocks.extend_from_slice(table);
            self.table_starts.push(self.blocks.len());
        }
        let contexts = rows.places.iter().map(|place| place.position as usize + 1);
        self.longest = contexts.max().unwrap_or(0);
        Ok(())
    }

    fn check(&self, rows: StepRows<'_>) -> Result<(), OpError> {
        let IndexLimits {
            max_rows,
            max_logit_rows,
            n_vocab,
            kv,
        } = self.limits;
        at_most("rows", max_rows, rows.ids.len())?;
        at_most("logit rows", max_logit_rows, rows.logit_rows.len())?;
        if rows.places.len() != rows.ids.len() {
            return Err(count("places", rows.ids.len(), rows.places.len()));
        }
        below("token id", rows.ids, n_vocab)?;
        below("logit row", rows.logit_rows, rows.ids.len())?;
        for table in rows.tables {
            below("block", table, kv.n_blocks)?;
        }
        for (entry, place) in rows.places.iter().enumerate() {
            let Some(table) = rows.tables.get(place.table as usize) else {
                return Err(out_of_range("table", entry, place.table, rows.tables.len()));
            };
            if place.position as usize / kv.block_len >= table.len() {
                let limit = table.len().saturating_mul(kv.block_len);
                return Err(out_of_range("position", entry, place.position, limit));
            }
        }
        Ok(())
    }

    /// The device of the operations that use it.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// What the indices were held against.
    #[must_use]
    pub fn limits(&self) -> &IndexLimits {
        &self.limits
    }

    /// Rows of the step, those included that were added to round up.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.ids.len()
    }

    /// Rows of the step of which logits are wanted, those included that were added to round up.
    #[must_use]
    pub fn n_logit_rows(&self) -> usize {
        self.logit_rows.len()
    }

    pub(crate) fn ids(&self) -> &[u32] {
        &self.ids
    }

    pub(crate) fn places(&self) -> &[RowPlace] {
        &self.places
    }

    pub(crate) fn logit_rows(&self) -> &[u32] {
        &self.logit_rows
    }

    /// Block numbers from one table to the next in a GPU's memory.
    pub(crate) fn table_stride(&self) -> usize {
        self.longest.div_ceil(self.limits.kv.block_len)
    }

    /// Whether every row is the only one of its sequence.
    pub(crate) fn is_one_row_each(&self) -> bool {
        (0..)
            .zip(&self.places)
            .all(|(row, place)| place.table == row)
    }

    /// Rows that lie one after the other in a sequence, at most `max_len` to a run: first row and number of rows.
    pub(crate) fn runs(&self, max_len: usize) -> Vec<[u32; 2]> {
        let mut runs: Vec<[u32; 2]> = Vec::new();
        let mut last: Option<RowPlace> = None;
        for (row, &place) in (0..).zip(&self.places) {
            let follows = last.is_some_and(|last| {
                last.table == place.table && last.position + 1 == place.position
            });
            match runs.last_mut() {
                Some([_, len]) if follows && (*len as usize) < max_len => *len += 1,
                _ => runs.push([row, 1]),
            }
            last = Some(place);
        }
        runs
    }

    /// The lists in a GPU's memory.
    pub(crate) fn memory(&self) -> Option<&IndexMemory> {
        self.memory.as_ref()
    }

    /// The block table of a row.
    pub(crate) fn table(&self, row: usize) -> &[u32] {
        let table = self.places[row].table as usize;
        &self.blocks[self.table_starts[table]..self.table_starts[table + 1]]
    }

    /// Block and offset in the block of a row's own position.
    pub(crate) fn slot(&self, row: usize) -> (usize, usize) {
        let (position, block_len) = (self.places[row].position as usize, self.limits.kv.block_len);
        (
            self.table(row)[position / block_len] as usize,
            position % block_len,
        )
    }
}

/// The number of rows that steps of `rows` rows are rounded up to: few different ones, and seldom many more than are needed.
fn round_rows(rows: usize) -> usize {
    match rows {
        0..=2 => rows,
        3..=32 => rows.next_multiple_of(4),
        33..=128 => rows.next_multiple_of(16),
        _ => rows.next_multiple_of(64),
    }
}

/// Counts of rows, tables and blocks are far below: each is bounded by memory that holds more than a byte for it.
fn to_u32(n: usize) -> u32 {
    u32::try_from(n).expect("rows and blocks are bounded by 32 bits")
}

fn replace<T: Copy>(list: &mut Vec<T>, with: &[T]) {
    list.clear();
    list.extend_from_slice(with);
}

fn count(operand: &'static str, expected: usize, found: usize) -> OpError {
    OpError::Count {
        op: OP,
        operand,
        expected,
        found,
    }
}

fn at_most(operand: &'static str, limit: usize, found: usize) -> Result<(), OpError> {
    if found <= limit {
        return Ok(());
    }
    Err(count(operand, limit, found))
}

fn below(what: &'static str, indices: &[u32], limit: usize) -> Result<(), OpError> {
    match indices.iter().position(|&index| index as usize >= limit) {
        None => Ok(()),
        Some(entry) => Err(out_of_range(what, entry, indices[entry], limit)),
    }
}

fn out_of_range(what: &'static str, entry: usize, index: u32, limit: usize) -> OpError {
    OpError::OutOfRange {
        op: OP,
        what,
        entry,
        index: u64::from(index),
        limit: limit as u64,
    }
}
