//! Taking tensors out of the directory: each is checked against the shape that the configuration asks for, and remembered.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use gguf::{Directory, ExtentId, TensorInfo, TensorType};

use super::{LazyTensor, Linear, Norm, PlanError};

/// The tensors of a file, and which of them were taken.
pub(super) struct Shelf<'a> {
    directory: &'a Directory,
    supports: &'a dyn Fn(TensorType) -> bool,
    taken: HashSet<&'a str>,
}

impl<'a> Shelf<'a> {
    pub(super) fn new(
        directory: &'a Directory,
        supports: &'a dyn Fn(TensorType) -> bool,
    ) -> Shelf<'a> {
        Shelf {
            directory,
            supports,
            taken: HashSet::new(),
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.directory.tensor(name).is_some()
    }

    /// Rows of a matrix that is there, 0 where it is not.
    pub(super) fn n_rows(&self, name: &str) -> usize {
        let info = self.directory.tensor(name);
        info.and_then(|info| usize::try_from(info.shape.n_rows()).ok())
            .unwrap_or(0)
    }

    /// `NAME.weight`, and `NAME.bias` where there is one.
    pub(super) fn norm(
        &mut self,
        name: &str,
        len: usize,
        biased: bool,
    ) -> Result<Norm<LazyTensor>, PlanError> {
        let bias = format!("{name}.bias");
        Ok(Norm {
            weight: self.vector(&format!("{name}.weight"), len)?,
            bias: if biased && self.has(&bias) {
                Some(self.vector(&bias, len)?)
            } else {
                None
            },
        })
    }

    /// `NAME.weight`, and `NAME.bias` where there is one.
    pub(super) fn linear(
        &mut self,
        name: &str,
        n_out: usize,
        n_in: usize,
    ) -> Result<Linear<LazyTensor>, PlanError> {
        let [linear] = self.linears(name, [n_out], n_in)?;
        Ok(linear)
    }

    /// Projections of one input whose rows follow one another in one tensor, and whose biases do likewise.
    pub(super) fn linears<const N: usize>(
        &mut self,
        name: &str,
        n_outs: [usize; N],
        n_in: usize,
    ) -> Result<[Linear<LazyTensor>; N], PlanError> {
        let n_out: usize = n_outs.iter().sum();
        let weight = self.matrix(&format!("{name}.weight"), n_out, n_in)?;
        let bias = format!("{name}.bias");
        let bias = if self.has(&bias) {
            Some(self.vector(&bias, n_out)?)
        } else {
            None
        };
        let mut end = 0;
        Ok(n_outs.map(|n_out| {
            let rows = end..end + n_out;
            end = rows.end;
            Linear {
                weight: weight.rows(rows.clone()),
                bias: bias.as_ref().map(|bias| bias.rows(rows)),
            }
        }))
    }

    /// As [`Shelf::linears`], for each expert.
    pub(super) fn expert_linears<const N: usize>(
        &mut self,
        name: &str,
        n_experts: usize,
        n_outs: [usize; N],
        n_in: usize,
    ) -> Result<Vec<[Linear<LazyTensor>; N]>, PlanError> {
        let n_out: usize = n_outs.iter().sum();
        let weights = self.stack(&format!("{name}.weight"), n_experts, &[n_out, n_in])?;
        let bias = format!("{name}.bias");
        let biases = if self.has(&bias) {
            Some(self.stack(&bias, n_experts, &[n_out])?)
        } else {
            None
        };
        let linears = weights.iter().enumerate().map(|(expert, weight)| {
            let bias = biases.as_ref().map(|biases| &biases[expert]);
            let mut end = 0;
            n_outs.map(|n_out| {
                let rows = end..end + n_out;
                end = rows.end;
                Linear {
                    weight: weight.rows(rows.clone()),
                    bias: bias.map(|bias| bias.rows(rows)),
                }
            })
        });
        Ok(linears.collect())
    }

    pub(super) fn matrix(
        &mut self,
        name: &str,
        n_out: usize,
        n_in: usize,
    ) -> Result<LazyTensor, PlanError> {
        let info = self.take(name, &[n_out, n_in])?;
        self.check_type(info, 2)?;
        Ok(whole(info, &[n_out, n_in], ExtentId(info.extents.start)))
    }

    /// Norms, biases and rope factors are few bytes, and files keep them in f32.
    pub(super) fn vector(&mut self, name: &str, len: usize) -> Result<LazyTensor, PlanError> {
        let info = self.take(name, &[len])?;
        self.check_type(info, 1)?;
        Ok(whole(info, &[len], ExtentId(info.extents.start)))
    }

    /// Each expert's share of a tensor, an extent of its own.
    fn stack(
        &mut self,
        name: &str,
        n_experts: usize,
        shape: &[usize],
    ) -> Result<Vec<LazyTensor>, PlanError> {
        let info = self.take(name, &[&[n_experts], shape].concat())?;
        self.check_type(info, shape.len())?;
        let first = whole(info, shape, ExtentId(info.extents.start));
        let extents = info.extent_ids();
        Ok(extents
            .map(|extent| LazyTensor {
                extent,
                ..first.clone()
            })
            .collect())
    }

    /// Marks a tensor of a known shape as known, though nothing will read it.
    pub(super) fn pass_over(&mut self, name: &str, shape: &[usize]) -> Result<(), PlanError> {
        self.take(name, shape).map(drop)
    }

    fn take(&mut self, name: &str, shape: &[usize]) -> Result<&'a TensorInfo, PlanError> {
        let info = self.directory.require(name)?;
        let expected: Vec<u64> = shape.iter().rev().map(|&dim| dim as u64).collect();
        if !same_dims(info.shape.dims(), &expected) {
            return Err(PlanError::Shape {
                name: info.name.clone(),
                found: info.shape.dims().to_vec(),
                expected,
            });
        }
        self.taken.insert(&info.name);
        Ok(info)
    }

    fn check_type(&self, info: &TensorInfo, dims: usize) -> Result<(), PlanError> {
        let supported = match dims {
            1 => info.tensor_type == TensorType::F32,
            _ => (self.supports)(info.tensor_type),
        };
        if supported {
            return Ok(());
        }
        Err(PlanError::TensorType {
            name: info.name.clone(),
            tensor_type: info.tensor_type,
        })
    }

    /// A tensor that no layer uses changes the model in a way that the forward pass does not know: better no answer than a wrong one.
    pub(super) fn refuse_the_rest(&self, architecture: &str) -> Result<(), PlanError> {
        let mut tensors = self.directory.tensors().iter();
        match tensors.find(|info| !self.taken.contains(info.name.as_str())) {
            None => Ok(()),
            Some(info) => Err(PlanError::Unused {
                name: info.name.clone(),
                architecture: architecture.to_owned(),
            }),
        }
    }
}

impl LazyTensor {
    /// Some of its rows (elements, of a vector).
    fn rows(&self, rows: Range<usize>) -> LazyTensor {
        let n_rows = self.shape[0];
        if rows == (0..n_rows) {
            return self.clone();
        }
        let row_bytes = self.bytes.len() / n_rows;
        let mut shape = self.shape.to_vec();
        shape[0] = rows.len();
        let start = self.bytes.start;
        LazyTensor {
            shape: shape.into(),
            bytes: start + rows.start * row_bytes..start + rows.end * row_bytes,
            ..self.clone()
        }
    }
}

/// All of an extent. Its length fits the shape: the directory was checked when it was read.
fn whole(info: &TensorInfo, shape: &[usize], extent: ExtentId) -> LazyTensor {
    let len_bytes = info.len_bytes / u64::from(info.extents.end - info.extents.start).max(1);
    let len = usize::try_from(len_bytes).expect("a file that is mapped fits an address");
    LazyTensor {
        name: Arc::from(info.name.as_str()),
        tensor_type: info.tensor_type,
        shape: shape.into(),
        extent,
        bytes: 0..len,
    }
}

/// Whether the dimensions are the expected ones, trailing ones aside.
fn same_dims(found: &[u64], expected: &[u64]) -> bool {
    let (head, tail) = found.split_at(found.len().min(expected.len()));
    let (wanted, rest) = expected.split_at(head.len());
    head == wanted && tail.iter().chain(rest).all(|&dim| dim == 1)
}
