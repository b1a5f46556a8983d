//! A tiny random llama, written as a GGUF file.

use std::sync::Arc;

use gguf::write::Writer;
use gguf::{Directory, StringArray, TensorType, Value};
use text::Tokenizer;

pub(crate) const N_VOCAB: u32 = 288;
pub(crate) const CONTEXT: u32 = 512;
/// End of generation; the models are random, so it comes when it comes.
pub(crate) const EOS: u32 = 2;

/// What the file is to hold.
#[derive(Clone, Copy)]
pub(crate) struct Tiny {
    pub(crate) seed: u64,
    pub(crate) architecture: &'static str,
    pub(crate) n_layers: usize,
    pub(crate) tied: bool,
    pub(crate) biases: bool,
    pub(crate) rope_factors: bool,
    /// Linear scaling of positions; 1 for none.
    pub(crate) rope_scale: u8,
    /// Experts of each block, of which a row uses [`N_USED`]; 0 for a dense model.
    pub(crate) n_experts: u32,
    /// Norms on both sides of each half, a window in every other layer, bounds on scores and logits.
    pub(crate) sandwich: bool,
    /// Queries, keys and values share a tensor, and so do the halves of the feed-forward network. Its numbers are those of the model in which they do not.
    pub(crate) fused: bool,
    /// Of matrices whose rows are whole blocks of it; others are F32.
    pub(crate) tensor_type: TensorType,
}

/// Experts of a row.
pub(crate) const N_USED: u32 = 2;
/// Positions that a row sees in layers with a window.
const WINDOW: u32 = 8;

impl Tiny {
    pub(crate) const LLAMA: Tiny = Tiny {
        seed: 1,
        architecture: "llama",
        n_layers: 3,
        tied: false,
        biases: false,
        rope_factors: true,
        rope_scale: 1,
        n_experts: 0,
        sandwich: false,
        fused: false,
        tensor_type: TensorType::F32,
    };
    pub(crate) const EXPERTS: Tiny = Tiny {
        seed: 3,
        n_experts: 16,
        rope_factors: false,
        ..Tiny::LLAMA
    };
    pub(crate) const GEMMA: Tiny = Tiny {
        seed: 4,
        architecture: "gemma2",
        n_layers: 4,
        tied: true,
        rope_factors: false,
        sandwich: true,
        ..Tiny::LLAMA
    };
    pub(crate) const QWEN: Tiny = Tiny {
        seed: 2,
        architecture: "qwen2",
        n_layers: 2,
        tied: true,
        biases: true,
        rope_factors: false,
        ..Tiny::LLAMA
    };
}

const N_EMBD: u64 = 32;
const N_FF: u64 = 48;
const N_KV: u64 = 16;

/// The bytes of a file and what they say of themselves.
pub(crate) struct File {
    pub(crate) directory: Arc<Directory>,
    pub(crate) bytes: Arc<Vec<u8>>,
    pub(crate) tokenizer: Arc<Tokenizer>,
}

pub(crate) fn write(tiny: Tiny) -> File {
    let mut writer = Writer::new();
    for (key, value) in metadata(tiny) {
        writer = writer.metadata(&key, value);
    }
    for (name, dims) in tensors(tiny) {
        let whole_blocks = dims[0].is_multiple_of(tiny.tensor_type.block_len() as u64);
        let tensor_type = match dims.len() > 1 && whole_blocks {
            true => tiny.tensor_type,
            false => TensorType::F32,
        };
        writer = writer.tensor(&name, &dims, tensor_type);
    }
    let header = writer.finish().expect("a sound header");
    let mut bytes = header.bytes;
    bytes.resize(usize::try_from(header.file_len).expect("a small file"), 0);
    let mut random = Random(tiny.seed);
    for info in header.directory.tensors() {
        let start = usize::try_from(info.offset_bytes).expect("a small file");
        if info.tensor_type == TensorType::Q8_0 {
            let len = usize::try_from(info.len_bytes).expect("a small tensor");
            fill_q8_0(&mut bytes[start..][..len], &mut random);
            continue;
        }
        let n = usize::try_from(info.shape.n_elements()).expect("a small tensor");
        let is_vector = info.shape.dims().len() == 1;
        for (index, value) in bytes[start..][..4 * n].chunks_exact_mut(4).enumerate() {
            let noise = random.next();
            let number = match info.name.as_str() {
                "rope_freqs.weight" => 1.0 + index as f32,
                name if name.ends_with("norm.weight") => 1.0 + 0.1 * noise,
                _ if is_vector => 0.1 * noise,
                _ => 0.35 * noise,
            };
            value.copy_from_slice(&number.to_le_bytes());
        }
    }
    let tokenizer =
        Tokenizer::from_metadata(header.directory.metadata()).expect("a sound vocabulary");
    File {
        directory: Arc::new(header.directory),
        bytes: Arc::new(bytes),
        tokenizer: Arc::new(tokenizer),
    }
}

/// Blocks of a factor in f16, here 2⁻⁹, and 32 numbers of 8 bits.
#[expect(
    clippy::cast_possible_truncation,
    reason = "noise is below 1, so that the number fits 8 bits"
)]
fn fill_q8_0(bytes: &mut [u8], random: &mut Random) {
    for block in bytes.chunks_exact_mut(34) {
        block[..2].copy_from_slice(&0x1800_u16.to_le_bytes());
        let quants = block[2..].iter_mut();
        quants.for_each(|quant| *quant = ((127.0 * random.next()) as i8).cast_unsigned());
    }
}

fn metadata(tiny: Tiny) -> Vec<(String, Value)> {
    let arch = tiny.architecture;
    let key = |suffix: &str| format!("{arch}.{suffix}");
    let mut entries = vec![
        ("general.architecture".to_owned(), arch.into()),
        (
            key("block_count"),
            u32::try_from(tiny.n_layers).expect("few layers").into(),
        ),
        (key("context_length"), CONTEXT.into()),
        (key("embedding_length"), 32u32.into()),
        (key("feed_forward_length"), 48u32.into()),
        (key("attention.head_count"), 4u32.into()),
        (key("attention.head_count_kv"), 2u32.into()),
        (key("attention.layer_norm_rms_epsilon"), 1e-5f32.into()),
        (key("rope.scaling.type"), "linear".into()),
        (
            key("rope.scaling.factor"),
            f32::from(tiny.rope_scale).into(),
        ),
        ("tokenizer.ggml.model".to_owned(), "llama".into()),
        ("tokenizer.ggml.tokens".to_owned(), vocabulary().into()),
        (
            "tokenizer.ggml.scores".to_owned(),
            vec![0f32; N_VOCAB as usize].into(),
        ),
        ("tokenizer.ggml.token_type".to_owned(), token_types().into()),
        ("tokenizer.ggml.eos_token_id".to_owned(), EOS.into()),
    ];
    if tiny.n_experts > 0 {
        entries.push((key("expert_count"), tiny.n_experts.into()));
        entries.push((key("expert_used_count"), N_USED.into()));
    }
    if tiny.sandwich {
        entries.push((key("attention.sliding_window"), WINDOW.into()));
        entries.push((key("attn_logit_softcapping"), 5f32.into()));
        entries.push((key("final_logit_softcapping"), 3f32.into()));
    }
    entries
}

/// Three special tokens, every byte, and a few words.
fn vocabulary() -> StringArray {
    let special = ["<unk>", "<s>", "</s>"].map(str::to_owned);
    let bytes = (0..256).map(|byte| format!("<0x{byte:02X}>"));
    let words = (0..N_VOCAB - 259).map(|word| format!("w{word}"));
    special
        .into_iter()
        .chain(bytes)
        .chain(words)
        .map(String::into_bytes)
        .collect()
}

fn token_types() -> Vec<i32> {
    let (unknown, control, byte, normal) = (2, 3, 6, 1);
    let special = [unknown, control, control];
    special
        .into_iter()
        .chain([byte; 256])
        .chain([normal; N_VOCAB as usize - 259])
        .collect()
}

fn tensors(tiny: Tiny) -> Vec<(String, Vec<u64>)> {
    let vocab = u64::from(N_VOCAB);
    let mut tensors: Vec<(String, Vec<u64>)> =
        vec![("token_embd.weight".to_owned(), vec![N_EMBD, vocab])];
    if tiny.rope_factors {
        tensors.push(("rope_freqs.weight".to_owned(), vec![4]));
    }
    for layer in 0..tiny.n_layers {
        let mut add =
            |part: &str, dims: &[u64]| tensors.push((format!("blk.{layer}.{part}"), dims.to_vec()));
        add("attn_norm.weight", &[N_EMBD]);
        let qkv = match tiny.fused {
            true => vec![("attn_qkv", N_EMBD + 2 * N_KV)],
            false => vec![("attn_q", N_EMBD), ("attn_k", N_KV), ("attn_v", N_KV)],
        };
        for (part, n_out) in qkv {
            add(&format!("{part}.weight"), &[N_EMBD, n_out]);
            if tiny.biases {
                add(&format!("{part}.bias"), &[n_out]);
            }
        }
        add("attn_output.weight", &[N_EMBD, N_EMBD]);
        add("ffn_norm.weight", &[N_EMBD]);
        if tiny.sandwich {
            add("post_attention_norm.weight", &[N_EMBD]);
            add("post_ffw_norm.weight", &[N_EMBD]);
        }
        if tiny.n_experts > 0 {
            let n = u64::from(tiny.n_experts);
            add("ffn_gate_inp.weight", &[N_EMBD, n]);
            add("ffn_gate_exps.weight", &[N_EMBD, N_FF, n]);
            add("ffn_up_exps.weight", &[N_EMBD, N_FF, n]);
            add("ffn_down_exps.weight", &[N_FF, N_EMBD, n]);
            continue;
        }
        if tiny.fused {
            add("ffn_up.weight", &[N_EMBD, 2 * N_FF]);
        } else {
            add("ffn_gate.weight", &[N_EMBD, N_FF]);
            add("ffn_up.weight", &[N_EMBD, N_FF]);
        }
        add("ffn_down.weight", &[N_FF, N_EMBD]);
    }
    tensors.push(("output_norm.weight".to_owned(), vec![N_EMBD]));
    if !tiny.tied {
        tensors.push(("output.weight".to_owned(), vec![N_EMBD, vocab]));
    }
    tensors
}

/// Numbers in [-1, 1) (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let bits = u16::try_from((x >> 40) & 0xffff).expect("16 bits");
        f32::from(bits) / 32768.0 - 1.0
    }
}
