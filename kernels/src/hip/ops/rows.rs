//! Operations that look at one row at a time.

use super::{Activations, Hip, HipError, View};
use crate::RowIndex;
use crate::hip::activations::Form;
use crate::hip::launch::rowwise::{self, Activate, Add, Function, GatherRows, RmsNorm};
use crate::ops::Activation;

/// Kernels that look at a whole row write it in any form.
const ANY_FORM: [Form; 2] = [Form::Int8, Form::Half];

impl Hip {
    pub(crate) fn rms_norm(
        &self,
        [rows, n]: [usize; 2],
        x: &Activations,
        weight: &View,
        eps: f32,
        out: &mut Activations,
    ) -> Result<(), HipError> {
        let op = RmsNorm {
            x: x.numbers(),
            add: None,
            weight,
            out: out.write_forms(&ANY_FORM),
            rows,
            n,
            eps,
        };
        rowwise::rms_norm(self.stream(), self.kernels(), op)
    }

    pub(crate) fn add(
        &self,
        [rows, n]: [usize; 2],
        x: &mut Activations,
        y: &Activations,
    ) -> Result<(), HipError> {
        let op = Add {
            x: x.write_numbers(),
            y: Some(y.numbers()),
            rows,
            y_rows: rows,
            n,
            scale: 1.0,
        };
        rowwise::add(self.stream(), self.kernels(), op)
    }

    pub(crate) fn activate(
        &self,
        [rows, n]: [usize; 2],
        gate: &Activations,
        up: &Activations,
        activation: Activation,
        out: &mut Activations,
    ) -> Result<(), HipError> {
        let op = Activate {
            gate: gate.numbers(),
            up: Some(up.numbers()),
            out: out.write_forms(&ANY_FORM),
            rows,
            n,
            function: function(activation),
        };
        rowwise::activate(self.stream(), self.kernels(), op)
    }

    pub(crate) fn gather_rows(
        &self,
        rows: &RowIndex,
        n: usize,
        x: &Activations,
        out: &mut Activations,
    ) -> Result<(), HipError> {
        if rows.n_logit_rows() == 0 {
            return Ok(());
        }
        let list = self.lists(rows).logit_rows_view()?;
        let op = GatherRows {
            x: x.numbers(),
            rows: &list,
            out: out.write_numbers(),
            n_rows: rows.n_logit_rows(),
            n,
        };
        // SAFETY: the index let no logit row pass that is not below the number of rows, which `x` has.
        unsafe { rowwise::gather_rows(self.stream(), self.kernels(), op) }
    }
}

/// The kernels' name of an activation.
pub(super) fn function(activation: Activation) -> Function {
    match activation {
        Activation::Silu => Function::Silu,
        Activation::GeluTanh => Function::GeluTanh,
        Activation::Gelu => Function::Gelu,
        Activation::ReluSquared => Function::ReluSquared,
        Activation::Clamped => Function::SwigluClamped,
    }
}
