//! Products of some rows on matrix cores, and that a row's result is the same bits in any company.

use gguf::TensorType;
use kernels::hip::View;
use kernels::hip::launch::few::{matfew, scratch_bytes};
use kernels::hip::launch::matrix::Product;

use super::cases::Random;
use super::products::{Input, Matrix, check_on_matrix_cores};
use super::support::{downloaded, kernels, memory, stream, uploaded};

/// Multiplies with or without memory for partial sums.
fn multiply(products: &[Product], x: &Input, rows: usize, apart: bool) {
    let stream = stream();
    let bytes = scratch_bytes(&kernels(), products, rows).filter(|_| apart);
    let scratch =
        bytes.map(|[partial, counters]| (memory(partial), uploaded(&vec![0u8; counters])));
    let views = scratch
        .as_ref()
        .map(|(partial, counters)| [partial, counters]);
    // SAFETY: the counters are zeros of this call's own.
    unsafe { matfew(&stream, &kernels(), products, x.half(), rows, views) }.expect("enqueued");
    if let Some((_, counters)) = &scratch {
        assert!(
            downloaded::<u8>(&stream, counters)
                .iter()
                .all(|&byte| byte == 0),
            "counters are left zero"
        );
    }
    stream.synchronize().expect("done");
}

#[test]
fn some_rows_meet_weights_on_matrix_cores() {
    let shapes = [
        [1, 5, 32],
        [3, 130, 2304],
        [16, 65, 544],
        [17, 66, 1056],
        [34, 131, 1120],
        [65, 3, 96],
    ];
    check_on_matrix_cores(&shapes, |_, product, x, rows| {
        multiply(&[product], x, rows, true);
    });
}

#[test]
fn a_row_has_the_same_bits_beside_any_others() {
    const ROWS: usize = 70;
    const N_IN: usize = 2304;
    let mut random = Random::new(5);
    let types = [
        (TensorType::Q4_K, 70),
        (TensorType::Q6_K, 9),
        (TensorType::F16, 64),
    ];
    let matrices =
        types.map(|(tensor_type, n_out)| Matrix::random(tensor_type, [n_out, N_IN], &mut random));
    let all = Input::random(ROWS, N_IN, &mut random);
    let run = |matrices: &[Matrix], x: &Input, rows: usize, apart: bool| -> Vec<Vec<u32>> {
        let outs: Vec<View> = matrices
            .iter()
            .map(|matrix| memory(rows * matrix.n_out * 4))
            .collect();
        let pairs = matrices.iter().zip(&outs);
        let products: Vec<Product> = pairs
            .map(|(matrix, out)| Product {
                weights: matrix.weights(),
                bias: None,
                add: None,
                out,
            })
            .collect();
        multiply(&products, x, rows, apart);
        outs.iter().map(|out| downloaded(&stream(), out)).collect()
    };
    let together = run(&matrices, &all, ROWS, true);
    assert_eq!(
        run(&matrices, &all, ROWS, false),
        together,
        "split by split or not"
    );
    for first in [0, 33, 69] {
        for rows in [1, 20].into_iter().filter(|rows| first + rows <= ROWS) {
            let numbers = all.numbers[first * N_IN..(first + rows) * N_IN].to_vec();
            let x = Input::of(numbers, rows, N_IN);
            for (index, matrix) in matrices.iter().enumerate() {
                let found = run(std::slice::from_ref(matrix), &x, rows, true);
                let expected =
                    &together[index][first * matrix.n_out..(first + rows) * matrix.n_out];
                assert_eq!(found[0], expected, "{rows} rows from {first}");
            }
        }
    }
}
