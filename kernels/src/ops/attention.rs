//! Writing keys and values, and attention over them.

use super::check::Check;
use crate::operands::AttentionJob;
use crate::{AttentionRows, Device, KvSlot, KvStore, OpError, Tensor, reference};

/// Writes each row's keys and values to its slot in one layer. If two rows name one slot, the later row stays.
///
/// `k`: `[rows, n_kv_heads * head_dim_k]`; `v`: `[rows, n_kv_heads * head_dim_v]`; `slots`: `[rows]`.
///
/// # Errors
/// [`OpError::OutOfRange`] for a layer, block or offset that the store does not have, [`OpError::Count`] if there is not one slot per row, and the checks on shape and device.
pub fn kv_write(
    store: &mut KvStore,
    layer: usize,
    k: &Tensor,
    v: &Tensor,
    slots: &[KvSlot],
) -> Result<(), OpError> {
    let check = Check("kv_write");
    check.same_device(store.device(), &[("k", k.device()), ("v", v.device())])?;
    let shape = *store.shape();
    let [rows, _] = check.two_dims("k", k)?;
    check.shape("k", k, &[rows, shape.n_kv_heads * shape.head_dim_k])?;
    check.shape("v", v, &[rows, shape.n_kv_heads * shape.head_dim_v])?;
    check.count("slots", rows, slots.len())?;
    if layer >= shape.n_layers {
        return Err(check.out_of_range("layer", 0, layer as u64, shape.n_layers));
    }
    for (entry, slot) in slots.iter().enumerate() {
        if slot.block as usize >= shape.n_blocks {
            return Err(check.out_of_range("block", entry, u64::from(slot.block), shape.n_blocks));
        }
        if slot.offset as usize >= shape.block_len {
            return Err(check.out_of_range(
                "offset",
                entry,
                u64::from(slot.offset),
                shape.block_len,
            ));
        }
    }
    let (k, v) = (check.activations("k", k)?, check.activations("v", v)?);
    match store.device() {
        Device::Reference | Device::Cpu(_) => {
            let layer = store.layer_mut(layer);
            for (row, &slot) in slots.iter().enumerate() {
                layer.write(&shape, slot, k.row(row), v.row(row));
            }
        }
    }
    Ok(())
}

/// Causal attention of each row over the positions `0..=position` of its block table.
///
/// `q`: `[rows, n_heads * head_dim_k]`; `out`: `[rows, n_heads * head_dim_v]`. `n_heads` follows from `q` and is a multiple of the store's `n_kv_heads`; neighbouring heads of queries share a
/// head of keys and values. `scale` multiplies each score, usually `1 / sqrt(head_dim_k)`. The rows' own keys and values must have been written before.
///
/// # Errors
/// [`OpError::OutOfRange`] for a layer, table, position or block (any entry of any table) that does not exist, [`OpError::Count`] if there is not one place per row, and the checks on shape
/// and device.
pub fn attention(
    q: &Tensor,
    store: &KvStore,
    layer: usize,
    rows: AttentionRows,
    scale: f32,
    out: &mut Tensor,
) -> Result<(), OpError> {
    let check = Check("attention");
    check.same_device(store.device(), &[("q", q.device()), ("out", out.device())])?;
    let shape = *store.shape();
    let [n_rows, cols] = check.two_dims("q", q)?;
    let group_len = shape.n_kv_heads * shape.head_dim_k;
    if !cols.is_multiple_of(group_len) {
        return Err(OpError::Shape {
            op: "attention",
            operand: "q",
            expected: vec![n_rows, group_len],
            found: q.shape().to_vec(),
        });
    }
    let n_heads = cols / shape.head_dim_k;
    check.shape("out", out, &[n_rows, n_heads * shape.head_dim_v])?;
    check.count("places", n_rows, rows.rows.len())?;
    check_context(check, store, layer, rows)?;
    let q = check.activations("q", q)?.data;
    let out = check.activations_mut("out", out)?;
    let job = AttentionJob {
        q,
        n_heads,
        layer: store.layer(layer),
        shape,
        rows,
        scale,
    };
    match store.device() {
        Device::Reference => reference::attention(job, out),
        Device::Cpu(cpu) => cpu.attention(job, out),
    }
    Ok(())
}

/// That layer, tables and places lead to blocks that exist.
fn check_context(
    check: Check,
    store: &KvStore,
    layer: usize,
    rows: AttentionRows,
) -> Result<(), OpError> {
    let shape = store.shape();
    if layer >= shape.n_layers {
        return Err(check.out_of_range("layer", 0, layer as u64, shape.n_layers));
    }
    for table in rows.tables {
        check.indices("block", table, shape.n_blocks)?;
    }
    for (entry, place) in rows.rows.iter().enumerate() {
        let Some(table) = rows.tables.get(place.table as usize) else {
            return Err(check.out_of_range(
                "table",
                entry,
                u64::from(place.table),
                rows.tables.len(),
            ));
        };
        if place.position as usize / shape.block_len >= table.len() {
            return Err(check.out_of_range(
                "position",
                entry,
                u64::from(place.position),
                table.len().saturating_mul(shape.block_len),
            ));
        }
    }
    Ok(())
}
