//! Models in several files.

use gguf::{Directory, ExtentId, ParseError, SplitFault, TensorType, write::Writer};

/// Part `number` of `count` with the tensors `names`, eight floats each.
fn part(number: u16, count: u16, tensor_count: Option<i32>, names: &[&str]) -> Directory {
    let mut writer = Writer::new()
        .metadata("general.name", format!("part {number}"))
        .metadata("split.no", number)
        .metadata("split.count", count);
    if let Some(tensor_count) = tensor_count {
        writer = writer.metadata("split.tensors.count", tensor_count);
    }
    for name in names {
        writer = writer.tensor(*name, &[8], TensorType::F32);
    }
    writer.finish().expect("valid").directory
}

fn whole() -> Directory {
    Writer::new()
        .tensor("w", &[8], TensorType::F32)
        .finish()
        .expect("valid")
        .directory
}

#[test]
fn parts_join_in_order() {
    let experts = Writer::new()
        .alignment(64)
        .metadata("split.no", 1u16)
        .metadata("split.count", 3u16)
        .tensor("blk.0.ffn_up_exps.weight", &[4, 2, 3], TensorType::F32)
        .finish()
        .expect("valid");
    // As llama.cpp writes it with a first part of metadata alone.
    let parts = vec![
        part(0, 3, Some(3), &[]),
        experts.directory.clone(),
        part(2, 3, None, &["a", "b"]),
    ];
    assert_eq!(
        parts[1].split().map(|split| (split.number, split.count)),
        Some((1, 3))
    );
    let header_lens: Vec<u64> = parts.iter().map(|part| part.header_len(0)).collect();
    let joined = Directory::join(parts).expect("the parts belong together");

    assert_eq!(
        (joined.split_count(), joined.split(), joined.alignment()),
        (3, None, 32)
    );
    assert_eq!(
        (0..3)
            .map(|split| joined.header_len(split))
            .collect::<Vec<_>>(),
        header_lens
    );
    assert_eq!(
        joined.metadata().get_str("general.name"),
        Ok(Some("part 0"))
    );
    let places: Vec<_> = joined
        .tensors()
        .iter()
        .map(|tensor| {
            (
                tensor.name.as_str(),
                tensor.split_index,
                tensor.extents.clone(),
            )
        })
        .collect();
    assert_eq!(
        places,
        [
            ("blk.0.ffn_up_exps.weight", 1, 0..3),
            ("a", 2, 3..4),
            ("b", 2, 4..5)
        ]
    );
    let last = joined.require("b").expect("it is in the third part");
    let extent = joined.extent(ExtentId(last.extents.start));
    assert_eq!(
        (extent.split_index, extent.offset_bytes, extent.len_bytes),
        (2, last.offset_bytes, 32)
    );
    assert_eq!(joined.tensor_bytes(), 3 * 32 + 2 * 32);
    assert_eq!(joined.get_extent(ExtentId(5)), None);
}

#[test]
fn a_whole_model_joins_with_itself_alone() {
    assert_eq!(Directory::join(vec![whole()]), Ok(whole()));
    // What merging tools leave behind.
    let merged = Writer::new()
        .metadata("split.no", 0u16)
        .metadata("split.count", 0u16)
        .metadata("split.tensors.count", 7i32)
        .finish()
        .expect("valid");
    assert_eq!(merged.directory.split(), None);
    assert_eq!(
        Directory::join(vec![merged.directory.clone()]),
        Ok(merged.directory)
    );
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    let check = |parts: Vec<Directory>, expected: SplitFault| {
        assert_eq!(Directory::join(parts), Err(ParseError::Split(expected)))
    };
    let first = || part(0, 2, Some(2), &["a"]);
    let second = || part(1, 2, Some(2), &["b"]);
    assert!(Directory::join(vec![first(), second()]).is_ok());

    check(vec![], SplitFault::NoParts);
    check(
        vec![first()],
        SplitFault::Count {
            part: 0,
            declared: 2,
            given: 1,
        },
    );
    check(
        vec![first(), second(), second()],
        SplitFault::Count {
            part: 0,
            declared: 2,
            given: 3,
        },
    );
    check(
        vec![second(), first()],
        SplitFault::Order { part: 0, number: 1 },
    );
    check(
        vec![first(), first()],
        SplitFault::Order { part: 1, number: 0 },
    );
    check(vec![first(), whole()], SplitFault::NotASplit { part: 1 });
    check(vec![whole(), whole()], SplitFault::NotASplit { part: 0 });
    check(
        vec![first(), part(1, 2, None, &["b", "c"])],
        SplitFault::TensorCount {
            declared: 2,
            found: 3,
        },
    );
    check(
        vec![part(0, 2, None, &["a"]), part(1, 2, Some(1), &["b"])],
        SplitFault::TensorCount {
            declared: 1,
            found: 2,
        },
    );
    let joined = Directory::join(vec![first(), second()]).expect("valid");
    check(vec![joined, second()], SplitFault::NotASplit { part: 0 });
}

#[test]
fn a_tensor_in_two_parts_is_refused() {
    let error = Directory::join(vec![part(0, 2, None, &["a"]), part(1, 2, None, &["a"])])
        .expect_err("doubled");
    assert_eq!(error.to_string(), "tensor 'a': duplicate name");
}
