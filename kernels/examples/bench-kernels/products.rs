//! Products of one row, of some and of many.

use gguf::TensorType;
use kernels::hip::View;
use kernels::hip::launch::Forms;
use kernels::hip::launch::few::{matfew, scratch_bytes};
use kernels::hip::launch::matrix::{Gated, Product, Tile, Weights, gated_matvec, matmul, matvec};
use kernels::hip::launch::rowwise::{Function, RmsNorm, rms_norm};

use crate::bench::{Bench, Outcome};
use crate::inputs::{Input, Matrices};

const ROWS_MAX: usize = 2048;

/// With nothing added.
fn plain<'a>(weights: Weights<'a>, out: &'a View) -> Product<'a> {
    Product {
        weights,
        bias: None,
        add: None,
        out,
    }
}

impl Bench {
    pub(crate) fn products(
        &self,
        tensor_type: TensorType,
        shape: [usize; 2],
        copied: f64,
    ) -> Outcome<()> {
        let matrices = self.matrices(tensor_type, shape)?;
        let [n_out, n_in] = shape;
        let x = self.input(64, n_in)?;
        let out = self.memory(64 * n_out * 4)?;
        let product = |i: usize| plain(matrices.weights(i), &out);
        let single = |i: usize| matvec(&self.stream, &self.kernels, &[product(i)], x.rows(), 1);
        single(0)?;
        self.check(&matrices, &x, &out)?;
        let count = matrices.copies.len();
        let rate = |us: f64| matrices.bytes as f64 / us / 1e3;
        let us = self.time(count, single)?;
        let pair = |i: usize| {
            let op = Gated {
                gate: matrices.weights(2 * i),
                up: matrices.weights(2 * i + 1),
                gate_bias: None,
                up_bias: None,
                function: Function::Silu,
                x: x.rows(),
                out: Forms {
                    f32: Some(&out),
                    ..Forms::default()
                },
                rows: 1,
            };
            gated_matvec(&self.stream, &self.kernels, op)
        };
        let gated_us = self.time(count, pair)?;
        let mut rates = Vec::new();
        for rows in [16, 64] {
            rates.push(rate(self.few(&matrices, &x, rows, &out)?));
        }
        println!(
            "{:<7} {n_out:>6} x {n_in:<6} {us:>7.1} {:>6.0} {:>5.0} {:>7.0} {:>9.0} {:>9.0}",
            tensor_type.name(),
            rate(us),
            100.0 * rate(us) / copied,
            2.0 * rate(gated_us),
            rates[0],
            rates[1]
        );
        Ok(())
    }

    /// Microseconds of a product of some rows on matrix cores.
    fn few(&self, matrices: &Matrices, x: &Input, rows: usize, out: &View) -> Outcome<f64> {
        let product = |i: usize| plain(matrices.weights(i), out);
        let scratch = match scratch_bytes(&self.kernels, &[product(0)], rows) {
            Some([partial, counters]) => {
                let counters = self.upload(&vec![0; counters])?;
                Some((self.memory(partial)?, counters))
            }
            None => None,
        };
        let many = |i: usize| {
            let scratch = scratch
                .as_ref()
                .map(|(partial, counters)| [partial, counters]);
            // SAFETY: the counters were zeros, and launches of one stream follow each other.
            unsafe {
                matfew(
                    &self.stream,
                    &self.kernels,
                    &[product(i)],
                    x.half(),
                    rows,
                    scratch,
                )
            }
        };
        many(0)?;
        self.check(matrices, x, out)?;
        self.time(matrices.copies.len(), many)
    }

    /// What a layer runs for one row, attention aside, with weights that no cache holds: norm, query · key · value, output, norm, gate · up, down.
    pub(crate) fn layer(&self) -> Outcome<()> {
        let shapes = [
            [6144, 4096],
            [4096, 4096],
            [14336, 4096],
            [14336, 4096],
            [4096, 14336],
        ];
        let matrices = shapes
            .into_iter()
            .map(|shape| self.matrices(TensorType::Q4_K, shape))
            .collect::<Outcome<Vec<_>>>()?;
        let (x, wide) = (self.input(1, 4096)?, self.input(1, 14336)?);
        let out = self.memory(14336 * 4)?;
        let norm = |x: &Input| {
            let op = RmsNorm {
                x: &x.f32,
                add: None,
                weight: &wide.f32,
                out: Forms {
                    int8: x.rows().int8,
                    ..Forms::default()
                },
                rows: 1,
                n: 4096,
                eps: 1e-5,
            };
            rms_norm(&self.stream, &self.kernels, op)
        };
        let product = |index: usize, i: usize, x: &Input| {
            let product = plain(matrices[index].weights(i), &out);
            matvec(&self.stream, &self.kernels, &[product], x.rows(), 1)
        };
        let layer = |i: usize| {
            norm(&x)?;
            product(0, i, &x)?;
            product(1, i, &x)?;
            norm(&x)?;
            let gated = Gated {
                gate: matrices[2].weights(i),
                up: matrices[3].weights(i),
                gate_bias: None,
                up_bias: None,
                function: Function::Silu,
                x: x.rows(),
                out: Forms {
                    int8: wide.rows().int8,
                    ..Forms::default()
                },
                rows: 1,
            };
            gated_matvec(&self.stream, &self.kernels, gated)?;
            product(4, i, &wide)
        };
        let us = self.time(32, layer)?;
        let bytes: usize = matrices.iter().map(|matrices| matrices.bytes).sum();
        println!(
            "a layer for one row, Q4_K, without attention: {us:>7.1} us {:>6.0} GB/s",
            bytes as f64 / us / 1e3
        );
        Ok(())
    }

    pub(crate) fn prefill(&self, tensor_type: TensorType, shape: [usize; 2]) -> Outcome<()> {
        let matrices = self.matrices(tensor_type, shape)?;
        let [n_out, n_in] = shape;
        let x = self.input(ROWS_MAX, n_in)?;
        let out = self.memory(ROWS_MAX * n_out * 4)?;
        let many = |i: usize| {
            let product = plain(matrices.weights(i), &out);
            matmul(
                &self.stream,
                &self.kernels,
                Tile::Wide,
                product,
                x.half(),
                ROWS_MAX,
            )
        };
        many(0)?;
        self.check(&matrices, &x, &out)?;
        let us = self.time(4, many)?;
        let operations = 2.0 * (ROWS_MAX * n_out * n_in) as f64;
        println!(
            "prefill {:<5} {n_out:>6} x {n_in:<6} rows {ROWS_MAX}: {us:>8.1} us {:>6.1} TFLOP/s",
            tensor_type.name(),
            operations / us / 1e6
        );
        Ok(())
    }
}
