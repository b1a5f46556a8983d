use std::collections::HashMap;
use std::ops::Range;

use kernels::{
    Device, IndexLimits, KvStore, OpError, Picks, Readout, Recording, Routing, RoutingSize,
    RowIndex, StepShape, Tensor,
};

use super::{Model, Rows};
use crate::config::{ExpertConfig, ModelConfig};
use crate::sampler::most_likely;

/// Device memory that a model's steps write to: activations, logits and the KV store. One step at a time.
#[derive(Debug)]
pub struct Workspace {
    pub(super) residual: Residual,
    /// `[rows, n_embd]`, what a half of a block reads.
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
    /// For models with experts.
    pub(super) chooser: Option<Chooser>,
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

/// The hidden state and what is to be added to it.
#[derive(Debug)]
pub(super) struct Residual {
    /// `[rows, n_embd]`, the hidden state.
    pub(super) x: Tensor,
    /// `[rows, n_embd]`, what a half of a block gives.
    pub(super) delta: Tensor,
    /// `[rows, n_embd]`, its norm.
    pub(super) normed: Tensor,
}

/// What choosing experts takes.
#[derive(Debug)]
pub(super) struct Chooser {
    /// `[rows, n_experts]`, what the router says.
    pub(super) logits: Tensor,
    /// What follows from it.
    pub(super) routing: Routing,
    /// For the network beside the experts.
    pub(super) shared: Option<SharedInner>,
}

/// The inner half of the network beside the experts.
#[derive(Debug)]
pub(super) struct SharedInner {
    /// `[rows, its inner width]`
    pub(super) activated: Tensor,
    /// `[rows, 1]`
    pub(super) gate: Tensor,
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
            residual: Residual {
                x: rows(config.n_embd)?,
                delta: rows(config.n_embd)?,
                normed: rows(config.n_embd)?,
            },
            normed: rows(config.n_embd)?,
            q: rows(config.n_heads * config.head_dim_k)?,
            k: rows(config.n_kv_heads * config.head_dim_k)?,
            v: rows(config.n_kv_heads * config.head_dim_v)?,
            attended: rows(config.n_heads * config.head_dim_v)?,
            activated: rows(config.feed_forward.n_ff)?,
            chooser: match &config.experts {
                Some(experts) => Some(Chooser::new(device, max_rows, config, experts)?),
                None => None,
            },
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
        let Residual { x, delta, normed } = &mut self.residual;
        let tensors = [
            x,
            delta,
            normed,
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
        if let Some(chooser) = &mut self.chooser {
            chooser.set_rows(rows)?;
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

    /// The experts that the rows of the step were routed to at a block, ascending. Waits for a device that has not been asked yet.
    pub(super) fn chosen_experts(&mut self, block: usize) -> Result<Vec<u32>, OpError> {
        match &mut self.chooser {
            Some(chooser) => chooser.routing.chosen(block),
            None => Ok(Vec::new()),
        }
    }

    /// Asks the device once for what it has chosen at all blocks.
    pub(super) fn bring_choices(&mut self) -> Result<(), OpError> {
        match &mut self.chooser {
            Some(chooser) => chooser.routing.bring_all(),
            None => Ok(()),
        }
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

impl Chooser {
    fn new(
        device: &Device,
        max_rows: usize,
        config: &ModelConfig,
        experts: &ExpertConfig,
    ) -> Result<Chooser, OpError> {
        let size = RoutingSize {
            n_layers: config.layers.len(),
            max_rows,
            n_experts: experts.n_experts,
            n_embd: config.n_embd,
            n_ff: experts.n_ff,
        };
        let shared = experts
            .shared
            .map(|shared| -> Result<SharedInner, OpError> {
                Ok(SharedInner {
                    activated: Tensor::zeros(device, &[max_rows, shared.n_ff])?,
                    gate: Tensor::zeros(device, &[max_rows, 1])?,
                })
            });
        Ok(Chooser {
            logits: Tensor::zeros(device, &[max_rows, experts.n_experts])?,
            routing: Routing::new(device, size, experts.routing)?,
            shared: shared.transpose()?,
        })
    }

    fn set_rows(&mut self, rows: usize) -> Result<(), OpError> {
        self.logits.set_rows(rows)?;
        if let Some(shared) = &mut self.shared {
            shared.activated.set_rows(rows)?;
            shared.gate.set_rows(rows)?;
        }
        Ok(())
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
