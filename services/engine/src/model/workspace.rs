use std::borrow::Cow;

use kernels::{Device, IndexLimits, KvStore, OpError, RowIndex, Tensor};

use super::{Model, Rows};

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
            n_vocab: config.n_vocab as usize,
        })
    }

    /// Begins a step: its rows are known to every op, and every tensor has as many.
    pub(super) fn set_rows(&mut self, rows: &Rows) -> Result<(), OpError> {
        rows.enter(&mut self.index)?;
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
            tensor.set_rows(rows.len())?;
        }
        let tensors = [
            &mut self.gathered,
            &mut self.gathered_normed,
            &mut self.logits,
        ];
        for tensor in tensors {
            tensor.set_rows(rows.logit_rows.len())?;
        }
        Ok(())
    }

    /// The logits of the step that just ended.
    /// # Errors
    /// What the device says.
    pub fn logits(&self) -> Result<Logits<'_>, OpError> {
        let values = match self.logits.as_f32() {
            Some(values) => Cow::Borrowed(values),
            None => Cow::Owned(self.logits.to_f32()?),
        };
        Ok(Logits {
            values,
            n_vocab: self.n_vocab,
        })
    }
}

/// `[logit rows, n_vocab]`
#[derive(Debug)]
pub struct Logits<'a> {
    values: Cow<'a, [f32]>,
    n_vocab: usize,
}

impl Logits<'_> {
    /// The logits of one row, `[n_vocab]`; rows count in the order of [`Rows::logit_rows`](super::Rows).
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.n_vocab..][..self.n_vocab]
    }
}
