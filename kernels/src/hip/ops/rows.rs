//! Operations that look at one row at a time.

use super::{Activations, Hip, HipError, View};
use crate::RowIndex;
use crate::hip::activations::Form;
use crate::hip::launch::rowwise::{
    self, Activate, Add, Function, GatherRows, HeadNorm, LayerNorm, RmsNorm,
};
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

    pub(crate) fn head_norm(
        &self,
        [rows, n_heads, n]: [usize; 3],
        x: &mut Activations,
        weight: &View,
        eps: f32,
    ) -> Result<(), HipError> {
        let op = HeadNorm {
            x: x.write_numbers(),
            weight,
            rows,
            n_heads,
            n,
            eps,
        };
        rowwise::head_norm(self.stream(), self.kernels(), op)
    }

    pub(crate) fn layer_norm(
        &self,
        [rows, n]: [usize; 2],
        x: &Activations,
        (weight, bias): (&View, Option<&View>),
        eps: f32,
        out: &mut Activations,
    ) -> Result<(), HipError> {
        let op = LayerNorm {
            x: x.numbers(),
            weight,
            bias,
            out: out.write_forms(&ANY_FORM),
            rows,
            n,
            eps,
        };
        rowwise::layer_norm(self.stream(), self.kernels(), op)
    }

    pub(crate) fn scale(
        &self,
        count: usize,
        x: &mut Activations,
        factor: f32,
    ) -> Result<(), HipError> {
        let op = Add {
            x: x.write_numbers(),
            y: None,
            rows: 1,
            y_rows: 1,
            n: count,
            scale: factor,
        };
        rowwise::add(self.stream(), self.kernels(), op)
    }

    pub(crate) fn clear(&self, count: usize, x: &mut Activations) -> Result<(), HipError> {
        let numbers = x.write_numbers().slice(0..count * size_of::<f32>())?;
        self.stream().fill(&numbers, 0)
    }

    pub(crate) fn soft_cap(
        &self,
        count: usize,
        x: &mut Activations,
        cap: f32,
    ) -> Result<(), HipError> {
        rowwise::soft_cap(self.stream(), self.kernels(), x.write_numbers(), count, cap)
    }

    pub(crate) fn activate_alone(
        &self,
        [rows, n]: [usize; 2],
        x: &mut Activations,
        activation: Activation,
    ) -> Result<(), HipError> {
        let numbers = x.numbers().clone();
        let op = Activate {
            gate: &numbers,
            up: None,
            out: x.write_forms(&ANY_FORM),
            rows,
            n,
            function: function(activation),
        };
        rowwise::activate(self.stream(), self.kernels(), op)
    }

    pub(crate) fn gate_rows(
        &self,
        shape: [usize; 2],
        x: &mut Activations,
        gate: &Activations,
    ) -> Result<(), HipError> {
        let x = x.write_numbers();
        rowwise::gate_rows(self.stream(), self.kernels(), x, gate.numbers(), shape)
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
