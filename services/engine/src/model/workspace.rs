use std::collections::HashMap;
use std::ops::Range;

use kernels::{
    Device, IndexLimits, KvStore, OpError, Picks, Readout, Recording, RowIndex, StepShape, Tensor,
};

use super::{Model, Rows};
use crate::sampler::most_likely;

/// Device memory that a model's steps write to: activations, logits and the KV store. One step at a time.
#[derive(Debug)]
pub struct Workspace {
    /// `[rows, n_embd]`, the hidden state.
    pub(super) x: Tensor,
    /// `[rows, n_embd]`
    pub(super) normed: Tensor,
    /// `[rows, n_heads * head_dim_k]`
    pub(super) q: Tensor,
    /// `[rows, n_kv_heads * head_dim_k]`
    pub(super) k: Tensor,
    /// `[rows, n_kv_heads * head_dim_v]`
    pub(super) v: Tensor,
    /// `[rows, n_heads * head_dim_v]`
    pub(super) attended: Tensor,
    /// `[rows, n_ff]`
    pub(super) activated: Tensor,
    /// `[logit rows, n_embd]`
    pub(super) gathered: Tensor,
    /// `[logit rows, n_embd]`
    pub(super) gathered_normed: Tensor,
    /// `[logit rows, n_vocab]`
    pub(super) logits: Tensor,
    pub(super) kv: KvStore,
    /// The rows of the step that is under way.
    pub(super) index: RowIndex,
    /// The most likely token of each logit row, where the device finds it so that the logits need not be brought back.
    pub(super) picks: Option<Picks>,
    /// Steps of each shape that were run as a whole.
    pub(super) recordings: HashMap<StepShape, Option<Recording>>,
    readout: Readout,
    n_vocab: usize,
}

impl Workspace {
    /// Allocates for steps of at most `max_rows` rows, `max_logit_rows` of which need logits, over `n_blocks` KV blocks.
    /// # Errors
    /// [`OpError::Memory`].
    pub fn new(
        model: &Model,
        device: &Device,
        max_rows: usize,
        max_logit_rows: usize,
        n_blocks: usize,
    ) -> Result<Workspace, OpError> {
        let config = model.config();
        let rows = |width: usize| Tensor::zeros(device, &[max_rows, width]);
        let logit_rows = |width: usize| Tensor::zeros(device, &[max_logit_rows, width]);
        let kv_shape = model.kv_shape(n_blocks);
        let limits = IndexLimits {
            max_rows,
            max_logit_rows,
            n_vocab: config.n_vocab as usize,
            kv: kv_shape,
        };
        Ok(Workspace {
            x: rows(config.n_embd)?,
            normed: rows(config.n_embd)?,
            q: rows(config.n_heads * config.head_dim_k)?,
            k: rows(config.n_kv_heads * config.head_dim_k)?,
            v: rows(config.n_kv_heads * config.head_dim_v)?,
            attended: rows(config.n_heads * config.head_dim_v)?,
            activated: rows(config.n_ff)?,
            gathered: logit_rows(config.n_embd)?,
            gathered_normed: logit_rows(config.n_embd)?,
            logits: logit_rows(config.n_vocab as usize)?,
            kv: KvStore::new(device, kv_shape)?,
            index: RowIndex::new(device, limits),
            picks: match device.records() {
                true => Some(Picks::new(device, max_logit_rows)?),
                false => None,
            },
            recordings: HashMap::new(),
            readout: Readout::new(device),
            n_vocab: config.n_vocab as usize,
        })
    }

    /// Begins a step: its rows are known to every op, and every tensor has as many.
    pub(super) fn begin(&mut self, rows: &Rows) -> Result<(), OpError> {
        rows.enter(|rows| self.index.set(rows))?;
        self.fit()
    }

    /// Begins a step that runs as a whole; rows may be added to give it a shape that others have.
    pub(super) fn begin_whole(&mut self, rows: &Rows) -> Result<StepShape, OpError> {
        let shape = rows.enter(|rows| self.index.set_recordable(rows))?;
        self.fit()?;
        Ok(shape)
    }

    /// Gives every tensor as many rows as the step has.
    fn fit(&mut self) -> Result<(), OpError> {
        let (rows, logit_rows) = (self.index.n_rows(), self.index.n_logit_rows());
        let tensors = [
            &mut self.x,
            &mut self.normed,
            &mut self.q,
            &mut self.k,
            &mut self.v,
            &mut self.attended,
            &mut self.activated,
        ];
        for tensor in tensors {
            tensor.set_rows(rows)?;
        }
        let tensors = [
            &mut self.gathered,
            &mut self.gathered_normed,
            &mut self.logits,
        ];
        for tensor in tensors {
            tensor.set_rows(logit_rows)?;
        }
        Ok(())
    }

    /// What was recorded holds weights in memory: it is let go before any of them is.
    pub(crate) fn forget_recordings(&mut self) {
        self.recordings.clear();
    }

    /// What the step that just ended came to: the most likely token of each of its `logit_rows` rows of logits, and the logits themselves of `rows` among them. Waits for the device.
    /// # Errors
    /// What the device says.
    pub fn outcome(
        &mut self,
        logit_rows: usize,
        rows: Range<usize>,
    ) -> Result<Outcome<'_>, OpError> {
        // Where the logits lie before us anyway, all of them may be looked at.
        let rows = if self.picks.is_some() {
            rows
        } else {
            0..logit_rows
        };
        let first_row = rows.start;
        let picks = match &mut self.picks {
            Some(picks) => Some(picks.read(logit_rows)?),
            None => None,
        };
        Ok(Outcome {
            picks,
            logits: self.readout.rows(&self.logits, rows)?,
            first_row,
            n_vocab: self.n_vocab,
        })
    }
}

/// What a step came to. Rows count in the order of [`Rows::logit_rows`](super::Rows).
#[derive(Debug)]
pub struct Outcome<'a> {
    picks: Option<&'a [u32]>,
    /// Of the rows from `first_row` on.
    logits: &'a [f32],
    first_row: usize,
    n_vocab: usize,
}

impl<'a> Outcome<'a> {
    /// The logits of one of the rows that were asked for, `[n_vocab]`.
    pub fn row(&self, row: usize) -> &'a [f32] {
        &self.logits[(row - self.first_row) * self.n_vocab..][..self.n_vocab]
    }

    /// The most likely token of a row.
    pub fn most_likely(&self, row: usize) -> u32 {
        match self.picks {
            Some(picks) => picks[row],
            None => most_likely(self.row(row)),
        }
    }
}
