//! Tensors and stores are checked when they are made.

use std::sync::Arc;

use gguf::TensorType;
use kernels::{Device, KvShape, KvStore, KvType, OpError, Owner, Tensor};

use crate::support::{all_devices, refused, tensor, zeros};

const SHAPE: KvShape = KvShape {
    n_layers: 2,
    n_blocks: 3,
    block_len: 4,
    n_kv_heads: 2,
    head_dim_k: 8,
    head_dim_v: 6,
    kv_type: KvType::F32,
};

#[test]
fn tensors_are_checked_when_they_are_made() {
    let device = Device::reference();
    let huge = Tensor::zeros(&device, &[usize::MAX, 2]).expect_err("too large");
    assert_eq!(
        huge.to_string(),
        format!("no memory for shape [{}, 2]", usize::MAX)
    );
    assert!(matches!(
        Tensor::zeros(&device, &[1 << 45, 1 << 10]),
        Err(OpError::Memory { .. })
    ));
    assert!(matches!(
        Tensor::from_f32(&device, &[2, 3], &[0.0; 5]),
        Err(OpError::Bytes {
            expected: Some(24),
            found: 20,
            ..
        })
    ));

    let owner: Owner = Arc::new(vec![0_u8; 68]);
    let make = |shape: &[usize], range| {
        Tensor::from_owner(&device, TensorType::Q8_0, shape, Arc::clone(&owner), range)
            .map(|tensor| tensor.shape().to_vec())
    };
    assert_eq!(make(&[2, 32], 0..68), Ok(vec![2, 32]));
    assert_eq!(
        make(&[2, 32], 0..67).map_err(|error| error.to_string()),
        Err("a Q8_0 tensor of shape [2, 32] needs Some(68) bytes, found 67".to_owned())
    );
    for (shape, range) in [
        ([2, 32], 34..102),
        ([1, 33], 0..34),
        ([usize::MAX, usize::MAX / 32 * 32], 0..68),
    ] {
        assert!(
            matches!(make(&shape, range), Err(OpError::Bytes { .. })),
            "{shape:?}"
        );
    }
    #[expect(clippy::reversed_empty_ranges, reason = "a hostile range")]
    let backwards = make(&[2, 32], 68..0);
    assert!(matches!(backwards, Err(OpError::Bytes { .. })));
}

#[test]
fn stores_are_checked_when_they_are_made() {
    let device = Device::reference();
    for shape in [
        KvShape {
            block_len: 0,
            ..SHAPE
        },
        KvShape {
            n_kv_heads: 0,
            ..SHAPE
        },
        KvShape {
            head_dim_k: 0,
            ..SHAPE
        },
    ] {
        assert!(
            matches!(KvStore::new(&device, shape), Err(OpError::Shape { .. })),
            "{shape:?}"
        );
    }
    assert!(matches!(
        KvStore::new(
            &device,
            KvShape {
                n_blocks: usize::MAX,
                ..SHAPE
            }
        ),
        Err(OpError::Memory { .. })
    ));
    assert_eq!(
        KvShape {
            n_blocks: 0,
            head_dim_k: usize::MAX,
            ..SHAPE
        }
        .block_bytes(),
        None
    );
    // Heads are padded to 32 numbers: 4 positions of 2 heads of keys and of values in 2 layers.
    assert_eq!(SHAPE.block_bytes(), Some(4 * 2 * (32 + 32) * 4 * 2));
}

#[test]
fn rows_may_shrink_and_come_back() {
    for device in all_devices() {
        let mut x = tensor(&device, &[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        x.set_rows(1).expect("fewer");
        assert_eq!(
            (x.shape(), x.to_f32().expect("readable")),
            ([1, 2].as_slice(), vec![1.0, 2.0])
        );
        x.set_rows(0).expect("none");
        assert!(x.to_f32().expect("readable").is_empty());
        x.set_rows(3).expect("as many as there were");
        assert_eq!(x.to_f32().expect("readable").len(), 6);
        refused(x.set_rows(4), "no memory for shape [4, 2]");
        assert!(matches!(
            x.set_rows(usize::MAX),
            Err(OpError::Memory { .. })
        ));
        let mut empty = zeros(&device, &[1, 2, 0]);
        assert!(matches!(
            empty.set_rows(usize::MAX),
            Err(OpError::Memory { .. })
        ));
    }
}
