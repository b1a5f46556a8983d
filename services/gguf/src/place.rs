//! From tensor records to byte ranges: each proven inside the file and apart from every other.

use std::collections::HashMap;

use crate::error::shown;
use crate::split::insert_name;
use crate::{Extent, Field, ParseError, Shape, TensorFault, TensorInfo, TensorType, limits};

/// A tensor as the header describes it.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) shape: Shape,
    pub(crate) tensor_type: TensorType,
    /// From the start of the data section, in bytes.
    pub(crate) data_offset: u64,
}

/// The tensors of one file with their place in it.
#[derive(Debug, Default)]
pub(crate) struct Placed {
    pub(crate) tensors: Vec<TensorInfo>,
    pub(crate) extents: Vec<Extent>,
    pub(crate) by_name: HashMap<Box<str>, usize>,
}

/// `data_start`: first byte of the data section in the file.
pub(crate) fn place(
    records: Vec<Record>,
    data_start: u64,
    alignment: u32,
    file_len: u64,
) -> Result<Placed, ParseError> {
    let mut placed = Placed {
        tensors: Vec::with_capacity(records.len()),
        extents: Vec::with_capacity(records.len()),
        by_name: HashMap::with_capacity(records.len()),
    };
    for record in records {
        insert_name(&mut placed.by_name, &record.name, placed.tensors.len())?;
        let len_bytes = data_bytes(&record.shape, record.tensor_type)
            .map_err(|fault| ParseError::tensor(&record.name, fault))?;
        let offset_bytes = data_offset(&record, len_bytes, data_start, alignment, file_len)
            .map_err(|fault| ParseError::tensor(&record.name, fault))?;
        let extents = push_extents(&mut placed.extents, &record, offset_bytes, len_bytes)?;
        let Record {
            name,
            shape,
            tensor_type,
            ..
        } = record;
        placed.tensors.push(TensorInfo {
            name,
            shape,
            tensor_type,
            split_index: 0,
            offset_bytes,
            len_bytes,
            extents,
        });
    }
    check_apart(&placed.tensors)?;
    Ok(placed)
}

/// Bytes that a tensor's data takes.
pub(crate) fn data_bytes(shape: &Shape, tensor_type: TensorType) -> Result<u64, TensorFault> {
    let row_len = shape.row_len();
    if !row_len.is_multiple_of(tensor_type.block_len() as u64) {
        return Err(TensorFault::PartialBlock {
            row_len,
            tensor_type,
        });
    }
    let row_bytes = tensor_type
        .row_bytes(row_len)
        .ok_or(TensorFault::TooLarge)?;
    row_bytes
        .checked_mul(shape.n_rows())
        .ok_or(TensorFault::TooLarge)
}

/// Where the data begins in the file, if all of it is in there.
fn data_offset(
    record: &Record,
    len_bytes: u64,
    data_start: u64,
    alignment: u32,
    file_len: u64,
) -> Result<u64, TensorFault> {
    if !record.data_offset.is_multiple_of(u64::from(alignment)) {
        return Err(TensorFault::Misaligned {
            offset_bytes: record.data_offset,
            alignment,
        });
    }
    let start = data_start.saturating_add(record.data_offset);
    let end = data_start
        .checked_add(record.data_offset)
        .and_then(|start| start.checked_add(len_bytes));
    match end {
        Some(end) if end <= file_len => Ok(start),
        _ => Err(TensorFault::OutOfFile {
            start,
            end: end.unwrap_or(u64::MAX),
            file_len,
        }),
    }
}

/// Appends the extents of a tensor and says which they are.
fn push_extents(
    extents: &mut Vec<Extent>,
    record: &Record,
    offset_bytes: u64,
    len_bytes: u64,
) -> Result<std::ops::Range<u32>, ParseError> {
    let count = expert_count(&record.name, &record.shape).unwrap_or(1);
    ParseError::over_limit(Field::ExpertCount, count, limits::EXPERT_COUNT)?;
    let total = (extents.len() as u64).saturating_add(count);
    ParseError::over_limit(Field::ExtentCount, total, limits::EXTENT_COUNT)?;
    let each = len_bytes / count;
    extents.extend((0..count).map(|index| Extent {
        split_index: 0,
        offset_bytes: offset_bytes + index * each,
        len_bytes: each,
    }));
    let end = u32::try_from(total).expect("the limit on extents is below 2^32");
    let start = u32::try_from(total - count).expect("the limit on extents is below 2^32");
    Ok(start..end)
}

/// How many experts share a tensor, by its name and shape: the last dimension of `[n_in, n_out, n_experts]` weights and of `[n_out, n_experts]` biases. Slices of it are whole rows, of equal length.
fn expert_count(name: &str, shape: &Shape) -> Option<u64> {
    let (layer, rest) = name.strip_prefix("blk.")?.split_once(".ffn_")?;
    if layer.is_empty() || !layer.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (projection, part) = rest.split_once("_exps.")?;
    if !matches!(projection, "gate" | "up" | "down" | "gate_up") {
        return None;
    }
    match (part, shape.dims()) {
        ("weight", &[_, _, n_experts]) | ("bias", &[_, n_experts]) => Some(n_experts),
        _ => None,
    }
}

fn check_apart(tensors: &[TensorInfo]) -> Result<(), ParseError> {
    let mut by_offset: Vec<&TensorInfo> = tensors.iter().collect();
    by_offset.sort_by_key(|tensor| tensor.offset_bytes);
    for pair in by_offset.windows(2) {
        let (before, after) = (pair[0], pair[1]);
        if before.offset_bytes + before.len_bytes > after.offset_bytes {
            return Err(ParseError::tensor(
                &after.name,
                TensorFault::Overlap {
                    other: shown(&before.name),
                    offset_bytes: after.offset_bytes,
                },
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expert_tensors_are_told_by_name_and_shape() {
        let check = |name: &str, dims: &[u64], expected: Option<u64>| {
            assert_eq!(
                expert_count(name, &Shape::new(dims).expect("valid")),
                expected,
                "{name} {dims:?}"
            )
        };
        check("blk.0.ffn_gate_exps.weight", &[64, 32, 8], Some(8));
        check("blk.12.ffn_up_exps.weight", &[64, 32, 8], Some(8));
        check("blk.12.ffn_down_exps.bias", &[64, 8], Some(8));
        check("blk.3.ffn_gate_up_exps.weight", &[64, 32, 1], Some(1));
        check("blk.0.ffn_gate.weight", &[64, 32, 8], None);
        check("blk.0.ffn_gate_shexp.weight", &[64, 32], None);
        check("blk.0.ffn_norm_exps.weight", &[64, 32, 8], None);
        check("blk.x.ffn_gate_exps.weight", &[64, 32, 8], None);
        check("blk..ffn_gate_exps.weight", &[64, 32, 8], None);
        check("blk.0.ffn_gate_exps.scale", &[64, 32, 8], None);
        check("blk.0.ffn_gate_exps.weight", &[64, 32], None);
        check("v.blk.0.ffn_gate_exps.weight", &[64, 32, 8], None);
    }

    #[test]
    fn bytes_of_a_tensor() {
        let check = |dims: &[u64], tensor_type: TensorType, expected: Result<u64, TensorFault>| {
            assert_eq!(
                data_bytes(&Shape::new(dims).expect("valid"), tensor_type),
                expected
            );
        };
        check(&[64, 3], TensorType::Q8_0, Ok(2 * 34 * 3));
        check(&[256, 2, 5], TensorType::Q4_K, Ok(144 * 10));
        check(
            &[32, 8],
            TensorType::Q4_K,
            Err(TensorFault::PartialBlock {
                row_len: 32,
                tensor_type: TensorType::Q4_K,
            }),
        );
        check(&[1 << 62], TensorType::F32, Err(TensorFault::TooLarge));
        check(
            &[1 << 20, 1 << 42],
            TensorType::F32,
            Err(TensorFault::TooLarge),
        );
    }
}
