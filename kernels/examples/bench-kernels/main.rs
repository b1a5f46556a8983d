//! Times the kernels on a GPU, for the shapes of an 8B model: `bench-kernels [HIP library [WHAT…]]`. WHAT: tensor types, `prefill`, `attention`, `layer`; all without.
//!
//! Products are first compared with sums in f64; then each is recorded into a graph that goes round enough copies of its weights to leave no cache of use. A table says bytes per second and the
//! share of what a copy on the device moves (bytes read and written), or floating-point operations per second.

#![allow(clippy::print_stdout, reason = "a program whose output is a table")]
#![allow(
    unsafe_code,
    reason = "launches that follow indices in device memory; each says why they exist"
)]

mod attention;
mod bench;
mod inputs;
mod products;

use std::path::PathBuf;

use gguf::TensorType;
use kernels::hip::launch::Kernels;
use kernels::hip::{Gpu, Library, Stream};

use bench::{Bench, Outcome};

/// Query, key and value; attention's output; the feed-forward network's second and first half.
const SHAPES: [[usize; 2]; 4] = [[6144, 4096], [4096, 4096], [4096, 14336], [14336, 4096]];
const TYPES: [TensorType; 15] = [
    TensorType::Q4_K,
    TensorType::Q6_K,
    TensorType::Q8_0,
    TensorType::Q4_0,
    TensorType::Q4_1,
    TensorType::Q5_0,
    TensorType::Q5_1,
    TensorType::Q2_K,
    TensorType::Q3_K,
    TensorType::Q5_K,
    TensorType::IQ4_NL,
    TensorType::IQ4_XS,
    TensorType::MXFP4,
    TensorType::F16,
    TensorType::BF16,
];
fn main() -> Outcome<()> {
    let library = Library::open(std::env::args_os().nth(1).map(PathBuf::from).as_deref())?;
    let wanted: Vec<String> = std::env::args().skip(2).collect();
    let is_wanted = |what: &str| wanted.is_empty() || wanted.iter().any(|name| name == what);
    let gpu = Gpu::open(&library, 0)?;
    let bench = Bench {
        kernels: Kernels::load(&gpu)?,
        stream: Stream::new(&gpu)?,
        gpu,
    };
    println!("{} ({})", bench.gpu.name(), bench.gpu.architecture());
    let copied = bench.copy_rate()?;
    println!("copy on the device: {copied:.0} GB/s read and written\n");
    println!(
        "{:<7} {:>6} x {:<6} {:>7} {:>6} {:>5}   gated   rows 16   rows 64 (GB/s of weights)",
        "matvec", "out", "in", "us", "GB/s", "%"
    );
    for tensor_type in TYPES.into_iter().filter(|t| is_wanted(t.name())) {
        for shape in SHAPES {
            bench.products(tensor_type, shape, copied)?;
        }
    }
    println!();
    if is_wanted("prefill") {
        for tensor_type in [TensorType::Q4_K, TensorType::Q6_K, TensorType::F16] {
            for shape in SHAPES {
                bench.prefill(tensor_type, shape)?;
            }
        }
    }
    println!();
    if is_wanted("layer") {
        bench.layer()?;
    }
    if is_wanted("attention") {
        for (rows, len) in [(1, 512), (1, 2048), (1, 8192), (64, 512), (64, 2048)] {
            bench.decode_attention(rows, len)?;
        }
        bench.prefill_attention(2048)?;
    }
    Ok(())
}
