//! Products.

use gguf::TensorType;

use super::{Activations, Hip, HipError, View, view_of};
use crate::hip::activations::Form;
use crate::hip::device::Purpose;
use crate::hip::launch::embed::{self, Embed};
use crate::hip::launch::few;
use crate::hip::launch::matrix::{self, GROUP_MAX, Gated, Product, Rows, Tile, Weights};
use crate::hip::launch::rowwise::{self, Activate};
use crate::hip::ops::rows::function;
use crate::operands::Keep;
use crate::ops::Activation;
use crate::{Linear, RowIndex, Tensor};

/// Up to so many rows meet the weights as dot products, which read them once for each four rows; more meet them on matrix cores.
const DOT_ROWS_MAX: usize = 4;
/// Up to so many rows share the unpacking of each weight, in registers; more make tiles in block memory.
const FEW_ROWS_MAX: usize = 64;

/// How rows meet weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// As dot products.
    Dots,
    /// On matrix cores, up to 64 at a time.
    Few,
    /// On matrix cores, in tiles of 128.
    Wide,
}

impl Hip {
    pub(crate) fn embed(
        &self,
        rows: &RowIndex,
        table: &Tensor,
        out: &mut Activations,
    ) -> Result<(), HipError> {
        self.look_up(rows, table, out, false)
    }

    /// Rows that were added have no position, and stay as they are.
    pub(crate) fn add_positions(
        &self,
        rows: &RowIndex,
        table: &Tensor,
        out: &mut Activations,
    ) -> Result<(), HipError> {
        self.look_up(rows, table, out, true)
    }

    /// Rows of a table: those of the tokens, or, to be added, those of the positions.
    fn look_up(
        &self,
        rows: &RowIndex,
        table: &Tensor,
        out: &mut Activations,
        of_positions: bool,
    ) -> Result<(), HipError> {
        if rows.n_rows() == 0 {
            return Ok(());
        }
        let lists = self.lists(rows);
        let (ids, stride) = match of_positions {
            true => (lists.positions_view()?, 2),
            false => (lists.ids_view()?, 1),
        };
        let op = Embed {
            table: weights(table),
            ids: &ids,
            stride,
            out: out.write_numbers(),
            rows: rows.n_rows(),
            factor: 1.0,
            add: of_positions,
        };
        embed::embed(self.stream(), self.kernels(), op)
    }

    pub(crate) fn products(
        &self,
        rows: usize,
        x: &Activations,
        keep: Keep,
        mut products: Vec<(Linear<'_>, &mut Activations)>,
    ) -> Result<(), HipError> {
        if rows == 0 {
            return Ok(());
        }
        let products: Vec<Product> = products
            .iter_mut()
            .map(|(linear, out)| {
                let out = out.write_numbers();
                product(*linear, out, (keep == Keep::Sum).then_some(out))
            })
            .collect();
        self.run_products(rows, x, &products)
    }

    fn run_products(
        &self,
        rows: usize,
        x: &Activations,
        products: &[Product],
    ) -> Result<(), HipError> {
        let way = self.way(rows);
        let (mut dots, mut few): (Vec<Product>, Vec<Product>) = Default::default();
        for product in products {
            let Weights {
                tensor_type, n_in, ..
            } = product.weights;
            match way {
                Way::Wide if matrix::has_matmul(tensor_type, n_in) => {
                    self.on_wide_tiles(rows, x, *product)?;
                }
                Way::Few if matrix::has_matmul(tensor_type, n_in) => few.push(*product),
                _ => dots.push(*product),
            }
        }
        for group in few.chunks(GROUP_MAX) {
            self.on_matrix_cores(rows, x, group)?;
        }
        for group in dots.chunks(GROUP_MAX) {
            let types = group.iter().map(|product| product.weights.tensor_type);
            let x = dot_rows(x, rows, types)?;
            matrix::matvec(self.stream(), self.kernels(), group, x, rows)?;
        }
        Ok(())
    }

    /// Products of which no row depends on the rows beside it.
    fn on_matrix_cores(
        &self,
        rows: usize,
        x: &Activations,
        products: &[Product],
    ) -> Result<(), HipError> {
        let (stream, kernels) = (self.stream(), self.kernels());
        let scratch = few::scratch_bytes(kernels, products, rows).map(|[partial, counters]| {
            let partial = self.scratch(Purpose::Partial, partial)?;
            Ok((partial, self.scratch(Purpose::Counters, counters)?))
        });
        let scratch = scratch.transpose()?;
        let scratch = scratch
            .as_ref()
            .map(|(partial, counters)| [partial, counters]);
        let x = x.half(rows)?;
        // SAFETY: scratch begins as zeros, operations use it one after the other, and each leaves the counters zero.
        unsafe { few::matfew(stream, kernels, products, x, rows, scratch) }
    }

    fn on_wide_tiles(
        &self,
        rows: usize,
        x: &Activations,
        product: Product,
    ) -> Result<(), HipError> {
        let (stream, kernels) = (self.stream(), self.kernels());
        let x = x.half(rows)?;
        matrix::matmul(stream, kernels, Tile::Wide, product, x, rows)
    }

    /// How so many rows meet weights. Where a row must not depend on the others, it is always the same way.
    pub(super) fn way(&self, rows: usize) -> Way {
        if self.is_batch_invariant() {
            Way::Few
        } else if rows <= DOT_ROWS_MAX {
            Way::Dots
        } else if rows <= FEW_ROWS_MAX {
            Way::Few
        } else {
            Way::Wide
        }
    }

    pub(crate) fn gated(
        &self,
        rows: usize,
        x: &Activations,
        [gate, up]: [Linear<'_>; 2],
        activation: Activation,
        out: &mut Activations,
    ) -> Result<(), HipError> {
        let n_out = gate.weight.n_rows();
        if rows == 0 {
            return Ok(());
        }
        let tensor_type = gate.weight.tensor_type();
        let on_matrix_cores =
            self.way(rows) != Way::Dots && matrix::has_matmul(tensor_type, gate.weight.row_len());
        if tensor_type == up.weight.tensor_type() && !on_matrix_cores {
            let op = Gated {
                gate: weights(gate.weight),
                up: weights(up.weight),
                gate_bias: gate.bias.map(view_of),
                up_bias: up.bias.map(view_of),
                function: function(activation),
                x: dot_rows(x, rows, [tensor_type])?,
                out: out.write_forms(&[Form::Int8]),
                rows,
            };
            return matrix::gated_matvec(self.stream(), self.kernels(), op);
        }
        let bytes = rows * n_out * size_of::<f32>();
        let scratch = self.scratch(Purpose::Gates, 2 * bytes)?;
        let (gates, ups) = (scratch.slice(0..bytes)?, scratch.slice(bytes..2 * bytes)?);
        let products = [product(gate, &gates, None), product(up, &ups, None)];
        self.run_products(rows, x, &products)?;
        let op = Activate {
            gate: &gates,
            up: Some(&ups),
            out: out.write_forms(&[Form::Int8, Form::Half]),
            rows,
            n: n_out,
            function: function(activation),
        };
        rowwise::activate(self.stream(), self.kernels(), op)
    }
}

fn weights(tensor: &Tensor) -> Weights<'_> {
    Weights {
        view: view_of(tensor),
        tensor_type: tensor.tensor_type(),
        n_out: tensor.n_rows(),
        n_in: tensor.row_len(),
    }
}

fn product<'a>(linear: Linear<'a>, out: &'a View, add: Option<&'a View>) -> Product<'a> {
    Product {
        weights: weights(linear.weight),
        bias: linear.bias.map(view_of),
        add,
        out,
    }
}

/// Activations in the forms that dot products with weights of these types want.
pub(super) fn dot_rows(
    x: &Activations,
    rows: usize,
    types: impl IntoIterator<Item = TensorType>,
) -> Result<Rows<'_>, HipError> {
    let quantised = types
        .into_iter()
        .any(|tensor_type| !matrix::is_float(tensor_type));
    Ok(Rows {
        f32: Some(x.numbers()),
        int8: match quantised {
            true => x.int8(rows)?,
            false => None,
        },
    })
}
