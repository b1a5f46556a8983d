//! Writes a model of a known shape with random weights, gigabytes in seconds: `write-model SHAPE PATH`.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use e2e::model::Llama;
use gguf::TensorType;

const SHAPES: &str = "8b-q4_k_m, 8b-q8_0, 1b-q4_k_m, 1b-q8_0, 1b-q4_0";

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let usage = || format!("usage: write-model SHAPE PATH, where SHAPE is one of {SHAPES}");
    let shape = args.next().with_context(usage)?;
    let path = PathBuf::from(args.next().with_context(usage)?);
    let (q4_k, q6_k) = (TensorType::Q4_K, Some(TensorType::Q6_K));
    let llama = match shape.as_str() {
        "8b-q4_k_m" => Llama {
            weight_type: q4_k,
            better_type: q6_k,
            ..Llama::eight_billion()
        },
        "8b-q8_0" => Llama::eight_billion(),
        "1b-q4_k_m" => Llama::one_billion(q4_k, q6_k),
        "1b-q8_0" => Llama::one_billion(TensorType::Q8_0, None),
        "1b-q4_0" => Llama::one_billion(TensorType::Q4_0, None),
        other => bail!("no shape {other}: {SHAPES}"),
    };
    let begun = Instant::now();
    let (_, tensor_bytes) = llama.write_to_cache(&path)?;
    writeln!(
        std::io::stdout(),
        "{}: {tensor_bytes} bytes of tensors in {:.1?}",
        path.display(),
        begun.elapsed()
    )?;
    Ok(())
}
