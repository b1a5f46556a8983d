//! Operations whose kernels are not in this build yet: they are refused by name.

use super::{Activations, Hip, HipError};
use crate::operands::Keep;
use crate::ops::Activation;
use crate::{AttentionParams, KvStore, Linear, Picks, RopeTable, RowIndex, Tensor};

fn refused(op: &'static str) -> Result<(), HipError> {
    Err(HipError::NoKernel { op })
}

impl Hip {
    pub(crate) fn embed(
        &self,
        _: &RowIndex,
        _: &Tensor,
        _: &mut Activations,
    ) -> Result<(), HipError> {
        refused("embed")
    }

    pub(crate) fn gated(
        &self,
        _: usize,
        _: &Activations,
        _: [Linear<'_>; 2],
        _: Activation,
        _: &mut Activations,
    ) -> Result<(), HipError> {
        refused("gated")
    }

    pub(crate) fn products(
        &self,
        _: usize,
        _: &Activations,
        _: Keep,
        _: Vec<(Linear<'_>, &mut Activations)>,
    ) -> Result<(), HipError> {
        refused("matmul")
    }

    pub(crate) fn rope_and_write(
        &self,
        _: &RowIndex,
        _: &RopeTable,
        _: [&mut Activations; 2],
        _: &Activations,
        _: (&KvStore, usize),
    ) -> Result<(), HipError> {
        refused("rope_and_write")
    }

    pub(crate) fn attention(
        &self,
        rows: &RowIndex,
        _: &Activations,
        (store, _): (&KvStore, usize),
        _: AttentionParams<'_>,
        _: &mut Activations,
    ) -> Result<(), HipError> {
        let _ = (rows.longest(), store.memory());
        refused("attention")
    }

    pub(crate) fn argmax(
        &self,
        _: [usize; 2],
        _: &Activations,
        picks: &Picks,
    ) -> Result<(), HipError> {
        let _ = picks.memory();
        refused("argmax")
    }
}
