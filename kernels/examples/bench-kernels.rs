//! Times the kernels on a GPU, for the shapes of an 8B model: `bench-kernels [HIP library [WHAT…]]`. WHAT: tensor types, `prefill`, `attention`, `layer`; all without.
//!
//! Products are first compared with sums in f64; then each is recorded into a graph that goes round enough copies of its weights to leave no cache of use. A table says bytes per second and the
//! share of what a copy on the device moves (bytes read and written), or floating-point operations per second.

#![allow(clippy::print_stdout, reason = "a program whose output is a table")]
#![allow(
    unsafe_code,
    reason = "launches that follow indices in device memory; each says why they exist"
)]

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use gguf::TensorType;
use kernels::Device;
use kernels::hip::launch::attention::{
    Attention, Cache, SplitUnit, attention_decode, attention_prefill, counter_bytes, partial_bytes,
};
use kernels::hip::launch::few::{matfew, scratch_bytes};
use kernels::hip::launch::matrix::{
    Gated, Product, Rows, Tile, Weights, gated_matvec, matmul, matvec,
};
use kernels::hip::launch::repack::repack;
use kernels::hip::launch::rowwise::{Function, RmsNorm, rms_norm, write_forms};
use kernels::hip::launch::{Forms, Half, Int8, Kernels};
use kernels::hip::{Event, Gpu, HipError, Library, Memory, Pinned, Stream, View};
use kernels::{Owner, Tensor};

type Outcome<T> = Result<T, Box<dyn Error>>;

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
/// More than the caches of the largest GPU.
const ROUND_BYTES: usize = 300 << 20;
const ROWS_MAX: usize = 2048;

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

struct Bench {
    gpu: Arc<Gpu>,
    kernels: Kernels,
    stream: Stream,
}

/// Rows in all forms.
struct Input {
    quants: View,
    blocks: View,
    half: View,
    scales: View,
    f32: View,
    numbers: Vec<f32>,
}

impl Input {
    fn rows(&self) -> Rows<'_> {
        Rows {
            f32: Some(&self.f32),
            int8: Some(Int8 {
                quants: &self.quants,
                blocks: &self.blocks,
            }),
        }
    }

    fn half(&self) -> Half<'_> {
        Half {
            numbers: &self.half,
            scales: &self.scales,
        }
    }
}

/// Copies of one random matrix.
struct Matrices {
    tensor_type: TensorType,
    shape: [usize; 2],
    copies: Vec<View>,
    /// The first rows, unpacked by the reference.
    head: Vec<f32>,
    bytes: usize,
}

impl Matrices {
    fn weights(&self, i: usize) -> Weights<'_> {
        let [n_out, n_in] = self.shape;
        Weights {
            view: &self.copies[i % self.copies.len()],
            tensor_type: self.tensor_type,
            n_out,
            n_in,
        }
    }
}

/// Outputs that are compared.
const CHECKED: usize = 16;

impl Bench {
    fn memory(&self, len: usize) -> Outcome<View> {
        Ok(View::whole(&Memory::allocate(&self.gpu, len.max(1))?))
    }

    fn upload(&self, bytes: &[u8]) -> Outcome<View> {
        let view = self.memory(bytes.len())?;
        let mut pinned = Pinned::allocate(&self.gpu, bytes.len())?;
        pinned.bytes_mut().copy_from_slice(bytes);
        self.stream.upload(pinned, 0..bytes.len(), &view)?.wait()?;
        Ok(view)
    }

    fn download(&self, view: &View, len: usize) -> Outcome<Vec<f32>> {
        let part = view.slice(0..len * 4)?;
        let pinned = self
            .stream
            .download(&part, Pinned::allocate(&self.gpu, len * 4)?, 0..len * 4)?
            .wait()?;
        Ok(pinned
            .bytes()
            .as_chunks()
            .0
            .iter()
            .map(|&bytes| f32::from_le_bytes(bytes))
            .collect())
    }

    /// Microseconds of one of `count` things that `enqueue` enqueues, the median of five replays of all.
    fn time(&self, count: usize, enqueue: impl Fn(usize) -> Result<(), HipError>) -> Outcome<f64> {
        let graph = self.stream.capture(|_| (0..count).try_for_each(&enqueue))?;
        graph.launch(&self.stream)?;
        let mut times = Vec::new();
        for _ in 0..5 {
            let (start, end) = (Event::timed(&self.gpu)?, Event::timed(&self.gpu)?);
            self.stream.record(&start)?;
            graph.launch(&self.stream)?;
            self.stream.record(&end)?;
            end.synchronize()?;
            times.push(f64::from(end.elapsed_ms(&start)?) * 1e3 / count as f64);
        }
        times.sort_by(f64::total_cmp);
        Ok(times[2])
    }

    fn copy_rate(&self) -> Outcome<f64> {
        let bytes = 1 << 30;
        let (from, to) = (self.memory(bytes)?, self.memory(bytes)?);
        let us = self.time(4, |_| self.stream.copy(&from, &to))?;
        Ok(2.0 * bytes as f64 / us / 1e3)
    }

    fn input(&self, rows: usize, n: usize) -> Outcome<Input> {
        let numbers: Vec<f32> = (0..rows * n)
            .map(|i| (noise(i) % 2001) as f32 / 1000.0 - 1.0)
            .collect();
        let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        let ((quants, blocks), (half, scales)) = (Int8::bytes(rows, n), Half::bytes(rows, n));
        let input = Input {
            quants: self.memory(quants)?,
            blocks: self.memory(blocks)?,
            half: self.memory(half)?,
            scales: self.memory(scales)?,
            f32: self.upload(&bytes)?,
            numbers,
        };
        let int8 = Int8 {
            quants: &input.quants,
            blocks: &input.blocks,
        };
        let out = Forms {
            f32: None,
            int8: Some(int8),
            half: Some(input.half()),
        };
        write_forms(&self.stream, &self.kernels, &input.f32, [rows, n], out)?;
        Ok(input)
    }

    fn matrices(&self, tensor_type: TensorType, shape: [usize; 2]) -> Outcome<Matrices> {
        let [n_out, n_in] = shape;
        let bytes = random_blocks(tensor_type, n_out * n_in);
        let head = bytes[..CHECKED * (bytes.len() / n_out)].to_vec();
        let len = head.len();
        let owner: Owner = Arc::new(head);
        let head = Tensor::from_owner(
            &Device::reference(),
            tensor_type,
            &[CHECKED, n_in],
            owner,
            0..len,
        )?;
        let first = self.upload(&bytes)?;
        let mut copies = Vec::new();
        for _ in 0..ROUND_BYTES.div_ceil(bytes.len()).max(2) {
            let view = self.memory(bytes.len())?;
            self.stream.copy(&first, &view)?;
            repack(
                &self.stream,
                &self.kernels,
                tensor_type,
                n_out * n_in,
                &view,
            )?;
            copies.push(view);
        }
        Ok(Matrices {
            tensor_type,
            shape,
            copies,
            head: head.to_f32()?,
            bytes: bytes.len(),
        })
    }

    /// That the first outputs of the first row are what they should be, to a hundredth of what the sum's terms make on average.
    fn check(&self, matrices: &Matrices, x: &Input, out: &View) -> Outcome<()> {
        let n_in = matrices.shape[1];
        let found = self.download(out, CHECKED)?;
        for (o, &found) in found.iter().enumerate() {
            let terms = || {
                matrices.head[o * n_in..][..n_in]
                    .iter()
                    .zip(&x.numbers)
                    .map(|(&w, &x)| f64::from(w) * f64::from(x))
            };
            let (expected, size) = (
                terms().sum::<f64>(),
                terms().map(|t| t * t).sum::<f64>().sqrt(),
            );
            if (f64::from(found) - expected).abs() > 0.05 * size {
                return Err(format!(
                    "{} {:?}: output {o} is {found}, not {expected}",
                    matrices.tensor_type, matrices.shape
                )
                .into());
            }
        }
        Ok(())
    }

    fn products(&self, tensor_type: TensorType, shape: [usize; 2], copied: f64) -> Outcome<()> {
        let matrices = self.matrices(tensor_type, shape)?;
        let [n_out, n_in] = shape;
        let x = self.input(64, n_in)?;
        let out = self.memory(64 * n_out * 4)?;
        let product = |i: usize| Product {
            weights: matrices.weights(i),
            bias: None,
            add: None,
            out: &out,
        };
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
        let product = |i: usize| Product {
            weights: matrices.weights(i),
            bias: None,
            add: None,
            out,
        };
        let scratch = match scratch_bytes(&[product(0)], rows) {
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
    fn layer(&self) -> Outcome<()> {
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
            let product = Product {
                weights: matrices[index].weights(i),
                bias: None,
                add: None,
                out: &out,
            };
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

    fn prefill(&self, tensor_type: TensorType, shape: [usize; 2]) -> Outcome<()> {
        let matrices = self.matrices(tensor_type, shape)?;
        let [n_out, n_in] = shape;
        let x = self.input(ROWS_MAX, n_in)?;
        let out = self.memory(ROWS_MAX * n_out * 4)?;
        let many = |i: usize| {
            let product = Product {
                weights: matrices.weights(i),
                bias: None,
                add: None,
                out: &out,
            };
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

    /// 32 heads over 8 heads of keys, 128 numbers each: keys, values, tables, places.
    fn cache(
        &self,
        rows: usize,
        len: usize,
        place: impl Fn(usize) -> [u32; 2],
    ) -> Outcome<[View; 5]> {
        let n_blocks = rows * len.div_ceil(16);
        let bytes = n_blocks * 16 * 8 * 128 * 2;
        let (keys, values) = (self.memory(bytes)?, self.memory(bytes)?);
        self.stream.fill(&keys, 0x30)?;
        self.stream.fill(&values, 0x30)?;
        let table: Vec<u8> = (0..u32::try_from(n_blocks)?)
            .flat_map(u32::to_le_bytes)
            .collect();
        let n_rows = if rows == 1 { len } else { rows };
        let places: Vec<u8> = (0..n_rows)
            .flat_map(place)
            .flat_map(u32::to_le_bytes)
            .collect();
        let q = self.memory(n_rows * 4096 * 4)?;
        self.stream.fill(&q, 0)?;
        Ok([keys, values, self.upload(&table)?, self.upload(&places)?, q])
    }

    fn attention<'a>(
        &self,
        [keys, values, tables, places, q]: &'a [View; 5],
        rows: usize,
        len: usize,
    ) -> Attention<'a> {
        Attention {
            q,
            cache: Cache {
                keys,
                values,
                is_f32: false,
                n_blocks: keys.len() / (16 * 8 * 128 * 2),
                block_len: 16,
                n_kv_heads: 8,
                head_dim_k: 128,
                head_dim_v: 128,
                key_stride: 128,
                value_stride: 128,
            },
            tables,
            table_stride: len.div_ceil(16),
            places,
            sinks: None,
            rows,
            n_heads: 32,
            scale: 0.088,
            window: None,
            soft_cap: None,
        }
    }

    fn decode_attention(&self, rows: usize, len: usize) -> Outcome<()> {
        let last = u32::try_from(len)? - 1;
        let views = self.cache(rows, len, |r| {
            [
                u32::try_from(r)
                    .unwrap_or(0)
                    .min(u32::try_from(rows).unwrap_or(1) - 1),
                last,
            ]
        })?;
        let out = self.memory(rows * 4096 * 4)?;
        let partial = self.memory(partial_bytes(rows, 32, 128))?;
        let counters = self.memory(counter_bytes(rows, 8))?;
        self.stream.fill(&counters, 0)?;
        let forms = Forms {
            f32: Some(&out),
            ..Forms::default()
        };
        let us = self.time(20, |_| {
            // SAFETY: the tables have a block for every position of every row; the counters are zero.
            unsafe {
                attention_decode(
                    &self.stream,
                    &self.kernels,
                    self.attention(&views, rows, len),
                    SplitUnit::for_rows(rows),
                    forms,
                    [&partial, &counters],
                )
            }
        })?;
        let bytes = 2 * rows * len * 8 * 128 * 2;
        println!(
            "decode attention, {rows:>2} rows of {len:>4} positions: {us:>7.1} us {:>6.0} GB/s",
            bytes as f64 / us / 1e3
        );
        Ok(())
    }

    fn prefill_attention(&self, len: usize) -> Outcome<()> {
        let views = self.cache(1, len, |r| [0, u32::try_from(r).unwrap_or(0)])?;
        let out = self.memory(len * 4096 * 4)?;
        let tiles: Vec<u8> = (0..len / 16)
            .flat_map(|tile| [tile * 16, 16])
            .flat_map(|n| u32::try_from(n).unwrap_or(0).to_le_bytes())
            .collect();
        let tiles = self.upload(&tiles)?;
        let us = self.time(4, |_| {
            // SAFETY: tiles are 16 rows of one sequence in order; the table has a block for every position.
            unsafe {
                attention_prefill(
                    &self.stream,
                    &self.kernels,
                    self.attention(&views, len, len),
                    &out,
                    &tiles,
                    len / 16,
                )
            }
        })?;
        let operations = 4.0 * 32.0 * 128.0 * (len * len / 2) as f64;
        println!(
            "prefill attention, {len} positions: {us:>7.1} us {:>6.1} TFLOP/s",
            operations / us / 1e6
        );
        Ok(())
    }
}

/// Bits without order.
fn noise(i: usize) -> usize {
    let mixed = (i as u64 ^ 0x5bf0_3635).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    usize::try_from((mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 33).unwrap_or(0)
}

/// Random codes with small factors, so that no sum overflows.
fn random_blocks(tensor_type: TensorType, len: usize) -> Vec<u8> {
    let n_bytes = len / tensor_type.block_len() * tensor_type.block_bytes();
    let mut bytes: Vec<u8> = (0..n_bytes).map(|i| noise(i).to_le_bytes()[0]).collect();
    let small = 0x1c_u8; // f16 of about 0.004
    let high_bytes: &[usize] = match tensor_type {
        TensorType::Q4_1 | TensorType::Q5_1 | TensorType::Q4_K | TensorType::Q5_K => &[1, 3],
        TensorType::Q2_K => &[81, 83],
        TensorType::Q3_K => &[109],
        TensorType::Q6_K => &[209],
        TensorType::MXFP4 => &[],
        _ => &[1],
    };
    for block in bytes.chunks_exact_mut(tensor_type.block_bytes()) {
        for &byte in high_bytes {
            block[byte] = small;
        }
        match tensor_type {
            TensorType::MXFP4 => block[0] = 120,
            TensorType::BF16 => block[1] = 0x3c | (block[0] & 1) << 7,
            TensorType::F16 => block[1] = small | (block[0] & 1) << 7,
            _ => {}
        }
    }
    bytes
}
