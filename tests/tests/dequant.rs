//! What the bytes of each tensor type mean, against values that other implementations agree on bit by bit.
//!
//! Runs by `just oracle`, with `HEARTH_ORACLE` set; it fails where the references are missing.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use e2e::oracle::{Blocks, Expected, Oracle};
use gguf::TensorType;
use kernels::{Device, Owner, Tensor};

/// Types that the manifest may hold and that are refused by name.
const REFUSED: [TensorType; 3] = [TensorType::IQ2_XXS, TensorType::IQ3_S, TensorType::TQ2_0];

#[test]
fn every_block_unpacks_to_the_same_bits() -> Result<()> {
    let oracle = Oracle::from_env()?;
    let case = oracle.unpacked.first();
    let case = case.context("the manifest holds no blocks")?;
    let expected = Expected::read(&oracle.root.join(&case.file))?;
    ensure!(!case.types.is_empty(), "the manifest names no types");
    for blocks in &case.types {
        let tensor_type = TensorType::from_id(blocks.type_id).context("an unknown type")?;
        ensure!(tensor_type.name() == blocks.tensor_type);
        if REFUSED.contains(&tensor_type) {
            ensure!(!Device::reference().supports(tensor_type));
            println!("{tensor_type:>8}: refused by name");
            continue;
        }
        check(tensor_type, blocks, &expected)?;
    }
    Ok(())
}

fn check(tensor_type: TensorType, blocks: &Blocks, expected: &Expected) -> Result<()> {
    let name = tensor_type.name();
    let wanted = expected.values(&format!("{name}.f32"))?;
    let raw = expected.values(&format!("{name}.raw"))?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "bytes that were read as numbers"
    )]
    let mut bytes: Vec<u8> = raw.iter().map(|byte| *byte as u8).collect();
    ensure!(wanted.len() == blocks.elements && !wanted.is_empty());
    let found = unpacked(tensor_type, wanted.len(), &bytes)?;
    let bits =
        |values: &[f32]| -> Vec<u32> { values.iter().map(|value| value.to_bits()).collect() };
    let differing = bits(&found)
        .iter()
        .zip(bits(wanted))
        .position(|(found, wanted)| *found != wanted);
    if let Some(index) = differing {
        anyhow::bail!(
            "{name}: element {index} is {}, expected {}",
            found[index],
            wanted[index]
        );
    }
    // The comparison can fail: one bit of the last block's quants moves a value.
    let quant = bytes.len() - tensor_type.block_bytes() / 2;
    bytes[quant] ^= 0x10;
    ensure!(
        bits(&unpacked(tensor_type, wanted.len(), &bytes)?) != bits(wanted),
        "{name}: a flipped bit went unseen"
    );
    println!("{tensor_type:>8}: {} values, bit by bit", wanted.len());
    Ok(())
}

fn unpacked(tensor_type: TensorType, len: usize, bytes: &[u8]) -> Result<Vec<f32>> {
    let owner: Owner = Arc::new(bytes.to_vec());
    let tensor = Tensor::from_owner(
        &Device::reference(),
        tensor_type,
        &[len],
        owner,
        0..bytes.len(),
    )?;
    Ok(tensor.to_f32()?)
}
