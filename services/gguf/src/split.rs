use std::collections::HashMap;

use crate::directory::Directory;
use crate::{Field, Metadata, ParseError, SplitFault, TensorFault, limits};

/// What a file says about the model that it is a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// Which part it is, from 0 (`split.no`).
    pub number: u16,
    /// How many parts there are, at least 2 (`split.count`).
    pub count: u16,
    /// Tensors of all parts together (`split.tensors.count`).
    pub tensor_count: Option<u64>,
}

const NUMBER_KEY: &str = "split.no";
const COUNT_KEY: &str = "split.count";
const TENSOR_COUNT_KEY: &str = "split.tensors.count";

impl Split {
    /// `None` for a whole model. Tools that merge splits leave the keys behind with a count of 0.
    pub(crate) fn from_metadata(metadata: &Metadata) -> Result<Option<Split>, ParseError> {
        let count = metadata.get_u16(COUNT_KEY)?.unwrap_or(0);
        if count < 2 {
            return Ok(None);
        }
        let number = metadata.require_u16(NUMBER_KEY)?;
        if number >= count {
            return Err(SplitFault::Number { number, count }.into());
        }
        Ok(Some(Split {
            number,
            count,
            tensor_count: metadata.get_u64(TENSOR_COUNT_KEY)?,
        }))
    }
}

/// Makes one directory of the parts of a model, given in order. Metadata is that of the first.
pub(crate) fn join(parts: Vec<Directory>) -> Result<Directory, ParseError> {
    check_order(&parts)?;
    check_tensor_count(&parts)?;
    let mut parts = parts.into_iter();
    let mut whole = parts.next().ok_or(SplitFault::NoParts)?;
    for part in parts {
        append(&mut whole, part)?;
    }
    whole.split = None;
    Ok(whole)
}

fn check_order(parts: &[Directory]) -> Result<(), SplitFault> {
    let whole_model = parts.len() == 1 && parts[0].split.is_none();
    if whole_model {
        return Ok(());
    }
    for (part, directory) in parts.iter().enumerate() {
        let split = directory.split.ok_or(SplitFault::NotASplit { part })?;
        if usize::from(split.count) != parts.len() {
            return Err(SplitFault::Count {
                part,
                declared: split.count,
                given: parts.len(),
            });
        }
        if usize::from(split.number) != part {
            return Err(SplitFault::Order {
                part,
                number: split.number,
            });
        }
    }
    Ok(())
}

fn check_tensor_count(parts: &[Directory]) -> Result<(), SplitFault> {
    let found = parts.iter().map(|part| part.tensors.len() as u64).sum();
    for declared in parts.iter().filter_map(|part| part.split?.tensor_count) {
        if declared != found {
            return Err(SplitFault::TensorCount { declared, found });
        }
    }
    Ok(())
}

/// Adds the file of `part` behind those of `whole`.
fn append(whole: &mut Directory, part: Directory) -> Result<(), ParseError> {
    let extent_count = (whole.extents.len() + part.extents.len()) as u64;
    ParseError::over_limit(Field::ExtentCount, extent_count, limits::EXTENT_COUNT)?;
    let extents_before =
        u32::try_from(whole.extents.len()).expect("the limit on extents is below 2^32");
    let split_index = whole.split_count();
    whole.files.extend(part.files);
    for mut tensor in part.tensors {
        tensor.split_index = split_index;
        tensor.extents = tensor.extents.start + extents_before..tensor.extents.end + extents_before;
        insert_name(&mut whole.by_name, &tensor.name, whole.tensors.len())?;
        whole.tensors.push(tensor);
    }
    whole
        .extents
        .extend(part.extents.into_iter().map(|extent| crate::Extent {
            split_index,
            ..extent
        }));
    Ok(())
}

/// Notes that `name` is tensor `index`, once.
pub(crate) fn insert_name(
    by_name: &mut HashMap<Box<str>, usize>,
    name: &str,
    index: usize,
) -> Result<(), ParseError> {
    match by_name.insert(name.into(), index) {
        None => Ok(()),
        Some(_) => Err(ParseError::tensor(name, TensorFault::Duplicate)),
    }
}
