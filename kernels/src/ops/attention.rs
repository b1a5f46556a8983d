//! Positions and the store: rotating, writing keys and values, and attention over them.

use std::num::NonZeroUsize;

use super::check::Check;
use crate::operands::AttentionJob;
use crate::{Device, KvShape, KvStore, OpError, RopeTable, RowIndex, Tensor, reference};

/// How a layer attends.
#[derive(Debug, Clone, Copy)]
pub struct AttentionParams<'a> {
    /// Factor on each product of a query and a key, usually `1 / sqrt(head_dim_k)`.
    pub scale: f32,
    /// How many positions a row sees, its own included; all before it where there is no window.
    pub window: Option<NonZeroUsize>,
    /// Turns each score `s` into `cap · tanh(s / cap)`.
    pub soft_cap: Option<f32>,
    /// A further score of each head that takes its share of the softmax and gives nothing: `[n_heads]` F32.
    pub sinks: Option<&'a Tensor>,
}

impl AttentionParams<'_> {
    /// Attention over everything before, with nothing but a factor on the scores.
    #[must_use]
    pub fn scaled(scale: f32) -> AttentionParams<'static> {
        AttentionParams {
            scale,
            window: None,
            soft_cap: None,
            sinks: None,
        }
    }
}

/// Rotates each row's queries by its position, in place, and writes its keys, rotated likewise, and its values to its place in one layer of the store. What `k` holds afterwards is not said. If two rows have one
/// place, the later row stays.
///
/// `q`: `[rows, n_heads * head_dim_k]`; `k`: `[rows, n_kv_heads * head_dim_k]`; `v`: `[rows, n_kv_heads * head_dim_v]`; the numbers of heads are the store's for `k` and `v` and follow from
/// the width for `q`. The leading `rope.params().dims` elements of a head are rotated. Source: arXiv:2104.09864.
///
/// # Errors
/// [`OpError::OutOfRange`] for a layer that the store does not have, [`OpError::Index`] if the index was made for another store, [`OpError::Shape`] for heads shorter than what is to be
/// rotated, and the checks on shape and device.
pub fn rope_and_write(
    rows: &RowIndex,
    rope: &RopeTable,
    [q, k, v]: [&mut Tensor; 3],
    store: &mut KvStore,
    layer: usize,
) -> Result<(), OpError> {
    let check = Check("rope_and_write");
    check.same_device(
        store.device(),
        &[
            ("rows", rows.device()),
            ("q", q.device()),
            ("k", k.device()),
            ("v", v.device()),
        ],
    )?;
    let shape = *store.shape();
    let n_rows = rows.n_rows();
    check.index(rows, &shape)?;
    check.layer(&shape, layer)?;
    let n_heads = query_heads(check, q, n_rows, &shape)?;
    check.shape("k", k, &[n_rows, shape.n_kv_heads * shape.head_dim_k])?;
    check.shape("v", v, &[n_rows, shape.n_kv_heads * shape.head_dim_v])?;
    if rope.params().dims > shape.head_dim_k {
        return Err(OpError::Shape {
            op: check.0,
            operand: "q",
            expected: vec![n_rows, n_heads.saturating_mul(rope.params().dims)],
            found: q.shape().to_vec(),
        });
    }
    let device = store.device().clone();
    if let Device::Hip(hip) = &device {
        let v = check.resident("v", v)?;
        let (q, k) = (check.resident_mut("q", q)?, check.resident_mut("k", k)?);
        return Ok(hip.rope_and_write(rows, rope, [q, k], v, (store, layer))?);
    }
    {
        let (q, k) = (
            check.activations_mut("q", q)?,
            check.activations_mut("k", k)?,
        );
        let places = rows.places();
        let turn = |x: &mut [f32], n_heads| match &device {
            Device::Cpu(cpu) => cpu.rope(x, places, rope, n_heads),
            Device::Reference | Device::Hip(_) => reference::rope(x, places, rope, n_heads),
        };
        turn(q, n_heads);
        turn(k, shape.n_kv_heads);
    }
    let (k, v) = (check.activations("k", k)?, check.activations("v", v)?);
    let layer = store.layer_mut(layer);
    for row in 0..n_rows {
        layer.write(&shape, rows.slot(row), k.row(row), v.row(row));
    }
    Ok(())
}

/// Causal attention of each row over the positions `0..=position` of its block table, as far as the window reaches.
///
/// `q`: `[rows, n_heads * head_dim_k]`; `out`: `[rows, n_heads * head_dim_v]`. `n_heads` follows from `q` and is a multiple of the store's `n_kv_heads`; neighbouring heads of queries share a
/// head of keys and values. The rows' own keys and values must have been written before.
///
/// # Errors
/// [`OpError::OutOfRange`] for a layer that does not exist, [`OpError::Index`] if the index was made for another store, and the checks on shape and device.
pub fn attention(
    rows: &RowIndex,
    q: &Tensor,
    store: &KvStore,
    layer: usize,
    params: AttentionParams<'_>,
    out: &mut Tensor,
) -> Result<(), OpError> {
    let check = Check("attention");
    check.same_device(
        store.device(),
        &[
            ("rows", rows.device()),
            ("q", q.device()),
            ("out", out.device()),
        ],
    )?;
    let shape = *store.shape();
    check.index(rows, &shape)?;
    check.layer(&shape, layer)?;
    let n_heads = query_heads(check, q, rows.n_rows(), &shape)?;
    check.shape("out", out, &[rows.n_rows(), n_heads * shape.head_dim_v])?;
    if let Some(sinks) = params.sinks {
        check.same_device(store.device(), &[("sinks", sinks.device())])?;
        check.vector_shape("sinks", sinks, n_heads)?;
    }
    match store.device() {
        Device::Reference => {
            let job = job(check, rows, q, store, layer, params)?;
            reference::attention(job, check.activations_mut("out", out)?);
        }
        Device::Cpu(cpu) => {
            let job = job(check, rows, q, store, layer, params)?;
            cpu.attention(job, check.activations_mut("out", out)?);
        }
        Device::Hip(hip) => {
            let (q, out) = (check.resident("q", q)?, check.resident_mut("out", out)?);
            hip.attention(rows, q, (store, layer), params, out)?;
        }
    }
    Ok(())
}

/// Attention as the processor takes it, of operands that were checked.
fn job<'a>(
    check: Check,
    rows: &'a RowIndex,
    q: &'a Tensor,
    store: &'a KvStore,
    layer: usize,
    params: AttentionParams<'a>,
) -> Result<AttentionJob<'a>, OpError> {
    let shape = *store.shape();
    let q = check.activations("q", q)?;
    let n_heads = q.cols / shape.head_dim_k;
    let sinks = params
        .sinks
        .map(|sinks| check.vector("sinks", sinks, n_heads));
    Ok(AttentionJob {
        q: q.data,
        n_heads,
        layer: store.layer(layer),
        shape,
        rows,
        scale: params.scale,
        window: params.window.map_or(usize::MAX, NonZeroUsize::get),
        soft_cap: params.soft_cap,
        sinks: sinks.transpose()?,
    })
}

/// The number of query heads: each head of keys and values serves the same number of them.
fn query_heads(check: Check, q: &Tensor, n_rows: usize, shape: &KvShape) -> Result<usize, OpError> {
    let [_, cols] = check.two_dims("q", q)?;
    let group_len = shape.n_kv_heads * shape.head_dim_k;
    let cols = if cols.is_multiple_of(group_len) {
        cols
    } else {
        group_len
    };
    check.shape("q", q, &[n_rows, cols])?;
    Ok(cols / shape.head_dim_k)
}
